"""Inarch from Python: the same words as the command line, and predictions as values."""

from __future__ import annotations

import io
import json
import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from program import ONE, inarch
from toy import write_images, write_source

import inarch as api
from inarch.errors import DataError, RunFolderError, SourceError, UsageError
from inarch.predict import _read_groups
from inarch.predictions import Columns, Prediction, write_csv
from inarch.results.folder import RunFolder

QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 16, "threads": 1, "seeds": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy source (`source/toy.json`) and toy images (`images`)."""
    folder = tmp_path_factory.mktemp("place")
    write_source(folder / "source")
    write_images(folder / "images", a_class=12)
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """A run folder filled from Python; tests only read it."""
    threads = torch.get_num_threads()
    api.fit(
        place / "images", source=place / "source" / "toy.json", out=place / "run", **QUICK,
        grafts=["retain"], harmonise=["none"], cuts=[1], hidden=[[8]],
    )  # fmt: skip
    torch.set_num_threads(threads)
    return place / "run"


def test_from_python_and_from_the_command_line_it_is_the_same_study(run: Path, place: Path) -> None:
    before = json.loads((run / "results.json").read_text())
    ran = inarch("fit", place / "images", "--source", place / "source" / "toy.json", "--out", run, *ONE)
    assert ran.exit_code == 0, ran.said
    after = json.loads((run / "results.json").read_text())
    assert after["cost"].pop("trials_this_call") == 0
    assert {k: v for k, v in after.items() if k != "cost"} == {k: v for k, v in before.items() if k != "cost"}


def test_fit_returns_what_the_results_hold_and_takes_texts_of_the_command_line(run: Path, place: Path) -> None:
    threads = torch.get_num_threads()
    texts = {"grafts": "retain", "harmonise": "none", "cuts": "conv1", "hidden": "8", "time_limit": "10m"}
    texts |= {"views": "8", "store": str(place / "another store")}
    with pytest.raises(RunFolderError, match=r'cuts was \["1"\], now \["conv1"\]'):
        api.fit(place / "images", source=place / "source" / "toy.json", out=run, **QUICK, **texts)
    texts["cuts"] = "1"
    results = api.fit(place / "images", source=place / "source" / "toy.json", out=run, **QUICK, **texts)
    torch.set_num_threads(threads)
    assert json.loads(json.dumps(results)) == json.loads((run / "results.json").read_text())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, "fit has no option 'epoch'"),
        ({"grafts": "widen"}, "no graft called 'widen'"),
        ({"hidden": "big"}, "--hidden big is not a list of sizes"),
        ({"time_limit": "soon"}, "--time-limit soon is not a duration"),
        ({"views": "many"}, "--views many is not a number of views"),
        ({"views": -1}, "--views -1 is too small"),
        ({"store_limit": "much"}, "--store-limit much is not a size"),
        ({"image_size": (96, 96)}, r"--image-size \(96, 96\) is not a number of pixels"),
        ({"store_limit": -1}, "--store-limit -1 is too small"),
    ],
)
def test_options_that_cannot_be_meant_are_usage_errors(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        api.fit(tmp_path, source="timm:resnet18", out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_predictions_are_in_the_order_given_with_probabilities_that_sum_to_one(run: Path, place: Path) -> None:
    images = [place / "images" / name for name in ("red/3.png", "blue/0.png", "red/1.png")]
    model = api.load(run / "model")
    assert model.classes == ("blue", "green", "red")
    found = model.predict(images, top=3)
    assert [p.path for p in found] == list(map(str, images))
    for prediction in found:
        assert set(prediction.classes) == set(model.classes)
        assert list(prediction.probabilities) == sorted(prediction.probabilities, reverse=True)
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-5)
        assert prediction.error is None
    assert [p.classes[0] for p in model.predict(map(str, images))] == [p.classes[0] for p in found]


def test_folders_are_searched_without_hidden_files(run: Path, place: Path, tmp_path: Path) -> None:
    image = place / "images" / "red" / "3.png"
    for name in ("deep/er/b.png", "a.png", ".hidden/c.png", "deep/.d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tmp_path / name)
    (tmp_path / "notes.txt").write_text("nothing to see")
    found = api.load(run).predict([tmp_path])
    assert [Path(p.path).relative_to(tmp_path).as_posix() for p in found] == ["a.png", "deep/er/b.png"]


def test_a_file_that_cannot_be_read_carries_its_error(run: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    bad, good, missing = api.load(run).predict(
        [tmp_path / "bad.png", place / "images" / "red" / "3.png", tmp_path / "missing.png"]
    )
    assert (bad.classes, bad.error) == ((), "not an image that Pillow reads")
    assert good.error is None
    assert missing.error == "no such file or directory"


def test_batches_change_nothing_but_rounding_and_progress_counts_up_to_all(run: Path, place: Path) -> None:
    model, told = api.load(run), []
    one, many = (
        model.predict(
            [place / "images"], top=3, batch_size=size, progress=lambda done, total: told.append((done, total))
        )
        for size in (36, 7)
    )
    assert [p.path for p in one] == [p.path for p in many]
    for a, b in zip(one, many, strict=True):
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-6)
    assert told == [(36, 36), *((min(36, 7 * n), 36) for n in range(1, 7))]


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_no_more_than_the_next_groups_are_read_ahead(ahead: int) -> None:
    files = [Path(f"{n}.png") for n in range(100)]
    opened: list[Path] = []

    def read(file: Path) -> str:
        opened.append(file)
        return file.name

    for number, (batch, images) in enumerate(_read_groups(files, 10, ahead, read), start=1):
        assert images == [file.name for file in batch]
        assert len(opened) <= 10 * (number + ahead)
    assert sorted(opened) == sorted(files)


def test_a_reader_that_fails_or_a_caller_that_stops_leaves_no_thread_and_reads_no_further() -> None:
    files, opened = [Path(str(n)) for n in range(1000)], []

    def read(file: Path) -> str:
        opened.append(file)
        if file.name == "13":
            raise MemoryError
        return ""

    with pytest.raises(MemoryError), closing(_read_groups(files, 10, 1, read)) as batches:
        list(batches)
    with closing(_read_groups(files[20:], 10, 1, read)) as batches:
        next(batches)
    assert len(opened) <= 60


def test_nothing_to_predict_is_an_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no image in what was named"):
        api.load(run).predict([tmp_path])


@pytest.mark.parametrize(("name", "reason"), [("", "it is a folder"), ("none/found.csv", "its folder is not there")])
def test_a_file_that_could_never_be_written_is_said_before_anything_is_loaded(
    tmp_path: Path, name: str, reason: str
) -> None:
    ran = inarch("predict", tmp_path / "no model", tmp_path, "--out", tmp_path / name)
    assert ran.exit_code == 2
    assert f"{tmp_path / name} cannot be written: {reason}." in ran.said


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no card\.json"):
        api.load(tmp_path)


def test_a_run_without_a_model_is_said_to_be_unfinished_and_how_to_go_on(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").close()
    said = r"run is not finished: it holds no model/card\.json yet, .* Call `inarch fit` again with the same arguments"
    with pytest.raises(SourceError, match=said):
        api.load(tmp_path / "run")


def test_what_is_no_folder_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(UsageError, match=r"a\.txt' is not a source network: it is a file that is"):
        api.load(tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["card.json", "model.safetensors", "toy.py"])
def test_a_model_folder_that_lacks_a_file_names_it(run: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(run / "model", tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(SourceError, match=name.replace(".", r"\.")):
        api.load(tmp_path / "model")


def test_weights_of_another_model_in_the_folder_are_refused(run: Path, place: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "model", tmp_path / "model")
    shutil.copy(place / "source" / "toy.safetensors", tmp_path / "model" / "model.safetensors")
    with pytest.raises(SourceError, match="do not fit the network"):
        api.load(tmp_path / "model")


def test_file_names_that_are_no_text_are_printed_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    with io.TextIOWrapper(written, encoding="utf-8", errors="strict") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        write_csv([Prediction("a\udcff.png", ("red",), (1.0,))], None, Columns(1))
        stdout.flush()
        assert b"a\xff.png,red,1.000000" in written.getvalue()
        monkeypatch.undo()


def test_a_folder_that_is_not_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no run folder or model folder '.*modle'"):
        api.load(tmp_path / "modle")
