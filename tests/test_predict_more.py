"""What a prediction tells beside the class: source classes of the original network, unknown images, heat maps."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from program import ONE, inarch
from safetensors.torch import load_file, save_file
from torch import nn
from toy import SOURCE_CLASSES, toy_network, write_images, write_source

import inarch as api
from inarch.errors import RunFolderError, SourceError, UsageError
from inarch.features.plan import Plan
from inarch.model import Delivered, write_model
from inarch.network.adapted import AdaptedNetwork, stage
from inarch.network.grafts import Configuration, Widths
from inarch.network.original import ORIGINAL
from inarch.network.source import load_source
from inarch.predict import Model
from inarch.results.unknown import KNOWN, Known, p_values, read_known


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy source (`source/toy.json`) and toy images (`images`)."""
    folder = tmp_path_factory.mktemp("place")
    write_source(folder / "source")
    write_images(folder / "images", a_class=60)
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """A run folder; tests only read it."""
    ran = inarch("fit", place / "images", "--source", place / "source" / "toy.json", "--out", place / "run", *ONE)
    assert ran.exit_code == 0, ran.said
    return place / "run"


def adapt(source: Path, graft: str, cut: int, folder: Path) -> Path:
    """A model folder as a study leaves it: everything behind the cut is trained, which here means changed by noise."""
    loaded = load_source(str(source), announce=lambda text: None)
    before = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    staged = stage(loaded.network, loaded.classification_layer, loaded.input.example())
    widths = Widths(staged.stages[-2].output_shape[0], len(loaded.classes), 3)
    network = AdaptedNetwork(staged, Configuration(graft, "none"), widths, cut=cut, seed=1).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    classes = ("blue", "green", "red")
    known = Known(np.linspace(0, 1, 40))
    write_model(folder, loaded, Delivered(network, classes, (), Plan(), known, before))
    return folder


def test_a_model_that_was_adapted_from_weights_for_grey_images_is_loaded_again(tmp_path: Path) -> None:
    grey = torchvision.models.squeezenet1_1(num_classes=4)
    grey.features[0] = nn.Conv2d(1, 64, 3, 2)
    save_file(grey.state_dict(), tmp_path / "grey.safetensors")
    card = {"network": "torchvision:squeezenet1_1", "arguments": {"num_classes": 4}, "weights": "grey.safetensors"}
    (tmp_path / "grey.json").write_text(json.dumps(card | {"input": {"size": [1, 64, 64], "mean": [0.5], "std": [1]}}))
    folder = adapt(tmp_path / "grey.json", "joined", 3, tmp_path / "model")
    (image,) = write_images(tmp_path / "images", a_class=1, classes=("red",)).glob("*/*.png")
    (found,) = quiet(folder).predict([image], source_classes=True)
    assert found.error is None
    assert len(found.source_classes) == 4


def quiet(folder: Path) -> Model:
    return api.load(folder, announce=lambda text: None)


def source_probabilities(file: Path) -> np.ndarray:
    """What the toy source makes of an image, by PyTorch alone: the toy's images are cropped to the centre."""
    pixels = np.asarray(Image.open(file).resize((16, 16), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    with torch.no_grad():
        logits = toy_network().eval()((torch.from_numpy(pixels).permute(2, 0, 1)[None] - 0.5) / 0.5)
    return logits.softmax(dim=1)[0].numpy()


# The toy's stages: modules 0 and 1, modules 4 and 5, and the classification layer 10.
@pytest.mark.parametrize(
    ("graft", "cut", "kept"),
    [
        ("replace", 0, "0 1 4 5 10"), ("replace", 2, "10"), ("retain", 0, "0 1 4 5 10"), ("retain", 1, "4 5 10"),
        ("joined", 2, "10"), ("retain", 3, ""),
    ],
)  # fmt: skip
def test_source_classes_are_those_of_the_untouched_network_whatever_was_trained(
    graft: str, cut: int, kept: str, place: Path, tmp_path: Path
) -> None:
    folder = adapt(place / "source" / "toy.json", graft, cut, tmp_path / "model")
    # Only what the model would lack.
    assert set(load_file(folder / ORIGINAL)) == {f"{m}.{name}" for m in kept.split() for name in ("weight", "bias")}
    model, image = quiet(folder), place / "images" / "red" / "3.png"
    (found,) = model.predict([image], source_classes=True)
    expected = source_probabilities(image)
    best = np.argsort(-expected)[:5]
    assert found.source_classes == tuple(f"source {i}" for i in best)
    assert found.source_probabilities == pytest.approx(expected[best], abs=1e-5)
    (without,) = model.predict([image])
    assert (without.source_classes, without.p_known, without.heatmap) == ((), None, None)
    assert (without.classes, without.probabilities) == (found.classes[:1], found.probabilities[:1])


def test_source_classes_of_a_network_that_was_adapted_twice_are_those_of_the_first_adaptation(
    place: Path, tmp_path: Path
) -> None:
    first = adapt(place / "source" / "toy.json", "joined", 1, tmp_path / "first")
    second = adapt(first, "retain", 1, tmp_path / "second")
    image = place / "images" / "green" / "5.png"
    (before,) = quiet(first).predict([image], top=3)
    (after,) = quiet(second).predict([image], source_classes=True)
    assert after.source_classes == before.classes
    assert after.source_probabilities == pytest.approx(before.probabilities, abs=1e-5)


def test_the_model_folder_of_a_study_knows_its_source(run: Path, place: Path) -> None:
    image = place / "images" / "blue" / "7.png"
    (found,) = quiet(run).predict([image], source_classes=True)
    assert found.source_probabilities == pytest.approx(np.sort(source_probabilities(image))[:0:-1], abs=1e-3)


def test_a_source_that_was_not_adapted_has_no_other_classes_and_no_validation_images(place: Path) -> None:
    model = quiet(place / "source" / "toy.json")
    with pytest.raises(SourceError, match="was not adapted"):
        model.predict([place / "images"], source_classes=True)
    with pytest.raises(SourceError, match=r"holds no known\.json"):
        model.predict([place / "images"], unknown=0.1)


def test_a_model_folder_of_an_older_version_says_how_it_is_mended(run: Path, place: Path, tmp_path: Path) -> None:
    model = shutil.copytree(run / "model", tmp_path / "model")
    for name, options in ((ORIGINAL, {"source_classes": True}), (KNOWN, {"unknown": 0.1})):
        (model / name).unlink()
        with pytest.raises(SourceError, match=r"same inarch fit command, which trains nothing again"):
            quiet(model).predict([place / "images"], **options)
    quiet(model).predict([place / "images"])


def test_the_same_fit_again_adds_what_an_older_version_did_not_write(run: Path, place: Path, tmp_path: Path) -> None:
    old = shutil.copytree(run, tmp_path / "run")
    before = {name: (old / "model" / name).read_bytes() for name in (ORIGINAL, KNOWN, "card.json")}
    for name in (ORIGINAL, KNOWN):
        (old / "model" / name).unlink()
    ran = inarch("fit", place / "images", "--source", place / "source" / "toy.json", "--out", old, *ONE)
    assert ran.exit_code == 0, ran.said
    assert json.loads((old / "results.json").read_text())["cost"]["trials_this_call"] == 0
    assert {name: (old / "model" / name).read_bytes() for name in before} == before


def test_original_weights_of_another_network_are_refused(run: Path, place: Path, tmp_path: Path) -> None:
    model = shutil.copytree(run / "model", tmp_path / "model")
    state = load_file(model / ORIGINAL)
    state["10.bias"] = state["10.bias"] + 1
    save_file(state, model / ORIGINAL)
    with pytest.raises(SourceError, match="not of the network that this model was adapted from"):
        quiet(model).predict([place / "images"], source_classes=True)


def test_p_values_are_those_of_the_validation_images_and_decide_what_is_unknown(
    run: Path, place: Path, tmp_path: Path
) -> None:
    model, known = quiet(run), read_known(run / "model", "toy")
    results = json.loads((run / "results.json").read_text())
    assert len(known.scores) == results["unknown"]["validation_images"] == results["dataset"]["counts"]["validation"]
    found = model.predict([place / "images"], top=3, unknown=0.25)
    probabilities = np.array([p.probabilities for p in found])
    scores = -(probabilities * np.log(probabilities)).sum(axis=1)
    p_known = np.array([p.p_known for p in found])
    assert p_known == pytest.approx(p_values(scores, known.scores), abs=2 / len(known.scores))
    assert [p.unknown for p in found] == [p.p_known is not None and p.p_known <= 0.25 for p in found]
    assert {p.answer for p in found if p.unknown} == {"unknown"}
    assert all(p.answer == p.classes[0] for p in found if not p.unknown)
    assert 0 < sum(p.unknown for p in found) < len(found)


def test_the_measured_share_is_what_predict_turns_away_of_the_test_images(run: Path, place: Path) -> None:
    from inarch.data import open_dataset

    dataset = open_dataset(place / "images")
    files = [place / "images" / item.path for item in dataset.test]
    found = quiet(run).predict(files, unknown=0.1)
    rates = json.loads((run / "results.json").read_text())["unknown"]["rates"]
    (measured,) = [rate["test"] for rate in rates if rate["promised"] == 0.1]
    assert measured["images"] == len(files)
    assert measured["unknown"] == pytest.approx(sum(p.unknown for p in found), abs=1)


def test_a_share_that_the_validation_images_cannot_show_is_refused_before_any_image_is_read(
    run: Path, tmp_path: Path
) -> None:
    model = quiet(run)
    for rate in (0.001, 0.0, 1.5):
        with pytest.raises(UsageError, match=f"--unknown {rate:g}"):
            model.predict([tmp_path / "none.png"], unknown=rate)


def test_classes_that_validation_lacks_are_announced(run: Path, place: Path, tmp_path: Path) -> None:
    model = shutil.copytree(run / "model", tmp_path / "model")
    value = json.loads((model / KNOWN).read_text())
    (model / KNOWN).write_text(json.dumps(value | {"classes_without_validation": ["red"]}))
    said: list[str] = []
    api.load(model, announce=said.append).predict([place / "images" / "red"], unknown=0.2)
    assert said[-1] == "Nothing is promised for images of 'red': validation had no image of it."
    (model / KNOWN).write_text("{}")
    with pytest.raises(RunFolderError, match="format is missing"):
        quiet(model).predict([place / "images"], unknown=0.2)


def test_the_command_line_writes_everything_that_was_asked_for(run: Path, place: Path, tmp_path: Path) -> None:
    images = shutil.copytree(place / "images" / "red", tmp_path / "images")
    (images / "0.png").write_bytes(b"nothing")
    asked: tuple[Any, ...] = ("--top", "2", "--source-classes", "--unknown", "0.2", "--heatmaps", tmp_path / "maps")
    ran = inarch("predict", run, images, *asked, "--out", tmp_path / "found.csv")
    assert ran.exit_code == 0, ran.said
    with (tmp_path / "found.csv").open(newline="") as stream:
        header, bad, *good = list(csv.reader(stream))
    of_source = [f"source_{what}_{rank}" for rank in range(1, 6) for what in ("class", "probability")]
    assert header == [
        "path", "answer", "p_known", "class_1", "probability_1", "class_2", "probability_2", *of_source, "heatmap",
        "error",
    ]  # fmt: skip
    assert bad == [str(images / "0.png"), *[""] * 17, "not an image that Pillow reads"]
    assert len(good) == 59
    for row in good:
        assert (row[1] == "unknown") == (float(row[2]) <= 0.2)
        assert row[1] in ("unknown", row[3])
        assert Path(row[-2]).is_file()
        assert row[-1] == ""
    assert f"Unknown: {sum(row[1] == 'unknown' for row in good)} of 59." in ran.said
    assert len(list((tmp_path / "maps").iterdir())) == 59


def test_the_header_does_not_depend_on_what_can_be_read(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    ran = inarch("predict", run, tmp_path / "bad.png", "--source-classes")
    assert ran.exit_code == 1
    assert ran.out.splitlines()[0].count("source_class_") == min(5, SOURCE_CLASSES)


def test_a_share_that_is_none_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    ran = inarch("predict", tmp_path / "no model", tmp_path, "--unknown", "2")
    assert ran.exit_code == 2
    assert "--unknown 2 is no share of images. Give one between 0 and 1" in ran.said
