"""What the benchmarks share: drawn manifests, parts that are kept, and measuring in a child process."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from toy import write_images

import common
from inarch.data import open_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set with 12 training images a class, and 3 in each other split."""
    for split, count in (("train", 12), ("val", 3), ("test", 3)):
        write_images(tmp_path / "data" / split, a_class=count)
    return tmp_path / "data"


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_draw_has_at_most_so_many_training_images_a_class_and_the_other_splits_whole(
    data: Path, tmp_path: Path
) -> None:
    drawn = rows(common.draw(data, tmp_path / "drawn.csv", a_class=5, seed=1))
    counts = Counter((row["split"], row["label"]) for row in drawn)
    assert counts == {
        (split, label): count
        for split, count in (("train", 5), ("validation", 3), ("test", 3)) for label in ("red", "green", "blue")
    }  # fmt: skip
    whole = rows(common.draw(data, tmp_path / "whole.csv", a_class=100, seed=1))
    assert sum(row["split"] == "train" for row in whole) == 36


def test_a_draw_follows_from_its_seed_alone(data: Path, tmp_path: Path) -> None:
    first, again, other = (
        common.draw(data, tmp_path / f"{place}.csv", a_class=5, seed=seed).read_bytes()
        for place, seed in enumerate((1, 1, 2))
    )
    assert first == again
    assert first != other


def test_a_drawn_manifest_is_a_data_set(data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(common.draw(data, tmp_path / "drawn.csv", a_class=5, seed=1))
    assert [len(dataset.split(split)) for split in ("train", "validation", "test")] == [15, 9, 9]
    assert not dataset.set_aside


class Counted:
    """Stands for the child process; counts its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(
        self, function: str, values: dict[str, Any], environment: Mapping[str, str], note: Path
    ) -> dict[str, Any]:
        self.calls.append(function)
        return {"seconds": 2.0, "seconds_before": 0.0}


def test_a_finished_part_is_not_measured_again(tmp_path: Path) -> None:
    child = Counted()
    for _ in range(2):
        record = common.Parts(tmp_path, tmp_path / "work", child).measure("one", "module:function", {"size": 3})
    assert child.calls == ["module:function"]
    assert (record["part"], record["seconds"]) == ("one", 2.0)
    assert len((tmp_path / "one.json").read_text().splitlines()) == 1


def test_a_part_keeps_no_path_and_goes_on_in_another_place(tmp_path: Path) -> None:
    child = Counted()
    common.Parts(tmp_path, tmp_path / "work", child).measure("one", "f:g", {"images": Path("/here/images")})
    assert "/here" not in (tmp_path / "one.json").read_text()
    common.Parts(tmp_path, tmp_path / "work", child).measure("one", "f:g", {"images": Path("/there/images")})
    assert len(child.calls) == 1


def test_a_part_of_other_arguments_is_refused(tmp_path: Path) -> None:
    common.Parts(tmp_path, tmp_path / "work", Counted()).measure("one", "f:g", {"size": 3})
    with pytest.raises(SystemExit, match="other arguments"):
        common.Parts(tmp_path, tmp_path / "work", Counted()).measure("one", "f:g", {"size": 4})


def test_a_measurement_that_fails_leaves_no_part(tmp_path: Path) -> None:
    def broken(*_: object) -> dict[str, Any]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        common.Parts(tmp_path, tmp_path / "work", broken).measure("one", "f:g", {})
    assert common.Parts(tmp_path, tmp_path).get("one") is None


def test_a_child_gives_its_result_whatever_it_prints_and_its_own_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noisy.py").write_text(
        "import os\n"
        "def twice(number):\n"
        "    print('noise')\n"
        "    return {'number': 2 * number, 'said': os.environ['SAID']}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "one.seconds").write_text("7.5")
    found = common.in_child("noisy:twice", {"number": 4}, {"SAID": "yes"}, tmp_path / "one.seconds")
    assert (found["number"], found["said"], found["seconds_before"]) == (8, "yes", 7.5)
    assert found["peak_memory_bytes"] > 2**20


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(common.ChildError, match="No module named 'no_such_module'"):
        common.in_child("no_such_module:f", {}, {}, tmp_path / "one.seconds")


def test_json_is_written_with_its_folder_and_only_where_asked(tmp_path: Path) -> None:
    common.write_json(None, {"a": 1})
    common.write_json(tmp_path / "new" / "file.json", {"a": 1})
    assert json.loads((tmp_path / "new" / "file.json").read_text()) == {"a": 1}


@pytest.mark.parametrize(("classes", "a_class"), [(10, 100), (3, 100), (81, 12), (1200, 1)])
def test_about_a_thousand_images_are_at_most_a_hundred_a_class(classes: int, a_class: int, tmp_path: Path) -> None:
    for number in range(classes):
        (tmp_path / "train" / str(number)).mkdir(parents=True)
    assert common.a_class_of(tmp_path, 1000) == a_class
