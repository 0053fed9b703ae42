"""What the machine allows at most, and how near to it forward passes and training steps are.

No operation is faster than its multiplications and additions over the machine's rate of matrix products, nor than the
bytes that it reads and writes over the machine's rate of copying memory. The limit of a pass is the sum over the
operations that PyTorch executes one after the other of whichever takes longer (a roofline, Williams et al. 2009,
"Roofline: an insightful visual performance model"). Operations fused into one could go below it, and so can those that
find in the processor's cache what the one before has left there. Rates and passes are measured in turn in one process.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

import common
from common import AS_COMMAND_LINE, Parts, Record
from inarch.features.machine import Machine
from inarch.features.plan import PRECISIONS, Plan, computes_in_bf16
from inarch.launch.allocator import keep_memory
from inarch.network.adapted import stage
from inarch.network.source import Source
from ours import Wanted

NETWORKS = ("mobilenetv1_025_128", "squeezenet1_1", "mobilenetv2_100")
BATCH_SIZE = 32
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Rows and columns of the matrices whose product is timed; numbers in the tensor that is copied, more than caches hold.
SIDE = 2048
COPIED = 1 << 26


@final
class Work(TorchDispatchMode):
    """Notes of every operation executed within: multiplications and additions, bytes read and written, precision."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[int, int, str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if not func.is_view and not func.__name__.startswith(("empty", "new_empty", "detach")):
            given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
            tensors = given + [one for one in tree_leaves(found) if isinstance(one, Tensor)]
            half = any(one.dtype == torch.bfloat16 for one in given)
            operations = operations_of(func.overloadpacket, args, kwargs, found)
            self.done.append((operations, sum(map(bytes_of, tensors)), "bf16" if half else "fp32"))
        return found

    @property
    def operations(self) -> int:
        return sum(operations for operations, _, _ in self.done)

    @property
    def bytes(self) -> int:
        return sum(moved for _, moved, _ in self.done)

    def limits(self, rates: dict[str, float]) -> Record:
        """Fewest seconds by operations alone, by bytes alone, and by whichever of them is slower at each operation."""
        pairs = [(operations / rates[kind], moved / rates["copy"]) for operations, moved, kind in self.done]
        return {
            "operations": sum(first for first, _ in pairs),
            "bytes": sum(second for _, second in pairs),
            "both": sum(max(pair) for pair in pairs),
        }


def operations_of(function: Any, args: Any, kwargs: Any, found: Any) -> int:
    """Multiplications and additions as PyTorch counts them, but for gradients of convolutions, where it takes every
    output channel to depend on all input channels whatever the groups: each gradient takes what the forward pass took.
    """
    if function is torch.ops.aten.convolution_backward:
        gradient, _, weight, *_, wanted = args
        return 2 * int(gradient.numel()) * int(weight[0].numel()) * sum(wanted[:2])
    count = flop_registry.get(function)
    return int(count(*args, **kwargs, out_val=found)) if count else 0


def bytes_of(tensor: Tensor) -> int:
    """Bytes that a tensor stands for in memory; what is expanded is there once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def roofline(source: str, rounds: int) -> Record:
    """Rates of the machine, and seconds, operations, bytes and limits of every pass in every precision."""
    keep_memory()
    torch.set_flush_denormal(True)
    passes = passes_of(Wanted(Path(), source).load())
    noted = {}
    for name, run in passes.items():
        run()
        with Work() as work:
            run()
        noted[name] = work
    contestants = rates() | passes
    seconds = [{name: run() for name, run in contestants.items()} for _ in range(rounds)]
    middles = {name: median(one[name] for one in seconds) for name in contestants}
    found_rates = {name: amount / middles[name] for name, amount in amounts().items()}
    found = [
        {
            "pass": name[0], "precision": name[1], "operations": work.operations, "bytes": work.bytes,
            "seconds": middles[name], "seconds_of_rounds": [one[name] for one in seconds],
            "limits": work.limits(found_rates),
        }
        for name, work in noted.items()
    ]  # fmt: skip
    return {"rates": found_rates, "passes": found, "images": BATCH_SIZE, "threads": torch.get_num_threads()}


def passes_of(source: Source) -> dict[tuple[str, str], Callable[[], float]]:
    """By name and precision: forward, and steps that train all layers and those behind the middle cut."""
    staged = stage(source.network, source.classification_layer, source.input.example())
    count = len(staged.stages)
    images = source.input.example(BATCH_SIZE)
    passes = {}
    for precision in precisions():
        machine = Machine("cpu", Plan("channels_last", precision, precision))
        source.network.to(memory_format=machine.plan.layout)
        passes["forward", precision] = forward(staged.segment(0, count), machine, images)
        for cut in (0, count // 2):
            frozen, trained = staged.segment(0, cut), staged.segment(cut, count)
            passes[f"step at cut {cut}", precision] = step(frozen, trained, machine, images)
    return passes


def precisions() -> list[str]:
    return [one for one in PRECISIONS if one != "bf16" or computes_in_bf16("cpu")]


def timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def forward(network: nn.Module, machine: Machine, images: Tensor) -> Callable[[], float]:
    """The frozen forward pass of a batch; returns its seconds."""
    pixels = machine.place(images)

    def run() -> float:
        network.eval()
        with torch.no_grad(), machine.autocast(frozen=True):
            return timed(lambda: network(pixels))

    return run


def step(frozen: nn.Module, trained: nn.Module, machine: Machine, images: Tensor) -> Callable[[], float]:
    """Forward and backward pass of a batch through all layers behind a cut; returns its seconds."""
    with torch.no_grad(), machine.autocast(frozen=True):
        stored = machine.hand_over(frozen.eval()(machine.place(images)))
    labels = torch.zeros(len(images), dtype=torch.long)

    def both() -> None:
        with machine.autocast():
            logits = trained(stored)
        F.cross_entropy(logits.float(), labels).backward()

    def run() -> float:
        trained.train()
        seconds = timed(both)
        trained.zero_grad(set_to_none=True)
        return seconds

    return run


def rates() -> dict[Any, Callable[[], float]]:
    """The machine's own contestants: matrix products in each precision, and copying memory."""
    source, goal = torch.ones(COPIED), torch.ones(COPIED)
    runs: dict[Any, Callable[[], float]] = {"copy": lambda: timed(lambda: goal.copy_(source))}
    for precision in precisions():
        matrix = torch.ones(SIDE, SIDE, dtype=DTYPES[precision])
        runs[precision] = lambda matrix=matrix: timed(lambda: matrix @ matrix)  # type: ignore[misc]
    return runs


def amounts() -> dict[str, int]:
    """What the machine's own contestants do: multiplications and additions, bytes read and written."""
    return {"copy": 2 * 4 * COPIED} | dict.fromkeys(precisions(), 2 * SIDE**3)


def main(given: Sequence[str] | None = None) -> int:
    parser = common.arguments(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    chosen = parser.parse_args(given)
    work = (chosen.out / ("limits-quick" if chosen.quick else "limits")).resolve()
    facts = common.machine()
    parts, found = Parts(chosen.parts or work / "parts", work), {}
    for network in NETWORKS[:1] if chosen.quick else NETWORKS:
        values = {"source": common.card(network), "rounds": 3 if chosen.quick else 15}
        found[network] = parts.measure(network, "limits:roofline", values, AS_COMMAND_LINE)
    show(found)
    common.write_json(chosen.json, {"networks": found, "machine": facts})
    return 0


def show(found: dict[str, Record]) -> None:
    rows = []
    for network, part in found.items():
        machine = {name: f"{rate / 1e9:.0f}" for name, rate in part["rates"].items()}
        copy = machine.pop("copy")
        products = ", ".join(f"{rate} in {precision}" for precision, rate in machine.items())
        print(f"{network}: matrix products {products} GFLOP/s; memory copied at {copy} GB/s")
        for one in part["passes"]:
            speed = [part["images"] / seconds for seconds in (*one["limits"].values(), one["seconds"])]
            share = f"{100 * one['limits']['both'] / one['seconds']:.0f} %"
            amount = [one["operations"] / part["images"] / 1e6, one["bytes"] / part["images"] / 1e6]
            rows.append([network, one["pass"], one["precision"], *amount, *speed, share])
    columns = ["network", "pass", "precision", "M operations", "MB", "by operations", "by bytes", "limit", "measured"]
    common.print_table("An image's operations and bytes; limits in images/s", [*columns, "share"], rows)


if __name__ == "__main__":
    sys.exit(main())
