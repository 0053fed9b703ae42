"""A segment's name changes with everything that its numbers depend on, and with nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from workbench import workbench

from inarch.data import Views
from inarch.features import addresses
from inarch.features.addresses import Addresses
from inarch.features.images import Images
from inarch.features.machine import Machine
from inarch.features.plan import Plan
from inarch.launch.here import Workbench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    with workbench(tmp_path) as made:
        yield made


def stages(bench: Workbench) -> list[nn.Module]:
    return [copy.deepcopy(bench.staged.segment(k, k + 1)) for k in range(3)]


MACHINE = Machine()


def name(
    bench: Workbench,
    *,
    chain: list[nn.Module] | None = None,
    images: Images | None = None,
    machine: Machine = MACHINE,
    source: dict[str, Any] | None = None,
    key: tuple[int, str, int | None, str | None] = (2, "train", 1, "bf16"),
    chunk: int = 64,
) -> str:
    of = Addresses(chain or stages(bench), images or bench.store.images, machine, source or {}, chunk)
    return of.of_segment(*key)


def changed(bench: Workbench, stage: int, change: Callable[[nn.Module], None]) -> list[nn.Module]:
    chain = stages(bench)
    with torch.no_grad():
        change(chain[stage])
    return chain


def first(stage: nn.Module, kind: type[nn.Module]) -> Any:
    return next(module for module in stage.modules() if isinstance(module, kind))


def test_equal_ingredients_give_equal_names(bench: Workbench) -> None:
    assert name(bench) == name(bench)


def test_the_memory_format_of_the_weights_makes_no_difference(bench: Workbench) -> None:
    chain = [stage.to(memory_format=torch.channels_last) for stage in stages(bench)]  # type: ignore[call-overload]
    assert name(bench, chain=chain) == name(bench)


def test_what_lies_behind_the_cut_makes_no_difference(bench: Workbench) -> None:
    chain = changed(bench, 2, lambda stage: first(stage, nn.Linear).weight.add_(1))
    assert name(bench, chain=chain) == name(bench)
    assert name(bench, chain=chain, key=(3, "train", 1, "bf16")) != name(bench, key=(3, "train", 1, "bf16"))


@pytest.mark.parametrize(
    "change",
    [
        lambda stage: first(stage, nn.Conv2d).weight[0, 0, 0, 0].add_(1e-6),
        lambda stage: first(stage, nn.BatchNorm2d).running_var.add_(1e-6),
        lambda stage: setattr(first(stage, nn.BatchNorm2d), "eps", 1e-3),
        lambda stage: setattr(first(stage, nn.Conv2d), "padding", (0, 0)),
    ],
    ids=["weight", "buffer", "setting of a normalisation", "setting of a convolution"],
)
@pytest.mark.parametrize("stage", [0, 1])
def test_weights_buffers_and_settings_of_the_prefix_count(
    bench: Workbench, stage: int, change: Callable[[nn.Module], None]
) -> None:
    assert name(bench, chain=changed(bench, stage, change)) != name(bench)


def test_cut_split_view_precision_chunk_and_the_file_of_the_source_count(bench: Workbench) -> None:
    names = [
        name(bench),
        *(name(bench, key=(k, "train", 1, "bf16")) for k in (1, 3)),
        name(bench, key=(2, "validation", 1, "bf16")),
        name(bench, key=(2, "train", 2, "bf16")),
        name(bench, key=(2, "train", None, "bf16")),
        name(bench, key=(2, "train", 1, "fp32")),
        name(bench, key=(2, "train", 1, None)),
        name(bench, chunk=32),
        name(bench, source={"python": "0123"}),
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "machine",
    [
        replace(MACHINE, threads=2),
        replace(MACHINE, plan=Plan(frozen="bf16")),
        replace(MACHINE, plan=Plan(memory_format="contiguous")),
    ],
    ids=["threads", "precision", "memory format"],
)
def test_the_machine_counts(bench: Workbench, machine: Machine) -> None:
    assert name(bench, machine=machine) != name(bench)


def test_the_precision_of_what_trains_makes_no_difference(bench: Workbench) -> None:
    assert name(bench, machine=replace(MACHINE, plan=Plan(trained="bf16"))) == name(bench)


def test_versions_of_libraries_count(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = name(bench)
    monkeypatch.setattr(addresses, "version", lambda library: "2.99")
    assert name(bench) != before


def test_the_images_their_order_and_how_they_become_views_count(bench: Workbench) -> None:
    images = bench.store.images
    digests = images.digests["train"]
    others = [
        replace(images, digests={**images.digests, "train": digests[:-1]}),
        replace(images, digests={**images.digests, "train": digests[::-1]}),
        replace(images, recipe={"input": {"mean": 1}}),
        # Even where the recipe says nothing of it, other pixels are seen.
        replace(images, views=Other(images.views)),  # type: ignore[arg-type]
    ]
    names = [name(bench), *(name(bench, images=other) for other in others)]
    assert len(set(names)) == len(names)


class Other:
    """Views that are made in another way."""

    def __init__(self, views: Views) -> None:
        self._views = views

    def training(self, rows: np.ndarray, view: int, device: str = "cpu") -> torch.Tensor:
        return self._views.training(rows, view) + 1e-3

    def evaluation(self, rows: np.ndarray, device: str = "cpu") -> torch.Tensor:
        return self._views.evaluation(rows)
