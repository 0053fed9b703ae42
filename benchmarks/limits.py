"""How near what a study spends its time on is to what the machine allows for it: passes, views, stored activations.

The limit of a pass is the sum over its operations, executed one after the other, of whichever takes longer, their
arithmetic or their bytes (`roofline.py`). Operations fused into one could go below it. Views and stored rows of
activations must at least be read once and written once. Rates and what is measured against them run in turn in one
process; of rates the shortest times count, since whatever disturbs a machine only adds, of the others the medians. A
GPU is given several of a kind before the clock is read, since starting and waiting for one alone takes longer than many
an operation.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import common
from common import AS_COMMAND_LINE, Parts, Record
from inarch.features.machine import Machine
from inarch.features.plan import Plan
from inarch.features.shelf import Shelf
from inarch.features.store import Keeping, PrefixStore
from inarch.launch.allocator import keep_memory
from inarch.launch.progress import Progress
from inarch.network.adapted import stage
from inarch.network.source import Source
from inarch.options import StudyOptions
from inarch.preparation import as_images, pixel_size, read_images
from made import RANDOM, card_of
from ours import Wanted
from roofline import AT_ONCE, SIDE, Timed, Work, copies, precisions, products, seconds_to_move, timed

NETWORKS = ("mobilenetv1_025_128", "squeezenet1_1", "mobilenetv2_100")
BATCH_SIZE = 32
# Training images of the data set whose views and activations are timed.
IMAGES = 1000
STORE_LIMIT = 8 << 30


def of_passes(source: str, rounds: int, device: str = "cpu") -> Record:
    """Rates of the machine, and seconds, operations, bytes and limits of every pass in every precision."""
    keep_memory()
    torch.set_flush_denormal(True)
    # GPUs compute convolutions in fp32 with TF32 unless told otherwise: so must the product that is their limit.
    torch.backends.cuda.matmul.allow_tf32 = device == "cuda"
    passes = passes_of(Wanted(Path(), source).load(), device)
    noted = {}
    for name, run in passes.items():
        run(1)
        with Work() as work:
            run(1)
        noted[name] = work
    seconds, copying = in_turn({**products(device), **passes}, rounds, device)
    arithmetic = {precision: 2 * SIDE[device] ** 3 / min(seconds[precision]) for precision in precisions(device)}
    found = [
        {
            "pass": name[0], "precision": name[1], "operations": work.operations, "bytes": work.bytes,
            "seconds": median(seconds[name]), "limits": work.limits(arithmetic, copying),
        }
        for name, work in noted.items()
    ]  # fmt: skip
    rates = {"arithmetic": arithmetic, "copying": copying}
    return {"rates": rates, "passes": found, "images": BATCH_SIZE, "threads": torch.get_num_threads()}


def in_turn(
    contestants: dict[Any, Timed], rounds: int, device: str = "cpu"
) -> tuple[dict[Any, list[float]], dict[int, float]]:
    """Seconds of every round of each, and the bytes a second of copies that took turns with them."""
    of_copies = copies(device)
    everything: dict[Any, Timed] = {**of_copies, **contestants}
    found = [{name: run(AT_ONCE[device]) for name, run in everything.items()} for _ in range(rounds)]
    seconds = {name: [one[name] for one in found] for name in everything}
    return {name: seconds[name] for name in contestants}, {moved: moved / min(seconds[moved]) for moved in of_copies}


def of_data(manifest: str, source: str, folder: str, rounds: int) -> Record:
    """Seconds, bytes and limits of batches of training views, and of stored activations at the middle cut."""
    keep_memory()
    torch.set_flush_denormal(True)
    loaded, options = Wanted(Path(manifest), source).load(), StudyOptions()
    staged = stage(loaded.network, loaded.classification_layer, loaded.input.example())
    dataset = read_images(Path(manifest), pixel_size(loaded), options, Progress())
    settings = options.settings(len(dataset.train), Plan())
    images, rows = as_images(dataset, loaded, settings), dataset.rows("train")
    batches = np.random.default_rng(0).permutation(len(rows))[: len(rows) // BATCH_SIZE * BATCH_SIZE]
    batches = batches.reshape(-1, BATCH_SIZE)
    assert dataset.pixels is not None
    share = fmean(settings.augmentation.scale)
    crop = 3 * share * fmean(float(np.prod(dataset.pixels.size(row))) for row in rows.tolist())
    made: dict[tuple[str, str], Callable[[np.ndarray], Tensor]] = {
        ("views", "fp32"): lambda batch: images.seen(rows[batch], 1, "cpu")
    }
    # Bytes of a batch, read and written once.
    moved = {name: int(crop * BATCH_SIZE) + run(batches[0]).nbytes for name, run in made.items()}
    cut, shelf = len(staged.stages) // 2, Shelf(Path(folder) / "store", STORE_LIMIT)
    for precision in precisions("cpu"):
        machine = Machine("cpu", Plan("channels_last", precision, precision), torch.get_num_threads())
        store = PrefixStore(staged, images, machine, Keeping((cut,), shelf=shelf))
        name = f"stored, cut {cut}", precision
        made[name] = partial(store.read, cut, "train", view=0)
        found = made[name](batches[0])
        moved[name] = 2 * found.numel() + found.nbytes  # stored in bf16, whatever it is computed in
    seconds, copying = in_turn({name: over(batches, run) for name, run in made.items()}, rounds)
    shutil.rmtree(folder)
    limits = dict(zip(moved, seconds_to_move(list(moved.values()), copying).tolist(), strict=True))
    parts = [
        {
            "pass": name[0], "precision": name[1], "bytes": moved[name],
            "seconds": median(seconds[name]), "limit": limits[name],
        }
        for name in made
    ]  # fmt: skip
    return {"parts": parts, "images": BATCH_SIZE, "threads": torch.get_num_threads()}


def over(batches: np.ndarray, run: Callable[[np.ndarray], Tensor]) -> Timed:
    """Seconds of a batch, all of them one after the other."""

    def every_one() -> None:
        for batch in batches:
            run(batch)

    return lambda times: timed(every_one, "cpu", times) / len(batches)


def passes_of(source: Source, device: str) -> dict[tuple[str, str], Timed]:
    """By name and precision: forward, and forward and backward through all layers and through those behind the middle
    cut."""
    staged = stage(source.network, source.classification_layer, source.input.example())
    source.network.to(device).to(memory_format=torch.channels_last)
    count = len(staged.stages)
    images = source.input.example(BATCH_SIZE)
    passes = {}
    for precision in precisions(device):
        machine = Machine(device, Plan("channels_last", precision, precision))
        passes["forward", precision] = forward(staged.segment(0, count), machine, images)
        for cut in (0, count // 2):
            frozen, trained = staged.segment(0, cut), staged.segment(cut, count)
            passes[f"training, cut {cut}", precision] = backward(frozen, trained, machine, images)
    return passes


def forward(network: nn.Module, machine: Machine, images: Tensor) -> Timed:
    """The frozen forward pass of a batch."""
    pixels = machine.place(images)

    def run(times: int) -> float:
        network.eval()
        with torch.no_grad(), machine.autocast(frozen=True):
            return timed(lambda: network(pixels), machine.device, times)

    return run


def backward(frozen: nn.Module, trained: nn.Module, machine: Machine, images: Tensor) -> Timed:
    """Forward and backward pass of a batch through all layers behind a cut."""
    with torch.no_grad(), machine.autocast(frozen=True):
        stored = machine.hand_over(frozen.eval()(machine.place(images)))
    labels = torch.zeros(len(images), dtype=torch.long, device=machine.device)

    def both() -> None:
        trained.zero_grad(set_to_none=True)
        with machine.autocast():
            logits = trained(stored)
        F.cross_entropy(logits.float(), labels).backward()

    def run(times: int) -> float:
        trained.train()
        seconds = timed(both, machine.device, times)
        trained.zero_grad(set_to_none=True)
        return seconds

    return run


def main(given: Sequence[str] | None = None) -> int:
    parser = common.arguments(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    common.device_argument(parser)
    chosen = parser.parse_args(given)
    work = (chosen.out / common.named("limits", chosen)).resolve()
    facts = common.machine()
    parts, found, data = Parts(chosen.parts or work / "parts", work), {}, {}
    networks = NETWORKS if chosen.device == "cpu" else (RANDOM,)
    for network in networks[:1] if chosen.quick else networks:
        source, rounds = card_of(network, work), 5 if chosen.quick else 20
        values = {"source": source, "rounds": rounds, "device": chosen.device}
        found[network] = parts.measure(network, "limits:of_passes", values, AS_COMMAND_LINE)
        if chosen.device == "cpu":
            manifest = common.draw_about(work, "clothing", 100 if chosen.quick else IMAGES, seed=0)
            values = {"manifest": manifest, "source": source, "folder": work / f"{network}-data", "rounds": rounds}
            data[network] = parts.measure(f"{network}-data", "limits:of_data", values, AS_COMMAND_LINE)
    show(found)
    show_data(data)
    common.write_json(chosen.json, {"networks": found, "data": data, "machine": facts})
    return 0


def show(found: dict[str, Record]) -> None:
    rows = []
    for network, part in found.items():
        products = ", ".join(f"{rate / 1e9:.0f} in {name}" for name, rate in part["rates"]["arithmetic"].items())
        copying = ", ".join(f"{int(moved) >> 20}: {rate / 1e9:.0f}" for moved, rate in part["rates"]["copying"].items())
        print(f"{network}: matrix products {products} GFLOP/s; copying, MiB moved: GB/s, {copying}")
        for one in part["passes"]:
            speeds = [part["images"] / seconds for seconds in (*one["limits"].values(), one["seconds"])]
            amounts = [one["operations"] / part["images"] / 1e6, one["bytes"] / part["images"] / 1e6]
            share = 100 * one["limits"]["both"] / one["seconds"]
            rows.append([network, one["pass"], one["precision"], *amounts, *speeds, share])
    columns = ["network", "pass", "precision", "M operations", "MB", "by operations", "by bytes", "limit", "measured"]
    title = f"Of an image; limits and measured in images/s, batches of {BATCH_SIZE}, channels last, nothing fused"
    common.print_table(title, [*columns, "share, %"], rows)


def show_data(found: dict[str, Record]) -> None:
    rows = []
    for network, part in found.items():
        for one in part["parts"]:
            speeds = [part["images"] / one["limit"], part["images"] / one["seconds"]]
            amount, share = one["bytes"] / part["images"] / 1e6, 100 * one["limit"] / one["seconds"]
            rows.append([network, one["pass"], one["precision"], amount, *speeds, share])
    if rows:
        columns = ["network", "part", "precision", "MB", "limit by bytes", "measured", "share, %"]
        common.print_table(f"Of an image; limits and measured in images/s, batches of {BATCH_SIZE}", columns, rows)


if __name__ == "__main__":
    sys.exit(main())
