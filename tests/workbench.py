"""A workbench with the toy network and toy images, for tests of training, search and store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from toy import SIDE, toy_network, write_images

from inarch.data import PixelSize, Views, open_dataset
from inarch.features.machine import Machine
from inarch.features.plan import Plan
from inarch.features.store import Images, PrefixStore
from inarch.launch.here import Workbench
from inarch.launch.plan import candidates, measured_plan
from inarch.network.card import InputSpec
from inarch.network.stages import stage_network
from inarch.results.folder import RunFolder
from inarch.training.trial import TrainingSettings

SETTINGS = TrainingSettings(epochs=2, batch_size=8)
LAYER = "10"
DEFAULT = Plan()


@contextmanager
def workbench(
    folder: Path, *, epochs: int = 2, limit: int = 1 << 30, plan: Plan = DEFAULT, measured: bool = False
) -> Iterator[Workbench]:
    """Toy network, toy images and a run folder in `folder`; `limit` is the store's, in bytes;
    `measured`: its plan was measured before."""
    network = toy_network().eval()
    spec = InputSpec(3, SIDE, SIDE, (0.5,) * 3, (0.5,) * 3)
    staged = stage_network(network, LAYER, spec.example())
    if measured:
        measured_plan(network, staged, spec.example(8), "cpu", candidates("cpu"))
    images = folder / "images"
    if not images.exists():
        write_images(images, a_class=12)
    dataset = open_dataset(images, keep=PixelSize(SIDE, SIDE))
    assert dataset.pixels is not None
    splits = ("train", "validation", "test")
    kept = Images(
        Views(dataset.pixels, dataset.row_digests(), spec),
        {split: dataset.rows(split) for split in splits},
        {split: dataset.labels(split) for split in splits},
        len(dataset.classes),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with RunFolder(folder / "run") as run:
            yield Workbench(
                staged, network, PrefixStore(staged, kept, Machine(plan=plan), epochs=epochs, limit=limit), run
            )
    finally:
        torch.set_num_threads(threads)
        dataset.pixels.close()
