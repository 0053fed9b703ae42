"""The command that repeats a study says what differs from the defaults, and gives no folder of the machine away."""

from __future__ import annotations

from pathlib import Path

import pytest

from inarch.command import command
from inarch.features.place import bytes_of
from inarch.network.source import SourceOptions
from inarch.options import StudyOptions
from inarch.texts import seconds


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("timm:resnet18", "timm:resnet18"),
        ("torchvision:alexnet", "torchvision:alexnet"),
        ("python:/home/me/nets.py:build", "python:nets.py:build"),
        ("/home/me/weights/net.json", "net.json"),
    ],
)
def test_a_source_is_named_without_its_folder(source: str, shown: str) -> None:
    words = command(Path("/home/me/fruit"), source, StudyOptions(), SourceOptions())
    assert words == ["inarch", "fit", "fruit", "--source", shown, "--out", "again"]


def test_every_option_that_differs_from_its_default_is_named_as_on_the_command_line() -> None:
    options = StudyOptions(
        grafts=("retain", "deepen"), hidden=((512, 256), (64,)), cuts=("none", "conv1"), epochs=3, time_limit=90.0,
        label_smoothing=0.0,
    )  # fmt: skip
    of_source = SourceOptions(weights=Path("/home/me/a.safetensors"), image_size=96)
    words = command(Path("fruit"), "timm:resnet18", options, of_source)[7:]
    pairs = list(zip(words[::2], words[1::2], strict=True))
    assert sorted(pairs) == [
        ("--cuts", "none,conv1"), ("--epochs", "3"), ("--grafts", "retain,deepen"), ("--hidden", "512,256"),
        ("--hidden", "64"), ("--image-size", "96"), ("--label-smoothing", "0.0"), ("--time-limit", "90s"),
        ("--weights", "a.safetensors"),
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [0, 7, 45_000, 1 << 33])
def test_a_store_limit_is_written_as_it_is_read(limit: int) -> None:
    words = command(Path("fruit"), "timm:resnet18", StudyOptions(store_limit=limit), SourceOptions())
    assert bytes_of(words[-1]) == limit


@pytest.mark.parametrize("limit", [0.5, 90.0, 1200.0, 30 * 24 * 3600.0])
def test_a_time_limit_is_written_as_it_is_read(limit: float) -> None:
    words = command(Path("fruit"), "timm:resnet18", StudyOptions(time_limit=limit), SourceOptions())
    assert seconds(words[-1]) == limit
