"""The demonstration, small: it needs nothing but the package, tells what it found in five lines, and can go on."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from program import inarch, without_cost
from sklearn.datasets import load_digits

from inarch import demo as demonstration
from inarch.data import open_dataset
from inarch.demo import IMAGES, SIDE, Shares, write_digits
from inarch.errors import TimeLimitError
from inarch.launch.progress import Progress
from inarch.options import StudyOptions
from inarch.results.folder import TRIAL, RunFolder
from inarch.results.ledger import Record
from inarch.results.schema import validate_results

SMALL = StudyOptions(
    epochs=1, grafts=("replace", "retain"), harmonise=("none",), cuts=("9",), seeds=1, precision="fp32"
)  # fmt: skip
FEW = Shares(train=4, validation=2, test=3)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers, and asking is an error."""

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("the demonstration asked the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command with few images and one short trial of each kind."""
    whole = demonstration.demo

    def shortened(out: Path, progress: Progress, **given: Any) -> dict[str, Any]:
        return whole(out, progress, **given, options=SMALL, shares=FEW)

    monkeypatch.setattr(demonstration, "demo", shortened)


def test_the_demo_writes_nothing_into_the_folder_of_another_study(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.ledger.add(Record("a key", TRIAL, {}, {}, {}, 1.0))
    ran = inarch("demo", "--out", tmp_path)
    assert ran.exit_code == 1
    assert "another study" in ran.said
    assert not (tmp_path / IMAGES).exists()


@pytest.mark.usefixtures("no_network")
def test_on_a_slow_machine_the_demo_takes_longer_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def slow(*given: Any) -> dict[str, Any]:
        limits.append(given[3].time_limit)
        if limits[-1] < 300:
            raise TimeLimitError("--time-limit is too short.", "Give more.", least=400.0)
        return {}

    monkeypatch.setattr(demonstration, "fit", slow)
    demonstration.demo(tmp_path / "demo", Progress(), time_limit=100.0, shares=FEW)
    assert limits == [100.0, 600.0]


@pytest.mark.usefixtures("no_network", "small")
def test_the_demo_runs_the_main_job_and_tells_in_five_lines(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    ran = inarch("demo", "--out", out, "--threads", "1", "--time-limit", "")
    assert ran.exit_code == 0, ran.said
    lines = ran.out.strip().splitlines()
    assert len(lines) == 5
    results = json.loads((out / "results.json").read_text())
    validate_results(results)
    assert results["source"]["name"] == "inarch:embedded"
    assert results["dataset"]["counts"] == {"train": 40, "validation": 20, "test": 30}
    assert f"{100 * results['test']['chosen']['accuracy']:.1f} %" in lines[1]
    assert f"{100 * results['test']['traditional']['accuracy']:.1f} %" in lines[2]
    assert str(out / "report.html") in lines[4]
    assert (out / "report.html").is_file()
    assert (out / "model" / "card.json").is_file()
    assert " ".join(results["cost"]["command"][:5]) == "inarch fit digits --source inarch:embedded"


@pytest.mark.usefixtures("small")
def test_the_demo_called_again_trains_nothing_anew(tmp_path: Path) -> None:
    command = ("demo", "--out", tmp_path / "demo", "--threads", "1")
    assert inarch(*command).exit_code == 0
    first = json.loads((tmp_path / "demo" / "results.json").read_text())
    (tmp_path / "demo" / IMAGES / "train" / "3").rename(tmp_path / "gone")
    again = inarch(*command)
    assert again.exit_code == 0, again.said
    second = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert without_cost(first) == without_cost(second)
    assert second["cost"]["trials_this_call"] == 0


def test_the_demo_leaves_a_folder_of_something_else_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    ran = inarch("demo", "--out", tmp_path)
    assert ran.exit_code != 0
    assert "letter.txt" in ran.said
    assert [file.name for file in tmp_path.iterdir() if file.name == IMAGES] == []


def test_a_demo_without_a_kept_layer_says_why(tmp_path: Path) -> None:
    place = {"graft": "replace", "cut": {"index": 0, "name": "none"}, "accuracy": 0.5, "interval95": [0.4, 0.6]}
    results = {
        "dataset": {"counts": {"train": 40, "validation": 20, "test": 30}, "classes": list("0123456789")},
        "test": {"chosen": place, "traditional": place, "linear_probe": place},
        "kept_layer": {"reason": "No configuration that keeps the layer was trained in full."},
        "source": {"classes": 324},
    }
    assert "No configuration that keeps the layer" in demonstration.in_short(results, tmp_path)[3]


# The digits


def test_digits_are_an_ordinary_data_set_with_few_training_images(tmp_path: Path) -> None:
    write_digits(tmp_path, Shares())
    dataset = open_dataset(tmp_path)
    assert dataset.classes == tuple("0123456789")
    assert [len(dataset.split(split)) for split in ("train", "validation", "test")] == [200, 200, 1397]
    assert not dataset.set_aside


def test_digit_files_show_the_digits_of_scikit_learn(tmp_path: Path) -> None:
    write_digits(tmp_path, FEW)
    digits = load_digits()
    for file in tmp_path.glob("test/*/*.png"):
        number = int(file.stem)
        assert digits.target[number] == int(file.parent.name)
        with Image.open(file) as image:
            assert image.size == (SIDE, SIDE)
            small = image.resize((8, 8), Image.Resampling.BOX)
        assert abs(sum(small.tobytes()) / 64 - digits.images[number].mean() * 255 / 16) < 4


def test_a_damaged_digit_is_written_again_and_a_whole_one_is_not(tmp_path: Path) -> None:
    write_digits(tmp_path, FEW)
    damaged, whole, *_ = sorted(tmp_path.glob("train/0/*.png"))
    content, time = damaged.read_bytes(), whole.stat().st_mtime_ns
    damaged.write_bytes(content[:20])
    write_digits(tmp_path, FEW)
    assert damaged.read_bytes() == content
    assert whole.stat().st_mtime_ns == time
