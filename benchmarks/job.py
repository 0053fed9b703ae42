"""What one ordinary fine-tuning is, for every contestant of finetune.py: its images, its network, its test."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from inarch.network.source import Source
from ours import Wanted
from plain import WORKERS, Files, build


@dataclass(frozen=True)
class Job:
    """What to train, on what. rate: the learning rate of all layers."""

    images: Path
    source: str
    run: Path
    epochs: int
    rate: float
    batch_size: int
    seed: int
    image_size: int | None
    device: str
    colour_jitter: float = 0.0

    @cached_property
    def loaded(self) -> Source:
        """The source, loaded once."""
        return Wanted(self.images, self.source, image_size=self.image_size).load()

    def classes(self) -> list[str]:
        return sorted(path.name for path in (self.images / "train").iterdir())

    def files(self, split: str) -> list[tuple[Path, int]]:
        """Files of a split (`train`, `val`, `test`) with their class numbers."""
        numbers = {name: number for number, name in enumerate(self.classes())}
        return [(file, numbers[file.parent.name]) for file in sorted((self.images / split).glob("*/*"))]

    def network(self) -> nn.Module:
        """The source network with a new classifier in place of its classification layer."""
        return build(self.loaded, "replace", len(self.classes()))[0]


@dataclass
class Finished:
    """network: trained, in no particular mode. stamps: when each epoch ended, in monotonic seconds."""

    network: nn.Module
    stamps: list[float]
    extra: dict[str, Any] = field(default_factory=dict)


def evaluation(job: Job) -> v2.Compose:
    """How every contestant sees an image that it is tested on."""
    spec = job.loaded.input
    return v2.Compose(
        [
            v2.Resize(round(spec.height / spec.crop_pct)), v2.CenterCrop((spec.height, spec.width)), v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(spec.mean), list(spec.std)),
        ]
    )  # fmt: skip


def test(network: nn.Module, job: Job) -> float:
    """Share of the test images that a network is right on; the same code for all."""
    files, labels = zip(*job.files("test"), strict=True)
    network.eval()
    right = 0
    with torch.no_grad():
        for pixels, truth in DataLoader(Files(list(files), list(labels), evaluation(job)), 64, num_workers=WORKERS):
            right += int((network(pixels.to(job.device)).argmax(dim=1).cpu() == truth).sum())
    return right / len(labels)
