"""Source networks: what can be given, what comes along, and what is refused with a remedy."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from saved import save
from torch import nn

from inarch.errors import InarchError, SourceError, UsageError
from inarch.network.card import Card, InputSpec
from inarch.network.class_names import imagenet
from inarch.network.source import SourceOptions, load_source

RANDOM = SourceOptions(pretrained=False)
INPUT = {"size": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
PYTHON = """
from torch import nn

def tiny(classes=4, channels=3):
    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, classes)))

def convolutional():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def headless():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def dense():
    return nn.Conv2d(3, 4, 3)

def raises():
    return 1 / 0

def nothing():
    return None
"""


def quiet(_message: str) -> None:
    pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PYTHON)
    return tmp_path


def write_card(folder: Path, name: str = "tiny.json", **changes: Any) -> str:
    card = {"network": "python:mine.py:tiny", "arguments": {}, "input": INPUT, "classes": ["a", "b", "c", "d"]}
    (folder / name).write_text(json.dumps({k: v for k, v in (card | changes).items() if v is not None}))
    return str(folder / name)


def test_imagenet_has_a_thousand_different_names_in_the_usual_order() -> None:
    names = imagenet()
    assert len(names) == len(set(names)) == 1000
    assert names[:2] == ("tench", "goldfish")
    assert (names[134], names[517]) == ("crane (bird)", "crane (machine)")
    assert (names[638], names[639]) == ("maillot", "maillot (tank suit)")


def test_timm_brings_input_classes_and_classification_layer() -> None:
    source = load_source("timm:mobilenetv3_small_100", RANDOM)
    assert source.name == "timm:mobilenetv3_small_100"
    assert source.classification_layer == "classifier"
    assert source.classes == imagenet()
    assert source.input == InputSpec(
        3, 224, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", pytest.approx(0.875)
    )
    assert not source.network.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in source.network.parameters())


def test_torchvision_brings_input_classes_and_classification_layer() -> None:
    source = load_source("torchvision:squeezenet1_1", RANDOM)
    assert source.classification_layer == "classifier.1"
    assert source.classes == imagenet()
    assert (source.input.height, source.input.interpolation, source.input.crop_pct) == (224, "bilinear", 0.875)


def test_a_classification_layer_inside_a_submodule_is_found() -> None:
    assert load_source("timm:convnext_atto", RANDOM).classification_layer == "head.fc"


def test_a_card_brings_everything(folder: Path) -> None:
    network = nn.Module()
    exec(PYTHON, namespace := {})
    network = namespace["tiny"]()
    save(network, folder / "w.safetensors")
    said: list[str] = []
    source = load_source(write_card(folder, weights="w.safetensors", licence="mine"), announce=said.append)
    assert source.name == "tiny"
    assert source.classes == ("a", "b", "c", "d")
    assert source.classification_layer == "3.2"
    assert source.input == InputSpec(3, 32, 32, (0.5,) * 3, (0.25,) * 3)
    assert source.card.extra == {"licence": "mine"}
    digest = hashlib.sha256(PYTHON.encode()).hexdigest()
    assert said == [f"Running mine.py (sha256 {digest}), because 'tiny' is built by it."]
    assert source.card.python is not None
    assert (source.card.python.content, source.card.python.digest) == (PYTHON, digest)


def test_a_source_can_be_had_again_from_its_card(folder: Path) -> None:
    source = load_source(write_card(folder), announce=quiet)
    save(source.network, folder / "w.safetensors")
    written = source.card.to_json() | {"weights": "w.safetensors"}
    model = folder / "run" / "model"
    model.mkdir(parents=True)
    (model / "mine.py").write_text(source.card.python.content if source.card.python else "")
    (model / "card.json").write_text(json.dumps(written))
    (folder / "w.safetensors").rename(model / "w.safetensors")
    for place in (model, folder / "run", model / "card.json"):
        again = load_source(str(place), announce=quiet)
        assert (again.digest, again.classes, again.input) == (source.digest, source.classes, source.input)
    (model / "mine.py").write_text(PYTHON + "# changed")
    with pytest.raises(SourceError, match=r"'mine\.py' is not the one it was written for"):
        load_source(str(model), announce=quiet)


def test_options_go_before_the_card(folder: Path) -> None:
    options = SourceOptions(
        arguments={"classes": 2}, image_size=40, classes=("x", "y"), mean=(0.1, 0.2, 0.3), std=(1, 2, 3),
        interpolation="bicubic", crop_pct=1.0,
    )  # fmt: skip
    source = load_source(write_card(folder), options, quiet)
    assert source.classes == ("x", "y")
    assert source.input == InputSpec(3, 40, 40, (0.1, 0.2, 0.3), (1, 2, 3), "bicubic", 1.0)
    assert source.card.arguments == {"classes": 2}


@pytest.mark.parametrize("file", ["names.json", "names.txt"])
def test_class_names_can_come_from_a_file_beside_the_card(folder: Path, file: str) -> None:
    names = ["one", "two", "three", "four"]
    (folder / file).write_text(json.dumps(names) if file.endswith("json") else "\n".join(names))
    assert load_source(write_card(folder, classes=file), announce=quiet).classes == tuple(names)


def test_one_s_own_function_is_a_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    source = load_source("python:mine.py:convolutional", announce=quiet)
    assert source.name == "python:mine.py:convolutional"
    assert source.classification_layer == "1"
    assert source.classes == ("class 0", "class 1", "class 2", "class 3")
    assert (source.input.height, source.input.mean) == (224, (0.485, 0.456, 0.406))
    absolute = load_source(f"python:{folder / 'mine.py'}:tiny", announce=quiet)
    assert absolute.name == absolute.card.network == "python:mine.py:tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["mine.py"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("tinny", "has no function 'tinny'. Near names: tiny"),
        ("raises", "'raises' of 'mine.py' fails: ZeroDivisionError"),
        ("nothing", "returns NoneType, not a network"),
        ("headless", "has no classification layer with 4 outputs"),
        ("dense", r"does not return logits of shape \[images, classes\] but shape"),
    ],
)
def test_functions_that_are_no_source_are_refused(folder: Path, function: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load_source(f"python:{folder / 'mine.py'}:{function}", announce=quiet)


def test_files_that_are_no_source_are_refused(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"'.*other\.py' of .* cannot be read"):
        load_source(f"python:{folder / 'other.py'}:tiny", announce=quiet)
    (folder / "broken.py").write_text("1 / 0")
    with pytest.raises(SourceError, match=r"'broken\.py' fails: ZeroDivisionError"):
        load_source(f"python:{folder / 'broken.py'}:tiny", announce=quiet)
    with pytest.raises(UsageError, match=r"not of the form python:FILE\.py:FUNCTION"):
        load_source("python:mine.py", announce=quiet)
    with pytest.raises(SourceError, match="holds no card"):
        load_source(str(folder))
    with pytest.raises(SourceError, match="There is no card"):
        load_source(str(folder / "none.json"))


def test_a_source_that_cannot_even_be_looked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InarchError, match=r"cannot be read: .*too long|is not a source network"):
        load_source(str(tmp_path / ("x" * 300) / "run"))


@pytest.mark.parametrize("size", [(96, 96), [96], "96", 96.0, 0])
def test_an_image_size_that_is_no_number_of_pixels_is_refused(size: Any) -> None:
    with pytest.raises(UsageError, match=r"--image-size .*(96|0).* is not a number of pixels\..*side of the square"):
        load_source("timm:resnet18", SourceOptions(pretrained=False, image_size=size))


@pytest.mark.parametrize("text", ["resnet18", "keras:resnet18", "timm:", ":resnet18"])
def test_anything_else_lists_what_can_be_given(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"timm:NAME, torchvision:NAME, inarch:embedded, python:FILE\.py:FUNCTION, a card"
    ):
        load_source(text)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("timm:mobilenetv4_conv_smal", "timm:mobilenetv4_conv_small"),
        ("torchvision:rasnet18", "torchvision:resnet18"),
        ("timm:resnet18.a1_in1", "timm:resnet18.a1_in1k"),
    ],
)
def test_unknown_networks_suggest_near_names(text: str, near: str) -> None:
    with pytest.raises(SourceError, match=f"has no network .* Near names: .*{near}"):
        load_source(text)


def test_class_names_must_be_as_many_as_outputs() -> None:
    with pytest.raises(SourceError, match="has 1000 outputs but 2 class names"):
        load_source("torchvision:resnet18", SourceOptions(pretrained=False, classes=("a", "b")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": None}, "does not say which network"),
        ({"arguments": [1]}, "'arguments' is"),
        ({"arguments": {"colour": 1}}, "fails: TypeError"),
        ({"input": {"size": [3, 32]}}, "'input' cannot be read"),
        ({"input": INPUT | {"mean": [0.5]}}, r"'mean' has 1 values for 3 channel\(s\)"),
        ({"input": INPUT | {"std": [1, 1, 0]}}, "is not positive"),
        ({"input": {"size": [4, 32, 32], "mean": [0.5] * 4, "std": [1] * 4}}, "'size' has 4 channels"),
        ({"input": INPUT | {"interpolation": "magic"}}, "'interpolation' is 'magic'"),
        ({"input": INPUT | {"crop_pct": 2}}, "'crop_pct' 2.0"),
        ({"input": INPUT | {"size": [3, 2, 2]}}, "cannot process images of 2 x 2 pixels .* its module '0'"),
        ({"classes": ["a", "a", "b", "c"]}, "'a' stands twice"),
        ({"classes": "names.txt"}, r"'names\.txt' cannot be read"),
        ({"classes": [1, 2]}, "'classes' is not a list of names"),
        ({"classification_layer": "head"}, "has no module 'head'"),
        ({"classification_layer": "3.0"}, r"no classification layer with 4 outputs at '3\.0'"),
        ({"weights": "none.safetensors"}, r"'none\.safetensors' cannot be read"),
    ],
)
def test_wrong_cards_are_refused_and_say_why(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load_source(write_card(folder, **changes), announce=quiet)


def test_a_card_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(SourceError, match=r"The card 'card\.json' cannot be read"):
        load_source(str(tmp_path / "card.json"))


def test_reading_a_card_and_writing_it_gives_the_same(folder: Path) -> None:
    card = load_source(write_card(folder, licence="x"), announce=quiet).card
    (folder / "again.json").write_text(json.dumps(card.to_json()))
    again = load_source(str(folder / "again.json"), announce=quiet).card
    assert isinstance(again, Card)
    assert again.to_json() | {"weights_digest": ""} == card.to_json() | {"weights_digest": ""}


def test_a_python_file_in_a_subfolder_goes_by_its_name_alone(folder: Path) -> None:
    (folder / "code").mkdir()
    (folder / "mine.py").rename(folder / "code" / "mine.py")
    source = load_source(write_card(folder, network="python:code/mine.py:tiny"), announce=quiet)
    assert source.card.network == "python:mine.py:tiny"


def test_a_network_without_a_classification_layer_is_refused() -> None:
    options = SourceOptions(pretrained=False, arguments={"num_classes": 0}, image_size=32)
    with pytest.raises(SourceError, match="trained without a classification layer"):
        load_source("timm:mobilenetv3_small_100", options)
