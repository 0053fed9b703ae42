"""What operations cost at least: their counts of arithmetic and bytes, and the machine's rates of both.

No operation is faster than its multiplications and additions over the machine's rate of matrix products, and few are
faster than their bytes over the rate at which the machine copies as many bytes, which is higher for what its caches
hold (a roofline, Williams et al. 2009, "Roofline: an insightful visual performance model for multicore architectures").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from common import Record
from inarch.features.machine import Machine
from inarch.launch.plan import candidates

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

        arithmetic: operations a second by precision. copying: as in `seconds_to_move`.
        """
        by_bytes = seconds_to_move([moved for _, moved, _ in self.done], copying)
        by_operations = np.array([operations / arithmetic[precision] for operations, _, precision in self.done])
        seconds = {"operations": by_operations, "bytes": by_bytes, "both": np.maximum(by_operations, by_bytes)}
        return {name: float(values.sum()) for name, values in seconds.items()}


def seconds_to_move(moved: Sequence[int], copying: dict[int, float]) -> np.ndarray:
    """Fewest seconds for each of these numbers of bytes.

    copying: bytes a second by bytes that are moved; between those known, on a line over their logarithm.
    """
    known = sorted(copying)
    asked = np.array(moved, dtype=float)
    rates = np.interp(np.log(np.maximum(asked, 1)), np.log(known), [copying[one] for one in known])
    found: np.ndarray = asked / rates
    return found


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


def precisions(device: str) -> list[str]:
    return list(dict.fromkeys(precision for _, precision in candidates(device)))


def timed(run: Callable[[], Any], device: str, times: int) -> float:
    """Seconds of one of the runs that a device is given at once."""
    machine = Machine(device)
    machine.wait()
    start = time.perf_counter()
    for _ in range(times):
        run()
    machine.wait()
    return (time.perf_counter() - start) / times


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
