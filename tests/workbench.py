"""A workbench with the toy network and toy images, for tests of training, search and store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import DEEPER, NETWORK, SIDE, toy_network, write_images

from inarch.data import PixelSize, Views, open_dataset
from inarch.features.machine import Machine
from inarch.features.plan import Plan
from inarch.features.store import Images, Keeping, PrefixStore
from inarch.features.what_to_store import Demand, cuts_to_store
from inarch.launch.here import Workbench
from inarch.launch.plan import candidates, measured_plan
from inarch.methods import method_class
from inarch.network import head2toe
from inarch.network.card import InputSpec
from inarch.network.grafts import Configuration, graft_class
from inarch.network.stages import stage_network
from inarch.results.folder import RunFolder
from inarch.training.trial import TrainingSettings, Trial

SETTINGS = TrainingSettings(epochs=2, batch_size=8, views=4, classifier_start=1.0)
LAYER = "10"
DEFAULT = Plan()


@pytest.fixture(autouse=True)
def quick_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    """For modules that import it: Head2Toe chooses its features in few steps."""
    monkeypatch.setattr(head2toe, "STEPS", 30)


def small(graft: str, harmonise: str = "l2") -> Configuration:
    """A configuration of a graft with few hidden units, and with as many hidden layers as it has at least."""
    return Configuration(graft, harmonise, (8, 6)[: graft_class(graft).fewest])


def needs_deeper(graft: str) -> bool:
    """Whether the graft reads more stages than the toy network has."""
    return graft_class(graft).taps(3)[:1] == (0,)


def deepest(graft: str) -> int:
    """The cut of the toy network, or of the deeper one where the graft needs it, at which nothing old trains."""
    return 2 + needs_deeper(graft) + graft_class(graft).keeps_layer


def method_trial(method: str, graft: str, cut: int, epochs: int) -> Trial:
    """A trial of a method at a cut, or at the one cut where it can stand."""
    cut = deepest(graft) if method_class(method).deepest_only else cut
    old = 0.002 if cut < deepest(graft) else 0.0
    return Trial(small(graft), cut, method, old, 0.01, 1, replace(SETTINGS, epochs=epochs))


@dataclass(frozen=True)
class Real:
    """A network and a folder of images in place of the toy ones. layer: its classification layer."""

    network: nn.Module
    layer: str
    spec: InputSpec
    images: Path


@contextmanager
def workbench(
    folder: Path,
    *,
    real: Real | None = None,
    epochs: int = 2,
    limit: int = 1 << 30,
    keeping: Keeping | None = None,
    a_class: int = 12,
    plan: Plan = DEFAULT,
    device: str = "cpu",
    measured: bool = False,
    deeper: bool = False,
) -> Iterator[Workbench]:
    """Toy network, toy images and a run folder in `folder`; or what is `real`.

    limit: of the store, in bytes, from which follows what it keeps, in memory; `keeping` says it outright instead.
    measured: the plan was measured before. deeper: a network with four stages instead of three.
    """
    network = real.network if real else toy_network(DEEPER if deeper else NETWORK).eval()
    spec = real.spec if real else InputSpec(3, SIDE, SIDE, (0.5,) * 3, (0.5,) * 3)
    staged = stage_network(network, real.layer if real else "12" if deeper else LAYER, spec.example())
    if measured:
        measured_plan(network, staged, spec.example(8), "cpu", candidates("cpu"))
    images = real.images if real else folder / "images"
    if not images.exists():
        write_images(images, a_class=a_class)
    dataset = open_dataset(images, keep=PixelSize(spec.height, spec.width))
    assert dataset.pixels is not None
    splits = ("train", "validation", "test")
    kept = Images(
        Views(dataset.pixels, dataset.row_digests(), spec),
        {split: dataset.rows(split) for split in splits},
        {split: dataset.labels(split) for split in splits},
        len(dataset.classes),
        {split: tuple(item.digest for item in dataset.split(split)) for split in splits},
        {"input": spec.to_card()},
    )
    training, evaluated = len(kept.rows["train"]), len(kept.rows["validation"]) + len(kept.rows["test"])
    demand = Demand(training, evaluated, views=4 * epochs, epochs=epochs, item=2)
    keeping = keeping or Keeping(cuts_to_store(staged.stages, demand, limit))
    store = PrefixStore(staged, kept, Machine(device, plan), keeping)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with RunFolder(folder / "run") as run:
            yield Workbench(staged, network, store, run)
    finally:
        store.close()
        torch.set_num_threads(threads)
        dataset.pixels.close()


class Doubled:
    """A store whose activations are float64."""

    def __init__(self, store: PrefixStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, *arguments: Any) -> torch.Tensor:
        return self._store.read(*arguments).double()

    def batches(self, *arguments: Any) -> Any:
        return (stored.double() for stored in self._store.batches(*arguments))

    def once(self, *arguments: Any) -> Any:
        return (stored.double() for stored in self._store.once(*arguments))
