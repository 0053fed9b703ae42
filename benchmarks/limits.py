"""How near forward passes and training steps are to what the machine allows for the operations that they consist of.

No operation is faster than its multiplications and additions over the machine's rate of matrix products, and few are
faster than their bytes over the rate at which the machine copies as many bytes, which is higher for what its caches
hold. The limit of a pass is the sum over its operations, executed one after the other, of whichever takes longer (a
roofline, Williams et al. 2009, "Roofline: an insightful visual performance model for multicore architectures").
Operations fused into one could go below it. Rates and passes are measured in turn in one process; of rates the shortest
times count, since whatever disturbs a machine only adds, of passes the medians. A GPU is given several of a kind before
the clock is read, since starting and waiting for one alone takes longer than many an operation.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

import common
from common import AS_COMMAND_LINE, Parts, Record
from inarch.features.machine import Machine
from inarch.features.plan import Plan
from inarch.launch.allocator import keep_memory
from inarch.launch.plan import candidates
from inarch.network.adapted import stage
from inarch.network.source import Source
from made import RANDOM, card_of
from ours import Wanted

NETWORKS = ("mobilenetv1_025_128", "squeezenet1_1", "mobilenetv2_100")
BATCH_SIZE = 32
# Rows and columns of the matrices whose product is timed, which must fill a GPU; bytes that copies read and write.
SIDE = {"cpu": 2048, "cuda": 8192}
# Rounds in which the rate of products alone is measured.
ROUNDS = 5
# How many of a kind are given to a device before the clock is read.
AT_ONCE = {"cpu": 1, "cuda": 10}
COPIES = tuple(1 << exponent for exponent in range(20, 31, 2))
# Does something a number of times and returns the seconds of one.
Timed = Callable[[int], float]
# Arguments that an operation does not read, by position.
UNREAD = {
    torch.ops.aten.copy_: (0,),
    torch.ops.aten.zero_: (0,),
    torch.ops.aten.fill_: (0,),
    torch.ops.aten.bernoulli_: (0,),
    torch.ops.aten.zeros_like: (0,),
    torch.ops.aten.ones_like: (0,),
    torch.ops.aten.max_pool2d_with_indices_backward: (1,),
}


@final
class Work(TorchDispatchMode):
    """Notes of every operation executed within: multiplications and additions, bytes read and written, precision."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: list[tuple[int, int, str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if not func.is_view and not func.__name__.startswith(("empty", "new_empty")):
            function = func.overloadpacket
            unread = not_read(function, args)
            read = tensors_in(([one for place, one in enumerate(args) if place not in unread], kwargs))
            moved = sum(map(bytes_of, [*read, *tensors_in(found)]))
            half = any(one.dtype == torch.bfloat16 for one in read)
            self.done.append((operations_of(function, args, kwargs, found), moved, "bf16" if half else "fp32"))
        return found

    @property
    def operations(self) -> int:
        return sum(operations for operations, _, _ in self.done)

    @property
    def bytes(self) -> int:
        return sum(moved for _, moved, _ in self.done)

    def limits(self, arithmetic: dict[str, float], copying: dict[int, float]) -> Record:
        """Fewest seconds by operations alone, by bytes alone, and by whichever is slower at each operation.

        arithmetic: operations a second by precision. copying: bytes a second by bytes that are moved; between those
        known, on a line over their logarithm.
        """
        known = sorted(copying)
        moved = np.array([moved for _, moved, _ in self.done], dtype=float)
        rates = np.interp(np.log(np.maximum(moved, 1)), np.log(known), [copying[one] for one in known])
        by_operations = np.array([operations / arithmetic[precision] for operations, _, precision in self.done])
        by_bytes = moved / rates
        seconds = {"operations": by_operations, "bytes": by_bytes, "both": np.maximum(by_operations, by_bytes)}
        return {name: float(values.sum()) for name, values in seconds.items()}


def not_read(function: Any, args: Sequence[Any]) -> tuple[int, ...]:
    """Positions of arguments that the operation leaves alone; a convolution's gradients need each other's input."""
    if function is torch.ops.aten.convolution_backward:
        of_input, of_weight, _ = args[-1]
        return (*(() if of_weight else (1,)), *(() if of_input else (2,)))
    return UNREAD.get(function, ())


def operations_of(function: Any, args: Any, kwargs: Any, found: Any) -> int:
    """Multiplications and additions as PyTorch counts them, but for gradients of convolutions (not transposed ones),
    where it takes every output channel to depend on all input channels whatever the groups: each gradient takes what
    the forward pass took.
    """
    if function is torch.ops.aten.convolution_backward:
        gradient, _, weight, *_, wanted = args
        return 2 * int(gradient.numel()) * int(weight[0].numel()) * sum(wanted[:2])
    count = flop_registry.get(function)
    return int(count(*args, **kwargs, out_val=found)) if count else 0


def tensors_in(values: Any) -> list[Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, Tensor)]


def bytes_of(tensor: Tensor) -> int:
    """Bytes that a tensor stands for in memory; what is expanded is there once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def roofline(source: str, rounds: int, device: str = "cpu") -> Record:
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
    contestants: dict[Any, Timed] = {**products(device), **copies(device), **passes}
    seconds = [{name: run(AT_ONCE[device]) for name, run in contestants.items()} for _ in range(rounds)]
    shortest = {name: min(one[name] for one in seconds) for name in contestants}
    arithmetic = {precision: 2 * SIDE[device] ** 3 / shortest[precision] for precision in precisions(device)}
    copying = {moved: moved / shortest[moved] for moved in COPIES}
    found = [
        {
            "pass": name[0], "precision": name[1], "operations": work.operations, "bytes": work.bytes,
            "seconds": median(one[name] for one in seconds), "limits": work.limits(arithmetic, copying),
        }
        for name, work in noted.items()
    ]  # fmt: skip
    rates = {"arithmetic": arithmetic, "copying": copying}
    return {"rates": rates, "passes": found, "images": BATCH_SIZE, "threads": torch.get_num_threads()}


def precisions(device: str) -> list[str]:
    return list(dict.fromkeys(precision for _, precision in candidates(device)))


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


def timed(run: Callable[[], Any], device: str, times: int) -> float:
    """Seconds of one of the runs that a device is given at once."""
    machine = Machine(device)
    machine.wait()
    start = time.perf_counter()
    for _ in range(times):
        run()
    machine.wait()
    return (time.perf_counter() - start) / times


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


def fastest_product(device: str) -> float:
    """Operations a second of matrix products in the fastest precision: the shortest of some times counts."""
    runs = products(device).values()
    return max(2 * SIDE[device] ** 3 / min(run(AT_ONCE[device]) for _ in range(ROUNDS)) for run in runs)


def products(device: str) -> dict[str, Timed]:
    """Matrix products by precision."""
    matrix = torch.randn(SIDE[device], SIDE[device], device=device)
    matrices = {"fp32": matrix, "bf16": matrix.bfloat16()}
    return {p: partial(timed, partial(torch.mm, matrices[p], matrices[p]), device) for p in precisions(device)}


def copies(device: str) -> dict[int, Timed]:
    """Copies by bytes that they read and write."""
    found: dict[int, Timed] = {}
    for moved in COPIES:
        source, goal = torch.ones(2, moved // 2, dtype=torch.uint8, device=device)
        found[moved] = partial(timed, partial(goal.copy_, source), device)
    return found


def main(given: Sequence[str] | None = None) -> int:
    parser = common.arguments(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    common.device_argument(parser)
    chosen = parser.parse_args(given)
    work = (chosen.out / common.named("limits", chosen)).resolve()
    facts = common.machine()
    parts, found = Parts(chosen.parts or work / "parts", work), {}
    networks = NETWORKS if chosen.device == "cpu" else (RANDOM,)
    for network in networks[:1] if chosen.quick else networks:
        source = card_of(network, work)
        values = {"source": source, "rounds": 5 if chosen.quick else 20, "device": chosen.device}
        found[network] = parts.measure(network, "limits:roofline", values, AS_COMMAND_LINE)
    show(found)
    common.write_json(chosen.json, {"networks": found, "machine": facts})
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


if __name__ == "__main__":
    sys.exit(main())
