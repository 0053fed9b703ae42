"""A stretch of a staged network in pieces, so that activations on its way can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import final

from torch import Tensor, nn

from inarch.network.stages import Stages


@final
class Pieces:
    """Stages start + 1 to stop, cut at `taps` as well. No module: its layers belong to the segment of these stages.

    Segments have modes of their own where they hold no layers, and buffers of their own beside shared ones: `train`,
    `rest` and `apply` must follow what the whole segment is told.
    """

    def __init__(self, staged: Stages, start: int, taps: Sequence[int], stop: int) -> None:
        self._segments = [staged.segment(a, b) for a, b in pairwise((start, *taps, stop))]

    def run(self, x: Tensor, take: Callable[[Tensor], Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the stretch makes of x, and what `take` keeps of the activations at the taps, in their order."""
        taken = []
        for segment in self._segments[:-1]:
            x = segment(x)
            taken.append(take(x))
        return self._segments[-1](x), tuple(taken)

    def train(self, mode: bool) -> None:
        for segment in self._segments:
            segment.train(mode)

    def rest(self, paths: Iterable[str]) -> None:
        """Evaluation mode for the modules at these paths, wherever they are."""
        for path in paths:
            for segment in self._segments:
                with suppress(AttributeError):  # each path lies in one of them, or in several
                    segment.get_submodule(path).training = False

    def put(self, path: str, module: nn.Module) -> None:
        """Puts a module where another one stands, wherever that is."""
        for segment in self._segments:
            with suppress(AttributeError):
                segment.get_submodule(path)
                set_submodule(segment, path, module)

    def apply(self, change: Callable[[Tensor], Tensor]) -> None:
        """What `nn.Module._apply` does; what is shared with the whole segment is changed there already."""
        for segment in self._segments:
            segment._apply(change)


def set_submodule(whole: nn.Module, path: str, module: nn.Module) -> None:
    """Puts a module where another one stands in `whole`."""
    parent, _, name = path.rpartition(".")
    setattr(whole.get_submodule(parent), name, module)
