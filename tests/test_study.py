"""Whole studies on toy images with a toy network, from the command line to what lies in the run folder."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import QUICK, SHORT, absolute_paths, inarch, kill, rows, running, start, without_cost
from toy import write_images, write_source

import inarch as api
from inarch.data import open_dataset
from inarch.errors import RunFolderError
from inarch.launch.here import Workbench
from inarch.network.grafts import GRAFT_NAMES, graft_class
from inarch.results.ledger import Ledger
from inarch.results.schema import validate_results

FULL = (*QUICK, "--harmonise", "none,l2", "--seeds", "2")
ONE = (*QUICK, "--grafts", "retain", "--harmonise", "none", "--cuts", "1", "--seeds", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy source (`source/toy.json`) and toy images (`images`), one of them broken."""
    folder = tmp_path_factory.mktemp("place")
    write_source(folder / "source")
    write_images(folder / "images", a_class=20)
    (folder / "images" / "red" / "broken.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="module")
def command(place: Path) -> Callable[..., list[str | Path]]:
    """The arguments of `fit` on the toy source and images."""

    def made(out: Path, *options: str) -> list[str | Path]:
        return ["fit", place / "images", "--source", place / "source" / "toy.json", "--out", out, *options]

    return made


Command = Callable[..., list[str | Path]]


def fitted(command: Command, out: Path, *options: str) -> Path:
    ran = inarch(*command(out, *options))
    assert ran.exit_code == 0, ran.said
    return out


def results_of(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


@pytest.fixture(scope="module")
def full(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of all grafts; tests only read it."""
    return fitted(command, tmp_path_factory.mktemp("full") / "run", *FULL)


@pytest.fixture(scope="module")
def short(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished, undisturbed study with the options `SHORT`; tests only read it."""
    return fitted(command, tmp_path_factory.mktemp("short") / "run", *SHORT)


# What lies in the run folder


def test_a_study_leaves_ledger_results_report_model_and_checkpoints(full: Path) -> None:
    validate_results(results_of(full))
    assert (full / "ledger.sqlite").is_file()
    assert "<html" in (full / "report.html").read_text()
    assert {file.name for file in (full / "model").iterdir()} == {"card.json", "model.safetensors", "toy.py"}
    assert list((full / "checkpoints").glob("*.safetensors"))
    assert not list(full.rglob("*.part"))


def test_results_hold_every_promised_field(full: Path) -> None:
    results = results_of(full)
    place = {"graft", "harmonise", "hidden", "cut"}
    assert results["format"] == 1
    assert results["dataset"]["classes"] == ["blue", "green", "red"]
    assert results["dataset"]["counts"] == {"train": 39, "validation": 9, "test": 12}
    assert results["dataset"]["digest"]
    assert results["dataset"]["set_aside"] == [{"path": "red/broken.png", "reason": "not an image that Pillow reads"}]
    assert results["source"]["name"] == "toy"
    chosen_fields = {"method", "learning_rate", "new_layer_learning_rate", "seeds"}
    assert results["chosen"].keys() >= place | chosen_fields
    assert results["chosen"]["cut"].keys() == {"index", "name"}
    assert all(row.keys() >= place | {"validation_accuracy", "seeds"} for row in results["curve"])
    roles = {"chosen", "model", "traditional", "linear_probe", *(f"{graft}_best_cut" for graft in GRAFT_NAMES)}
    assert results["test"].keys() == roles
    figures = {"accuracy", "interval95", "balanced_accuracy", "macro_f1", "top5", "log_loss", "calibration_error"}
    for tested in results["test"].values():
        assert tested.keys() >= figures | {"seeds"}
        assert tested["top5"] is None
        assert tested["interval95"][0] <= tested["accuracy"] <= tested["interval95"][1]
    assert results["cost"].keys() >= {"seconds", "trials"}
    assert results["cost"]["environment"]["threads"] == 1
    assert results["left_out"] == []


def test_no_path_of_the_machine_stands_in_results_or_card(full: Path, place: Path) -> None:
    for text in ((full / "results.json").read_text(), (full / "model" / "card.json").read_text()):
        assert absolute_paths(text) == []
        assert place.name not in text
        assert full.parent.name not in text


def test_confirmed_figures_are_means_over_as_many_seeds_as_asked_for_and_none_is_the_search_seed(full: Path) -> None:
    test = results_of(full)["test"]
    assert {role: row["seeds"] for role, row in test.items()} == {r: [1] if r == "model" else [1, 2] for r in test}


def test_the_test_split_is_read_only_for_what_is_reported(full: Path) -> None:
    tested = {row[1].removeprefix("test-") for row in rows(full) if row[2] == "test"}
    results = results_of(full)
    reported = {
        (row["graft"], row["harmonise"], row["cut"]["index"], seed)
        for row in results["test"].values()
        for seed in row["seeds"]
    }
    subjects = [json.loads(row[3]) for row in rows(full) if row[2] == "test"]
    found = {(s["configuration"]["graft"], s["configuration"]["harmonise"], s["cut"], s["seed"]) for s in subjects}
    assert found == reported
    assert tested <= {row[1] for row in rows(full) if row[2] == "trial"}
    assert [row[2] for row in rows(full)] == sorted(
        (row[2] for row in rows(full)), key=["range-test", "trial", "test"].index
    )


def test_the_same_command_in_two_folders_gives_the_same_results_but_for_cost(
    short: Path, command: Command, tmp_path: Path
) -> None:
    again = fitted(command, tmp_path / "again", *SHORT)
    assert without_cost(results_of(again)) == without_cost(results_of(short))
    for name in ("card.json", "model.safetensors"):
        assert (again / "model" / name).read_bytes() == (short / "model" / name).read_bytes()


def test_a_finished_study_called_again_trains_nothing_and_says_the_same(
    short: Path, command: Command, tmp_path: Path
) -> None:
    shutil.copytree(short, tmp_path / "run")
    before = rows(short)
    fitted(command, tmp_path / "run", *SHORT)
    assert rows(tmp_path / "run") == before
    results = results_of(tmp_path / "run")
    assert results["cost"]["trials_this_call"] == 0
    assert without_cost(results) == without_cost(results_of(short))


# Interruptions

MOMENTS = (
    ("inarch.network.source:read_weights", 1),
    ("inarch.data.dataset:read_image", 30),
    ("inarch.training.range_test:_sweep", 2),
    ("inarch.training.fit:_step", 5),
    ("inarch.launch.here:write_weights", 3),
    ("inarch.results.ledger:Ledger.add", 4),
    ("inarch.launch.here:Workbench.keep_checkpoints", 2),
    ("inarch.results.ledger:_row", 6),
    ("inarch.study:Workbench.test", 3),
    ("inarch.model:write_weights", 1),
    ("inarch.model:write_text", 2),
    ("inarch.study:write_report", 1),
)


def test_killed_at_every_kind_of_moment_a_study_goes_on_to_the_same_results(
    short: Path, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for moment in MOMENTS:
        before = rows(out)
        child = start(*command(out, *SHORT), die_at=moment)
        child.join(120)
        assert child.exitcode == -signal.SIGKILL, f"{moment} was not met"
        child.close()
        assert rows(out)[: len(before)] == before, f"records changed when killed at {moment}"
    before = rows(out)
    fitted(command, out, *SHORT)
    assert rows(out)[: len(before)] == before
    assert [row[:2] for row in rows(out) if row[2] != "test"] == [row[:2] for row in rows(short) if row[2] != "test"]
    assert without_cost(results_of(out)) == without_cost(results_of(short))
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_times_a_study_goes_on_to_the_same_results(
    short: Path, command: Command, tmp_path: Path, seed: int
) -> None:
    out = tmp_path / "run"
    delays = random.Random(seed)
    trained = 0
    for longest in (0.2, 0.8, 1.2, 1.6, 2.0):
        before = rows(out)
        child = start(*command(out, *SHORT))
        time.sleep(delays.uniform(0.05, longest))
        if not kill(child):
            break
        after = rows(out)
        assert after[: len(before)] == before
        trained += sum(row[2] == "trial" for row in after[len(before) :])
    before = rows(out)
    fitted(command, out, *SHORT)
    assert rows(out)[: len(before)] == before
    results = results_of(out)
    assert results["cost"]["trials"] - results["cost"]["trials_this_call"] == trained
    assert without_cost(results) == without_cost(results_of(short))


def test_a_process_started_from_a_shell_and_killed_leaves_the_folder_free_at_once(
    short: Path, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = [sys.executable, "-m", "inarch.cli", *map(str, command(out, *SHORT))]
    process = subprocess.Popen(arguments, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 120
        while len(rows(out)) < 4:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        refused = inarch(*command(out, *SHORT))
    finally:
        process.kill()
        _, said = process.communicate()
    assert refused.exit_code == 1
    assert "is in use by another process" in refused.said
    assert "Traceback" not in said
    before = rows(out)
    fitted(command, out, *SHORT)
    assert rows(out)[: len(before)] == before
    assert without_cost(results_of(out)) == without_cost(results_of(short))


def test_two_calls_at_the_same_moment_do_not_both_work_in_a_folder(command: Command, tmp_path: Path) -> None:
    with running(*command(tmp_path / "run", *ONE)) as one, running(*command(tmp_path / "run", *ONE)) as other:
        one.join(120)
        other.join(120)
        assert sorted([one.exitcode or 0, other.exitcode or 0]) == [0, 1]
    assert results_of(tmp_path / "run")["cost"]["trials"] == sum(row[2] == "trial" for row in rows(tmp_path / "run"))


def test_ctrl_c_says_that_the_same_command_goes_on(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = Workbench.run, iter(range(100))

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return run(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Workbench, "run", interrupted)
        ran = inarch(*command(tmp_path / "run", *ONE))
    assert ran.exit_code == 1
    assert "the same command goes on" in ran.said
    assert sum(row[2] == "trial" for row in rows(tmp_path / "run")) == 3
    fitted(command, tmp_path / "run", *ONE)


# Other arguments in the same folder


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("--epochs", "2"), "epochs was 1, now 2"),
        (("--hidden", "16"), "hidden"),
        (("--grafts", "replace,retain"), "grafts"),
        (("--harmonise", "batch"), "harmonise"),
        (("--cuts", "1"), "cuts"),
        (("--method", "l2-sp"), 'method was "fine-tuning", now "l2-sp"'),
        (("--seeds", "3"), "seeds was 2, now 3"),
        (("--seed", "1"), "seed was 0, now 1"),
        (("--batch-size", "8"), "batch_size"),
        (("--image-size", "20"), "image size"),
        (("--label-smoothing", "0.2"), "label_smoothing"),
        (("--balance", "loss"), "balance"),
        (("--optimiser", "adamw"), "optimiser"),
        (("--precision", "bf16"), "precision"),
        (("--threads", "2"), "--threads 2: this run was begun with 1"),
    ],
)
def test_other_arguments_in_the_same_folder_are_refused_by_name(
    short: Path, command: Command, changed: tuple[str, str], named: str
) -> None:
    before = {file: file.read_bytes() for file in short.rglob("*") if file.is_file()}
    ran = inarch(*command(short, *SHORT, *changed))
    assert ran.exit_code != 0
    assert named in ran.said
    assert "--out" in ran.said
    assert "Traceback" not in ran.said
    assert {file: file.read_bytes() for file in short.rglob("*") if file.is_file()} == before


def test_other_images_in_the_same_folder_are_refused(short: Path, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "images", tmp_path / "images")
    (tmp_path / "images" / "red" / "0.png").unlink()
    source = place / "source" / "toy.json"
    ran = inarch("fit", tmp_path / "images", "--source", source, "--out", short, *SHORT)
    assert ran.exit_code == 1
    assert "data digest" in ran.said


def test_moved_images_and_another_way_to_name_the_source_are_the_same_study(
    short: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "images", tmp_path / "images")
    shutil.copytree(short, tmp_path / "run")
    monkeypatch.chdir(place / "source")
    ran = inarch("fit", tmp_path / "images", "--source", "toy.json", "--out", tmp_path / "run", *SHORT)
    assert ran.exit_code == 0, ran.said
    assert results_of(tmp_path / "run")["cost"]["trials_this_call"] == 0


def test_a_folder_with_other_files_is_refused_and_left_alone(command: Command, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    ran = inarch(*command(tmp_path, *ONE))
    assert ran.exit_code == 1
    assert "thesis.tex" in ran.said
    assert [file.name for file in tmp_path.iterdir() if file.name != "run.lock"] == ["thesis.tex"]


def test_a_first_call_that_fails_does_not_decide_threads_or_precision(command: Command, tmp_path: Path) -> None:
    mistaken = ["timm:resnet81" if str(a).endswith("toy.json") else a for a in command(tmp_path / "run", *ONE)]
    assert inarch(*mistaken, "--threads", "2").exit_code == 1
    fitted(command, tmp_path / "run", *ONE, "--precision", "bf16")
    environment = results_of(tmp_path / "run")["cost"]["environment"]
    assert (environment["threads"], environment["precision"]) == (1, "bf16")
