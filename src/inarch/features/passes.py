"""Images pushed through the frozen source network, stage by stage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from inarch.features.images import Images
from inarch.features.machine import Machine
from inarch.network.stages import Stages
from inarch.profile import Profile

# Images that go through the network together: part of every number, so never changed for a machine or a study.
CHUNK = 64


@final
class Passes:
    """The source network as it was when this was made, and the images of a study."""

    def __init__(
        self, staged: Stages, images: Images, machine: Machine, tick: Callable[[], None],
        profile: Callable[[], Profile], chain: Sequence[nn.Module] | None = None,
    ) -> None:  # fmt: skip
        """`tick` is called before every piece of work and may raise to end it; `profile` gets its time. chain: the
        frozen stages of other passes through this network on this machine, instead of copies of their own."""
        self._images, self._machine, self._tick, self._profile = images, machine, tick, profile
        if chain is None:
            # Copies: trials train the stages behind their cut while a pass goes on to deeper cuts.
            stages = range(len(staged.stages))
            chain = [machine.place_frozen(copy.deepcopy(staged.segment(k, k + 1))) for k in stages]
        self.chain = chain

    def push(
        self, cuts: Iterable[int], split: str, view: int | None, chunks: Iterable[np.ndarray]
    ) -> Iterator[tuple[int, Tensor]]:
        """Cut by cut the activations of each chunk of images, in one pass: what flows on is as computed."""
        ascending = sorted(cuts)
        for positions in chunks:
            x, at = self.pixels(split, positions, view), 0
            for cut in ascending:
                x = self.run(at, cut, x)
                at = cut
                yield cut, x

    def pixels(self, split: str, positions: np.ndarray, view: int | None) -> Tensor:
        """The images at positions of a split as the network sees them; view None is the evaluation view."""
        rows = self._images.rows[split][positions]
        with self._profile().section("views"):
            return self._machine.place(self._images.seen(rows, view, self._machine.device))

    def run(self, start: int, stop: int, x: Tensor) -> Tensor:
        """Activations at cut `stop` from those at cut `start`."""
        self._tick()
        with self._profile().section("prefix passes"), torch.no_grad(), self._machine.autocast(frozen=True):
            for stage in self.chain[start:stop]:
                x = stage(x)
        return x


def chunks(images: int) -> Iterator[np.ndarray]:
    """Positions of a split in its order, a chunk at a time."""
    for start in range(0, images, CHUNK):
        yield np.arange(start, min(start + CHUNK, images))
