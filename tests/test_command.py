"""The command that repeats a study says what differs from the defaults, and gives no folder of the machine away."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
import torch
from program import inarch

from inarch.command import command
from inarch.comparison.options import CompareOptions
from inarch.environment import same_settings_afterwards
from inarch.errors import UsageError
from inarch.features.place import bytes_of
from inarch.network.randomness import own_randomness
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


def test_the_command_line_has_the_defaults_of_a_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[StudyOptions | CompareOptions] = []

    def noted(data: Path, source: str, out: Path, options: StudyOptions | CompareOptions, *_: object) -> NoReturn:
        asked.append(options)
        raise UsageError("That is enough.", "")

    monkeypatch.setattr("inarch.study.fit", noted)
    monkeypatch.setattr("inarch.comparison.story.compare", noted)
    for words in (("fit",), ("compare", "--methods", "bss")):
        inarch(*words, tmp_path, "--source", "timm:resnet18", "--out", tmp_path / "run")
    study, comparison = asked
    assert study == StudyOptions()
    assert isinstance(comparison, CompareOptions)
    assert comparison == CompareOptions(("bss",), study=StudyOptions(grafts=("replace", "retain")))


def test_a_study_gives_the_settings_of_the_program_back() -> None:
    cudnn = torch.backends.cudnn
    before = torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    try:
        with same_settings_afterwards():
            assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
            assert torch.get_float32_matmul_precision() == "highest"
            torch.set_num_threads(before[0] + 1)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert before == (torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)


@pytest.mark.parametrize("seed", [3, None])
def test_randomness_of_ones_own_leaves_that_of_the_program_alone(seed: int | None) -> None:
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with own_randomness(seed):
            drawn.append(torch.rand(4))
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(*drawn)
    assert (seed is None) == torch.equal(drawn[0], torch.rand(4))
