"""The store of prefix activations: what a frozen prefix makes of every (image, view), computed once.

Trials with the same cut and seed see the same views, so their prefix need not run again. What is kept follows from
sizes and a fixed limit alone, never from free memory or the clock: a resumed study reads the same numbers. Activations
are made in fixed chunks of images in the order of the split, because a batch of one does not round like a batch of 32.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from inarch.data import Views
from inarch.features.machine import Machine
from inarch.network.stages import Stages
from inarch.profile import Profile

CHUNK = 64
DEFAULT_LIMIT = 2 * 1024**3


@dataclass(frozen=True)
class Images:
    """What a study trains and evaluates on: views of pixels, and for each split its rows and labels.

    rows, labels: split name to int64 array [images].
    """

    views: Views
    rows: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    classes: int


@final
class PrefixStore:
    """Activations [images, ...] at any cut, for any view of any split."""

    def __init__(
        self, staged: Stages, images: Images, machine: Machine, *, epochs: int, limit: int = DEFAULT_LIMIT
    ) -> None:
        self.images = images
        self.machine = machine
        self._staged = staged
        self._limit = limit
        # Called before every piece of work; may raise to end it.
        self.tick: Callable[[], None] = lambda: None
        self.profile = Profile()
        self._segments: dict[tuple[int, int], nn.Module] = {}
        self._held: OrderedDict[tuple[int, str, int | None], Tensor] = OrderedDict()
        training = len(images.rows["train"])
        # Four bytes an element; a cut is kept only if all views of one trial fit, else each epoch would evict the last.
        self.kept_cuts = frozenset(
            stage.index for stage in staged.stages if 4 * _size(stage.output_shape) * training * epochs <= limit
        )

    def read(self, cut: int, split: str, positions: np.ndarray, view: int | None) -> Tensor:
        """Activations at `cut` of the images at `positions` of a split; `view` None is the evaluation view."""
        if cut in self.kept_cuts:
            return self.machine.hand_over(self._all(cut, split, view)[torch.from_numpy(positions)])
        return self.machine.hand_over(self._run(0, cut, self._pixels(split, positions, view)))

    def holds(self, cut: int, view: int | None) -> bool:
        """Whether a view of the training split is held at a cut: a matter of cost, not of what is read."""
        return (cut, "train", view) in self._held

    def batches(self, cut: int, split: str) -> Iterator[Tensor]:
        """The evaluation view of a whole split, in chunks."""
        for positions in _chunks(len(self.images.rows[split])):
            yield self.read(cut, split, positions, None)

    def _all(self, cut: int, split: str, view: int | None) -> Tensor:
        key = (cut, split, view)
        if key not in self._held:
            self._make_room(cut, len(self.images.rows[split]))
            self._held[key] = self._compute(cut, split, view)
        self._held.move_to_end(key)
        return self._held[key]

    def _compute(self, cut: int, split: str, view: int | None) -> Tensor:
        """Every activation of a split at `cut`, from the deepest activations that are held already, or from pixels."""
        start = max((k for k, s, v in self._held if (s, v) == (split, view) and k < cut), default=0)
        parts = []
        for positions in _chunks(len(self.images.rows[split])):
            if start:
                before = self._held[start, split, view][torch.from_numpy(positions)].to(self.machine.device)
            else:
                before = self._pixels(split, positions, view)
            # In the precision of the pass: what is computed on from here is then the same as from pixels.
            parts.append(self._run(start, cut, before).cpu())
        return torch.cat(parts)

    def _pixels(self, split: str, positions: np.ndarray, view: int | None) -> Tensor:
        rows = self.images.rows[split][positions]
        views = self.images.views
        with self.profile.section("views"):
            return self.machine.place(views.evaluation(rows) if view is None else views.training(rows, view))

    def _run(self, start: int, stop: int, x: Tensor) -> Tensor:
        self.tick()
        segment = self._segments.get((start, stop))
        if segment is None:
            segment = self._segments[start, stop] = self._staged.segment(start, stop)
        segment.eval()
        with self.profile.section("prefix passes"), torch.no_grad(), self.machine.autocast(frozen=True):
            return segment(x)

    def _make_room(self, cut: int, images: int) -> None:
        wanted = 4 * _size(self._staged.stages[cut - 1].output_shape) * images
        while self._held and wanted + sum(t.nbytes for t in self._held.values()) > self._limit:
            self._held.popitem(last=False)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))


def _chunks(images: int) -> Iterator[np.ndarray]:
    for start in range(0, images, CHUNK):
        yield np.arange(start, min(start + CHUNK, images))
