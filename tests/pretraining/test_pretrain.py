"""The pre-training script on networks of a few units: it resumes bit by bit, and leaves a source that Inarch takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import loop
import pretrain
import stream
from formulas import draw, source_classes
from inarch.network.source import load_source
from loop import Place, Training, train
from recipe import Recipe, read_json
from stream import MadeBatches, training_batches, varied

CPU = torch.device("cpu")
TINY = Recipe(
    steps=6, channels=(8, 8, 8, 8), size=32, batch_size=16, block=2, passes=2, precision="fp32", warm_up=1
)  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of validation images, and two points of the curve."""
    monkeypatch.setattr(loop, "VALIDATION_IMAGES", 16)
    monkeypatch.setattr(loop, "POINTS", 2)
    monkeypatch.setattr(loop, "LEAST_APART", 1)


def made(folder: Path, recipe: Recipe = TINY, workers: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    assert train(folder, recipe, Place(CPU, workers))
    return folder


def test_a_run_that_was_stopped_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole")
    parts = tmp_path / "parts"
    parts.mkdir()
    assert not train(parts, TINY, Place(CPU, 0, stop_after=2))
    assert not train(parts, TINY, Place(CPU, 0, stop_after=5))
    made(parts, workers=1)
    for name in (loop.WEIGHTS, loop.CARD, loop.CLASSES):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    records = [read_json(folder / loop.RECORD) for folder in (whole, parts)]
    assert records[0]["curve"] == records[1]["curve"]
    assert [point["step"] for point in records[0]["curve"]] == [3, 6]


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    first, second = made(tmp_path / "0"), made(tmp_path / "1", replace(TINY, seed=1))
    assert (first / loop.WEIGHTS).read_bytes() != (second / loop.WEIGHTS).read_bytes()


def test_inarch_loads_what_a_run_leaves(tmp_path: Path) -> None:
    source = load_source(str(made(tmp_path / "run") / loop.CARD))
    assert source.classes == tuple(formula.name for formula in source_classes())
    assert source.name == "inarch:embedded"
    assert source.classification_layer == "fc"
    assert source.input.height == 32


def test_the_rate_rises_and_falls_to_nothing() -> None:
    training = Training(replace(TINY, steps=100, warm_up=10), CPU)
    rates = []
    for step in range(100):
        training.schedule.step_update(step)
        rates.append(training.optimiser.param_groups[0]["lr"])
    assert rates[0] == 0
    assert max(rates) == pytest.approx(TINY.rate, rel=0.03)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[-1] < 0.01 * TINY.rate


def test_training_lowers_the_loss() -> None:
    training = Training(replace(TINY, steps=40, rate=0.05), CPU)
    batch = MadeBatches(32, 16, 1, 0)[0]
    losses = [training.step(step, batch) for step in range(40)]
    assert losses[-1] < 0.6 * losses[1]


def test_every_class_comes_up_once_before_any_comes_up_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(source_classes())
    monkeypatch.setattr(stream, "draw", lambda *_: np.zeros((32, 32, 3), dtype=np.uint8))
    batches = MadeBatches(32, 64, 1 + 2 * count // 64, 3)
    labels = torch.cat([batches[i][1] for i in range(len(batches))])
    assert sorted(labels[:count].tolist()) == list(range(count))
    assert sorted(labels[count : 2 * count].tolist()) == list(range(count))
    assert labels[:count].tolist() != labels[count : 2 * count].tolist()


def test_batches_hold_the_images_of_their_labels() -> None:
    count = len(source_classes())
    images, labels = MadeBatches(32, 16, 100, 3, first_image=7)[count // 16 + 1]
    place = int(labels[2])
    assert torch.equal(images[2], torch.from_numpy(draw(place, 7 + 1, 32).copy()).permute(2, 0, 1))


@pytest.mark.parametrize("first", [0, 1, 3, 5])
def test_a_stream_that_begins_later_goes_on_as_the_whole_one(first: int) -> None:
    whole, later = list(training_batches(TINY, 0, 0)), list(training_batches(TINY, first, 0))
    assert len(whole) == TINY.steps
    assert len(later) == TINY.steps - first
    for one, other in zip(whole[first:], later, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_later_passes_show_the_same_images_varied() -> None:
    seen = list(training_batches(replace(TINY, steps=4), 0, 0))
    labels = [sorted(torch.cat([seen[a][1], seen[a + 1][1]]).tolist()) for a in (0, 2)]
    assert labels[0] == labels[1]
    first, second = (torch.cat([seen[a][0], seen[a + 1][0]]).float().mean() for a in (0, 2))
    assert not torch.equal(first, second)
    assert abs(first - second) < 20


def test_variation_moves_each_image_in_its_own_way() -> None:
    images = torch.from_numpy(draw(50, 0, 32).copy()).permute(2, 0, 1).repeat(4, 1, 1, 1)
    moved: Tensor = varied(images, 0, 1)
    assert moved.dtype == torch.uint8
    assert not torch.equal(moved[0], moved[1])
    assert torch.equal(moved, varied(images, 0, 1))
    assert not torch.equal(moved, varied(images, 0, 2))


def test_the_default_network_fits_into_four_megabytes(tmp_path: Path) -> None:
    training = Training(Recipe(steps=1), CPU)
    loop.export(tmp_path, training)
    assert (tmp_path / loop.WEIGHTS).stat().st_size <= 4_000_000
    assert isinstance(training.network, nn.Module)


# The command


def command(folder: Path, *more: str) -> list[str]:
    return ["--out", str(folder), "--workers", "0", "--device", "cpu", "--size", "32", "--batch-size", "8", *more]


def test_the_command_trains_and_installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TIMED", 2)
    monkeypatch.setattr(loop, "WARMING", 1)
    pretrain.main(command(tmp_path / "run", "--hours", "0.00001"))
    recipe = Recipe.from_json(read_json(tmp_path / "run" / pretrain.RECIPE))
    assert (recipe.size, recipe.batch_size) == (32, 8)
    pretrain.install(tmp_path / "run", tmp_path / "package", tmp_path)
    assert {file.name for file in (tmp_path / "package").iterdir()} == {loop.WEIGHTS, loop.CLASSES, loop.CARD}
    written = json.loads((tmp_path / loop.RECORD).read_text())
    assert written["recipe"] == recipe.to_json()
    assert written["cost"]["seconds"] >= 0


def test_a_run_of_another_recipe_is_refused(tmp_path: Path) -> None:
    pretrain.main(command(tmp_path / "run", "--steps", "1"))
    with pytest.raises(SystemExit, match="another recipe"):
        pretrain.main(command(tmp_path / "run", "--steps", "2"))


def test_nothing_unfinished_is_installed(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no finished run"):
        pretrain.install(tmp_path, tmp_path / "package", tmp_path)


def test_a_first_call_needs_a_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pretrain.main(command(tmp_path / "run"))
    assert "--hours or --steps" in capsys.readouterr().err
