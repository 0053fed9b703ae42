"""A stretch of a staged network in pieces, so that activations on its way can be read, or need not be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from inarch.network.recomputed import computed_again
from inarch.network.stages import Stages


@final
class Pieces:
    """Stages start + 1 to stop, cut at `taps` as well; those up to `recomputed` are computed again in the backward pass
    (`recomputed.py`). No module: its layers belong to the segment of these stages.

    Segments have modes of their own where they hold no layers, and buffers of their own beside shared ones: `train`,
    `rest` and `apply` must follow what the whole segment is told.
    """

    def __init__(self, staged: Stages, start: int, taps: Sequence[int], stop: int, recomputed: int = 0) -> None:
        self._taps, self._recomputed = frozenset(taps), recomputed
        self._ends = sorted({*taps, *range(start + 1, min(recomputed, stop) + 1)})
        self._segments = [staged.segment(a, b) for a, b in pairwise((start, *self._ends, stop))]

    def run(self, x: Tensor, take: Callable[[Tensor], Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the stretch makes of x, and what `take` keeps of the activations at the taps, in their order."""
        taken = []
        for segment, end in zip(self._segments[:-1], self._ends, strict=True):
            again = end <= self._recomputed and torch.is_grad_enabled()
            x = computed_again(segment, x) if again else segment(x)
            if end in self._taps:
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


class InPieces(nn.Module):
    """A module whose layers run elsewhere than where they have their names, and which must hear of others put there."""

    def follow(self, path: str, module: nn.Module) -> None:
        """A module now stands at this path."""
        raise NotImplementedError


def set_submodule(whole: nn.Module, path: str, module: nn.Module) -> None:
    """Puts a module where another one stands in `whole`, wherever that is run."""
    parent, _, name = path.rpartition(".")
    setattr(whole.get_submodule(parent), name, module)
    steps = path.split(".")
    for depth in range(len(steps)):
        above = whole.get_submodule(".".join(steps[:depth]))
        if isinstance(above, InPieces):
            above.follow(".".join(steps[depth:]), module)
