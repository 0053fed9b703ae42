"""Images a second of `inarch predict`, from files to a CSV file, against the bare forward pass and the decoder.

If decoding and forward passes took turns, nothing could be faster than 1 / (1 / forward + 1 / decode); a loader that
decodes beside the forward pass can be. All three are measured in one process, in turn, over several rounds. The forward
pass counts on the better memory format, and decoding is reading and resizing by two threads, as predict does it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

import common
import inarch
from common import AS_COMMAND_LINE, Parts, Record, middle
from inarch.data import MAX_PIXELS, read_image, resize_to_cover
from inarch.network.card import InputSpec
from inarch.predictions import Columns, write_csv
from made import RANDOM, card_of, make_images
from ours import Wanted

NETWORKS = ("mobilenetv1_025_128", "mobilenetv2_100", "squeezenet1_1")
BATCH_SIZE = 32
READERS = 2


def images_of(folder: Path, count: int) -> list[Path]:
    """The first `count` image files below a folder, in the order of their names."""
    return sorted(path for path in folder.rglob("*.jpg"))[:count]


def speeds(folder: str, source: str, count: int, rounds: int, device: str, out: str) -> Record:
    """Images a second of predict, decoding and the forward pass in every round."""
    files = images_of(Path(folder), count)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    wanted = Wanted(Path(folder), source)
    loaded = wanted.load()
    model = inarch.load(source, device=device)  # also tells the allocator to keep memory, for all three
    forward = best_forward(loaded.network.eval().to(device), loaded.input, device)
    contestants: dict[str, Callable[[], Any]] = {
        "predict": lambda: write_csv(model.predict(files, batch_size=BATCH_SIZE), Path(out), Columns(1)),
        "decode": lambda: decode(files, loaded.input),
        "forward": lambda: [forward() for _ in range(-(-len(files) // BATCH_SIZE))],
    }
    for run in contestants.values():
        run()
    found = []
    for _ in range(rounds):
        one = {}
        for name, run in contestants.items():
            start = time.monotonic()
            run()
            passed = time.monotonic() - start
            one[name] = (-(-len(files) // BATCH_SIZE) * BATCH_SIZE if name == "forward" else len(files)) / passed
        found.append(one | {"share": one["predict"] / bound(one["forward"], one["decode"])})
    return {"rounds": found, "images": len(files), "threads": torch.get_num_threads()}


def bound(forward: float, decode: float) -> float:
    """Images a second where decoding and forward passes take turns."""
    return 1 / (1 / forward + 1 / decode)


def decode(files: Sequence[Path], spec: InputSpec) -> None:
    """Reads and resizes all files."""
    height, width = round(spec.height / spec.crop_pct), round(spec.width / spec.crop_pct)

    def read(file: Path) -> None:
        resize_to_cover(read_image(file, MAX_PIXELS), height, width, spec.interpolation)

    with ThreadPoolExecutor(READERS) as readers:
        list(readers.map(read, files))


def best_forward(network: nn.Module, spec: InputSpec, device: str) -> Callable[[], Any]:
    """The forward pass of a batch in the memory format that is faster here, in float32."""
    candidates: dict[float, Callable[[], Any]] = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        images = spec.example(BATCH_SIZE).to(device=device, memory_format=layout)

        def run(images: torch.Tensor = images, layout: torch.memory_format = layout) -> None:
            network.to(memory_format=layout)
            with torch.inference_mode():
                network(images).sum().item()

        run()
        start = time.monotonic()
        run()
        candidates[time.monotonic() - start] = run
    return candidates[min(candidates)]


def main(given: Sequence[str] | None = None) -> int:
    parser = common.arguments(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    common.device_argument(parser)
    chosen = parser.parse_args(given)
    work = (chosen.out / common.named("predict", chosen)).resolve()
    count, rounds = (200, 3) if chosen.quick else (2000, 5)
    networks = NETWORKS[:1] if chosen.quick else NETWORKS
    if chosen.device != "cpu":
        networks = (RANDOM,)
        folder = make_images(work / "images", classes=10, a_class=count // 10, side=400)
    else:
        folder = common.shared() / "data" / "clothing"
    facts = common.machine()
    parts, rows, results = Parts(chosen.parts or work / "parts", work), [], {}
    for network in networks:
        source = card_of(network, work)
        values = {
            "folder": folder, "source": source, "count": count, "rounds": rounds, "device": chosen.device,
            "out": work / f"{network}.csv",
        }  # fmt: skip
        found = parts.measure(f"{network}-{chosen.device}", "predict:speeds", values, AS_COMMAND_LINE)
        names = ("predict", "decode", "forward", "share")
        results[network] = {name: middle(found["rounds"], name) for name in names} | {"rounds": found["rounds"]}
        figures = results[network]
        bounds = bound(figures["forward"], figures["decode"])
        rows.append(
            [network, *(figures[name] for name in names[:3]), bounds, f"{100 * figures['share']:.1f} %", rounds]
        )
    columns = ["images/s", "predict", "decode", "forward", "1/(1/forward + 1/decode)", "share of it", "rounds"]
    common.print_table(f"{count} images of {folder.name}, files to CSV, {chosen.device}", columns, rows)
    common.write_json(chosen.json, {"networks": results, "images": count, "machine": facts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
