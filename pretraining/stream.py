"""Batches of images made on the fly by worker processes. Batch `n` is always the same, whoever makes it and when.

So a run that goes on needs no state of a generator: the number of its next step says everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from formulas import draw, source_classes
from recipe import MEAN, STD, Recipe

# Validation images have numbers that training never comes to.
VALIDATION = 2**40
# Some batches wait ready for each worker, so that a slow one holds nobody up.
AHEAD = 6

Batch = tuple[Tensor, Tensor]
"""Images [count, 3, size, size] of bytes, and the numbers of their classes [count]."""


@final
class MadeBatches(Dataset[Batch]):
    """Batches in which every class comes up as often as every other, shuffled anew each time round."""

    def __init__(self, size: int, batch_size: int, batches: int, seed: int, first_image: int = 0) -> None:
        self._size, self._batch_size, self._batches = size, batch_size, batches
        self._seed, self._first_image = seed, first_image

    def __len__(self) -> int:
        return self._batches

    def __getitem__(self, batch: int) -> Batch:
        classes = len(source_classes())
        places = range(batch * self._batch_size, (batch + 1) * self._batch_size)
        orders = {place // classes: self._order(place // classes) for place in (places[0], places[-1])}
        for number in range(places[0] // classes, places[-1] // classes):  # small catalogues go round several times
            orders.setdefault(number, self._order(number))
        labels = [int(orders[place // classes][place % classes]) for place in places]
        images = np.stack(
            [draw(label, self._first_image + place // classes, self._size)
             for label, place in zip(labels, places, strict=True)]
        )  # fmt: skip
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)

    def _order(self, number: int) -> np.ndarray:
        return np.random.default_rng([self._seed, number]).permutation(len(source_classes()))


def training_batches(recipe: Recipe, first_step: int, workers: int) -> Iterator[Batch]:
    """The batches of the steps from `first_step` to the last, as the network sees them but for their scaling."""
    per_block = recipe.block * recipe.passes
    blocks = -(-recipe.steps // per_block)
    block = first_step // per_block
    made = MadeBatches(recipe.size, recipe.batch_size, blocks * recipe.block, recipe.seed)
    loader = DataLoader(
        made, batch_size=None, sampler=range(block * recipe.block, blocks * recipe.block), num_workers=workers,
        prefetch_factor=max(AHEAD, 2 * recipe.block // workers) if workers else None, worker_init_fn=_be_quiet,
    )  # fmt: skip
    coming = iter(loader)
    step = block * per_block
    while step < recipe.steps:
        parts = [next(coming) for _ in range(recipe.block)]
        images, labels = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
        for turn in range(recipe.passes):
            generator = torch.Generator().manual_seed(_number(recipe.seed, step))
            order = torch.randperm(len(labels), generator=generator)
            for chosen in order.split(recipe.batch_size):
                if first_step <= step < recipe.steps:
                    yield (images[chosen] if turn == 0 else varied(images[chosen], recipe.seed, step)), labels[chosen]
                step += 1


def _number(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step) % 2**62


def _be_quiet(worker: int) -> None:
    """Workers make way for the training, which waits for them only where they are too few."""
    os.nice(5)


def varied(images: Tensor, seed: int, step: int) -> Tensor:
    """Zoomed by up to a quarter, shifted by up to a tenth, and relit, each image in its own way: bytes to bytes."""
    generator = torch.Generator().manual_seed(_number(seed, step) + 1)
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    zoom, shift = torch.exp(uniform(-0.22, 0.22, count, 1, 1)), uniform(-0.2, 0.2, count, 2, 1)
    affine = torch.cat([torch.eye(2) * zoom, shift], dim=2)
    places = F.affine_grid(affine, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), places, padding_mode="reflection", align_corners=False)
    relit = moved * uniform(0.75, 1.25, count, 3, 1, 1) + uniform(-25, 25, count, 1, 1, 1)
    return relit.clamp(0, 255).to(torch.uint8)


def scaled(images: Tensor, device: torch.device) -> Tensor:
    """Bytes to what the network sees, on its device, channels last."""
    found = images.to(device, non_blocking=True).float() / 255
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD))
    return ((found - mean) / std).contiguous(memory_format=torch.channels_last)


def validation_batches(recipe: Recipe, count: int, workers: int) -> list[Batch]:
    """The same images whatever the seed, as many of each class as of any other; rounded up to whole batches."""
    made = MadeBatches(recipe.size, recipe.batch_size, -(-count // recipe.batch_size), 0, VALIDATION)
    return list(DataLoader(made, batch_size=None, num_workers=workers, worker_init_fn=_be_quiet if workers else None))
