"""`inarch rank` as its users call it: scores of toy networks, the order, what is said, and what goes wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from program import Ran, inarch, without_cost
from safetensors.torch import load_file, save_file
from toy import SIDE, toy_network, write_images, write_source

import inarch as package
from inarch.data import PixelSize, evaluation_batch, open_dataset
from inarch.errors import InarchError, UsageError
from inarch.network.card import InputSpec
from inarch.preparation import read_images
from inarch.ranking.scores import SCORES, Observed
from inarch.ranking.words import how_to_read


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images", a_class=16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source"))


def variant(source: Path, folder: Path, name: str, factor: float | None = None, **changes: Any) -> Path:
    """The toy source under another name: with changes in its card, all weights multiplied by a factor."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(source.parent / "toy.py", folder)
    weights = load_file(source.parent / "toy.safetensors")
    if factor is not None:
        weights = {k: v * factor if v.is_floating_point() else v for k, v in weights.items()}
    save_file(weights, folder / "toy.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(json.loads(source.read_text()) | changes))
    return folder / f"{name}.json"


@pytest.fixture(scope="module")
def blind(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source whose features say nothing: all of them are zero."""
    return variant(source, tmp_path_factory.mktemp("blind"), "blind", 0.0)


def ranking(*arguments: str | Path) -> dict[str, Any]:
    ran = inarch("rank", *arguments, "--json")
    assert ran.exit_code == 0, ran.said
    found: dict[str, Any] = json.loads(ran.out)
    return found


def fails(ran: Ran, code: int, *said: str) -> None:
    for part in said:
        assert part in ran.said
    assert "Traceback" not in ran.said
    assert ran.exit_code == code


def test_rank_prints_every_score_best_first_and_how_to_read_it(source: Path, blind: Path, images: Path) -> None:
    ran = inarch("rank", images, "--source", blind, "--source", source)
    assert ran.exit_code == 0, ran.said
    header, first, second, *_ = (line.split() for line in ran.out.splitlines())
    assert "LogME" in header
    assert "seconds" in header
    assert first[:2] == ["1", "toy"]
    assert second[:2] == ["2", "blind"]
    assert len(first) == len(second) == 2 + len(SCORES) + 2
    assert first[-2] == "12"
    for part in ("Best first by LogME", "higher is better", "All scores put toy first", "before any training"):
        assert part in ran.said


def test_scores_are_those_of_what_the_network_makes_of_the_training_images(source: Path, images: Path) -> None:
    dataset = open_dataset(images, keep=PixelSize(SIDE, SIDE))
    assert dataset.pixels is not None
    spec = InputSpec(3, SIDE, SIDE, (0.5,) * 3, (0.5,) * 3)
    pixels = evaluation_batch([dataset.pixels[item.row] for item in dataset.train], spec)
    network = toy_network().eval()
    with torch.no_grad():
        features, probabilities = network[:-1](pixels), network(pixels).softmax(dim=1)
    labels = np.array([item.label for item in dataset.train])
    seen = Observed(features.numpy(), probabilities.numpy(), labels)
    found = ranking(images, "--source", source)
    assert found["recommended"] == "logme"
    assert found["data"] == {"digest": dataset.digest, "training_images": len(labels)}
    (row,) = found["ranked"]
    assert row["scores"] == pytest.approx({score.name: score.of(seen) for score in SCORES}, rel=1e-3)
    assert (row["name"], row["features"], row["source_classes"], row["image_size"]) == ("toy", 12, 6, [SIDE, SIDE])


def test_two_calls_rank_alike_but_for_their_cost_and_so_does_python(source: Path, blind: Path, images: Path) -> None:
    sources = ("--source", source, "--source", blind, "--source", source)
    first, second = ranking(images, *sources), ranking(images, *sources)
    assert without_cost(first) == without_cost(second)
    from_python = package.rank(images, sources=[source, blind], device="cpu", seed=0, max_pixels=10**6)
    assert without_cost(from_python) == without_cost(first)
    assert [row["name"] for row in first["ranked"]] == ["toy", "blind"]


def test_rank_looks_at_training_images_alone(source: Path, images: Path, tmp_path: Path) -> None:
    for split, numbers in (("train", range(8)), ("val", range(8, 12)), ("test", range(12, 16))):
        for name in ("red", "green", "blue"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in numbers:
                shutil.copy(images / name / f"{i}.png", tmp_path / split / name)
    before = ranking(tmp_path, "--source", source)
    for split in ("val", "test"):
        (tmp_path / split / "red").rename(tmp_path / split / "was-red")
        (tmp_path / split / "blue").rename(tmp_path / split / "red")
        (tmp_path / split / "was-red").rename(tmp_path / split / "blue")
    after = ranking(tmp_path, "--source", source)
    assert after["data"]["digest"] != before["data"]["digest"]
    assert after["ranked"] == before["ranked"]


def test_images_are_read_once_for_each_size_in_a_row_and_warnings_come_once(
    source: Path, blind: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images" / "red" / "broken.png").write_bytes(b"nothing")
    sizes = []

    def counted(data: Path, size: PixelSize, *rest: Any) -> Any:
        sizes.append((size.height, size.width))
        return read_images(data, size, *rest)

    monkeypatch.setattr("inarch.ranking.sources.read_images", counted)
    spec = json.loads(source.read_text())["input"] | {"size": [3, 12, 12]}
    small = variant(source, tmp_path / "small", "small", input=spec)
    ran = inarch("rank", tmp_path / "images", "--source", source, "--source", blind, "--source", small)
    assert ran.exit_code == 0, ran.said
    assert sizes == [(SIDE, SIDE), (12, 12)]
    assert ran.said.count("1 file was set aside") == 1
    sizes.clear()
    arguments = ("--source", source, "--source", small, "--image-size", "14")
    found = ranking(tmp_path / "images", *arguments)
    assert sizes == [(14, 14)]
    assert [row["image_size"] for row in found["ranked"]] == [[14, 14]] * 2


def test_sources_that_fail_are_named_with_their_reason_and_the_others_go_on(
    source: Path, images: Path, tmp_path: Path
) -> None:
    exploding = variant(source, tmp_path / "exploding", "exploding", 1e20)
    shallow = tmp_path / "shallow.py"
    shallow.write_text(
        "from torch import nn\n"
        "def net():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))\n"
    )
    bad = ["timm:resnet81", "resnet18", str(exploding), f"python:{shallow}:net"]
    reasons = ["has no network 'resnet81'", "is not a source network", "not finite", "no layer with weights before"]
    given = [word for text in (*bad, source) for word in ("--source", text)]
    ran = inarch("rank", images, *given)
    assert ran.exit_code == 0, ran.said
    said = " ".join(ran.err.split())
    for text, reason in zip(bad, reasons, strict=True):
        assert f"{text} could not be ranked: " in said
        assert reason in said
    assert ran.out.splitlines()[1].split()[:2] == ["1", "toy"]
    assert [failed["source"] for failed in ranking(images, *given)["failed"]] == bad


def test_where_no_source_is_left_the_error_is_that_of_fit(images: Path) -> None:
    fails(inarch("rank", images, "--source", "resnet18"), 2, "'resnet18' is not a source network", "Give timm:NAME")
    fails(inarch("rank", images, "--source", "missing.json"), 1, "There is no card 'missing.json'.")
    both = ("--source", "missing.json", "--source", "resnet18")
    fails(
        inarch("rank", images, *both), 1, "None of the 2 sources can be ranked.", "missing.json: There is no card",
        "resnet18: 'resnet18' is not a source network",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "Missing option '--source'"),
        (("--source", "{source}", "--device", "abacus"), "--device abacus cannot be used"),
        (("--source", "{source}", "--seed", "-1"), "--seed -1 is too small"),
        (("--source", "{source}", "--max-pixels", "0"), "--max-pixels 0 is too small"),
        (("--source", "{source}", "--image-size", "0"), "--image-size"),
    ],
)
def test_mistakes_in_options(options: tuple[str, ...], said: str, source: Path, images: Path) -> None:
    fails(inarch("rank", images, *(word.format(source=source) for word in options)), 2, said)


def test_mistakes_from_python(source: Path, images: Path) -> None:
    with pytest.raises(UsageError, match="rank has no option 'epochs'"):
        package.rank(images, sources=[source], epochs=3)
    with pytest.raises(UsageError, match="Give a list of sources"):
        package.rank(images, sources=str(source))
    with pytest.raises(UsageError, match="No source network is named"):
        package.rank(images, sources=[])
    with pytest.raises(InarchError, match="There is no folder or manifest"):
        package.rank(images / "nowhere", sources=[source])


def test_sources_of_one_name_are_called_by_what_was_given(source: Path, images: Path, tmp_path: Path) -> None:
    other = variant(source, tmp_path / "other", "toy", 0.0)
    found = ranking(images, "--source", source, "--source", other)
    assert [row["name"] for row in found["ranked"]] == [str(source), str(other)]


def test_a_class_of_one_training_image_can_be_ranked(source: Path, images: Path, tmp_path: Path) -> None:
    for split, numbers in (("train", range(8)), ("val", (8,)), ("test", (9,))):
        for name in ("red", "green", "blue"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in numbers[:1] if name == "red" else numbers:
                shutil.copy(images / name / f"{i}.png", tmp_path / split / name)
    found = ranking(tmp_path, "--source", source)
    assert found["data"]["training_images"] == 17
    assert all(np.isfinite(value) for value in found["ranked"][0]["scores"].values())


def row(name: str, features: int = 5, **scores: float) -> dict[str, Any]:
    return {"name": name, "features": features, "scores": {score.name: 0.0 for score in SCORES} | scores}


def test_the_sentence_says_which_scores_put_which_source_first() -> None:
    said = how_to_read([row("a", logme=2, h_score=1, transrate=3), row("b", leep=1, regularised_h_score=2)], 60)
    assert "LogME, H-score, TransRate and NCE put a first; regularised H-score and LEEP put b first." in said
    said = how_to_read([row("a", logme=2), row("b", nce=1)], 60)
    assert "LogME, regularised H-score, H-score, TransRate and LEEP put a first; NCE puts b first." in said
    assert "first;" not in how_to_read([row("a")], 60)


@pytest.mark.parametrize(("images", "saturated"), [(6, True), (7, False)])
def test_the_sentence_warns_of_an_h_score_with_too_few_images(images: int, saturated: bool) -> None:
    said = how_to_read([row("a"), row("b", 3)], images)
    assert ("With 6 training images and as many features or more, the H-score of a is at its" in said) == saturated
