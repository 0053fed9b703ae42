"""Whole studies on toy images with a toy network, from the command line to what lies in the run folder."""

from __future__ import annotations

import errno
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import ONE, QUICK, SHORT, Ran, absolute_paths, inarch, kill, rows, running, start, without_cost
from toy import write_images, write_source

import inarch as api
from inarch.data import open_dataset
from inarch.errors import TrainingError
from inarch.launch.cost import CostModel
from inarch.launch.here import Workbench
from inarch.network.grafts import DEFAULT_GRAFTS, graft_class
from inarch.plural import counted
from inarch.results.ledger import Ledger
from inarch.results.schema import validate_results
from inarch.training.fit import Watch
from inarch.training.trial import Trial

FULL = (*QUICK, "--harmonise", "none,l2", "--seeds", "2")


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
    kept = {"card.json", "model.safetensors", "toy.py", "original.safetensors", "known.json"}
    assert {file.name for file in (full / "model").iterdir()} == kept
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
    roles = {"chosen", "model", "traditional", "linear_probe", *(f"{graft}_best_cut" for graft in DEFAULT_GRAFTS)}
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
    for name in ("results.json", "evidence.json", "model/card.json", "report.html"):
        text = re.sub('data:image/webp;base64,[^"]*|<svg.*?</svg>', "", (full / name).read_text(), flags=re.DOTALL)
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
        (row[2] for row in rows(full)), key=["range-test", "trial", "test", "source-pass"].index
    )


def test_the_same_command_in_two_folders_gives_the_same_results_but_for_cost(
    short: Path, command: Command, tmp_path: Path
) -> None:
    again = fitted(command, tmp_path / "again", *SHORT)
    assert without_cost(results_of(again)) == without_cost(results_of(short))
    for name in ("card.json", "model.safetensors", "original.safetensors", "known.json"):
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


@pytest.mark.parametrize("limit", [(), ("--time-limit", "10m")])
def test_a_finished_study_called_again_says_that_all_is_there(
    short: Path, command: Command, tmp_path: Path, limit: tuple[str, ...]
) -> None:
    shutil.copytree(short, tmp_path / "run")
    ran = inarch(*command(tmp_path / "run", *SHORT, *limit))
    assert "All trials are recorded already: nothing is left to train." in ran.said
    assert "About" not in ran.said


def batches_of(folder: Path) -> list[tuple[str, ...]]:
    """What was trained together, in the order of the records."""
    found = [tuple(json.loads(row[4])["together"]) for row in rows(folder) if row[2] == "trial"]
    return list(dict.fromkeys(found))


# Interruptions

MOMENTS = (
    ("inarch.network.source:read_weights", 1),
    ("inarch.data.dataset:read_image", 30),
    ("inarch.environment:remembered", 1),
    ("inarch.results.folder:RunFolder.require_identity", 1),
    ("inarch.training.range_test:_sweep", 2),
    ("inarch.training.fit:Watch.step", 5),
    ("inarch.launch.here:write_weights", 3),
    ("inarch.results.ledger:Ledger.add_all", 4),
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


@pytest.mark.parametrize(
    "moment",
    [
        ("inarch.training.fit:Watch.step", 2),
        ("inarch.launch.here:write_weights", 2),
        ("inarch.results.ledger:_row", 4),  # the range tests have written two
    ],
    ids=["in training", "between two checkpoints", "between two records"],
)
def test_killed_in_the_middle_of_a_batch_nothing_of_it_is_recorded_and_the_same_batch_runs_again(
    short: Path, command: Command, tmp_path: Path, moment: tuple[str, int]
) -> None:
    assert len(batches_of(short)[0]) > 2
    out = tmp_path / "run"
    child = start(*command(out, *SHORT), die_at=moment)
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    child.close()
    assert {row[2] for row in rows(out)} == {"range-test"}
    fitted(command, out, *SHORT)
    assert batches_of(out) == batches_of(short)
    assert without_cost(results_of(out)) == without_cost(results_of(short))


def test_killed_at_random_times_a_study_goes_on_to_the_same_results(
    short: Path, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    delays = random.Random(1)
    trained = 0
    for longest in (0.2, 0.6, 1.0, 1.4, 1.4, 1.8):
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
    assert len(batches_of(tmp_path / "run")) == 3
    fitted(command, tmp_path / "run", *ONE)


@pytest.mark.parametrize("kept", [0, 100])
def test_a_checkpoint_that_a_power_cut_left_unfinished_is_trained_again(
    short: Path, command: Command, tmp_path: Path, kept: int
) -> None:
    out = tmp_path / "run"
    shutil.copytree(short, out)
    for file in (out / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:kept])
    fitted(command, out, *SHORT)
    assert without_cost(results_of(out)) == without_cost(results_of(short))
    for name in ("model/model.safetensors", "model/original.safetensors"):
        assert (out / name).read_bytes() == (short / name).read_bytes()


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


@pytest.mark.usefixtures("bf16_here")
def test_a_first_call_that_fails_does_not_decide_threads_or_precision(command: Command, tmp_path: Path) -> None:
    mistaken = ["timm:resnet81" if str(a).endswith("toy.json") else a for a in command(tmp_path / "run", *ONE)]
    assert inarch(*mistaken, "--threads", "2").exit_code == 1
    fitted(command, tmp_path / "run", *ONE, "--precision", "bf16")
    environment = results_of(tmp_path / "run")["cost"]["environment"]
    plan = environment["plan"]
    assert (environment["threads"], plan["frozen"], plan["trained"]) == (1, "bf16", "bf16")


def test_what_a_report_draws_is_validated_after_every_epoch_and_all_else_once(command: Command, tmp_path: Path) -> None:
    run = fitted(command, tmp_path / "run", *ONE, "--epochs", "5", "--seeds", "2")
    with Ledger(run / "ledger.sqlite") as ledger:
        curves = {
            (r.subject["settings"]["epochs"], r.subject["seed"] > 1, len(r.outcome["epochs"]))
            for r in ledger.records("trial")
        }
    assert curves == {(3, False, 0), (5, False, 5), (5, True, 0)}
    evidence = json.loads((run / "evidence.json").read_text())
    assert all([len(seed["epochs"]) for seed in curve["seeds"]] == [5, 0] for curve in evidence["learning"])


# Time limits


class Counted:
    """Every trial takes one second and nothing else takes any: where a limit stops does not depend on the machine."""

    def __init__(self, patch: pytest.MonkeyPatch, limit: float) -> None:
        self.left = limit
        run = Workbench.run

        def counted(*arguments: Any) -> Any:
            self.left -= 1
            return run(*arguments)

        patch.setattr(Workbench, "run", counted)
        patch.setattr("inarch.study.Clock.left", lambda clock: self.left)
        patch.setattr("inarch.study.Clock.passed", lambda clock: 0.0)
        patch.setattr("inarch.launch.cost.CostModel.seconds", lambda model, *trials, made=None: 1.0)
        patch.setattr("inarch.launch.runner.CLOSING_SECONDS", 0.0)


@pytest.mark.parametrize("limits", [(6,), (5, 3)])
def test_stopped_by_the_time_limit_a_study_says_what_is_left_and_without_limit_it_goes_on_to_the_same_results(
    short: Path, command: Command, tmp_path: Path, limits: tuple[int, ...]
) -> None:
    out = tmp_path / "run"
    for limit in limits:
        before = rows(out)
        with pytest.MonkeyPatch.context() as patch:
            Counted(patch, limit)
            fitted(command, out, *SHORT, "--time-limit", f"{limit}s")
        assert rows(out)[: len(before)] == before
        results = results_of(out)
        validate_results(results)
        assert {"chosen", "model", "traditional", "linear_probe"} <= results["test"].keys()
        done = [json.loads(row[4])["together"] for row in rows(out)[len(before) :] if row[2] == "trial"]
        assert 0 < len({tuple(together) for together in done}) <= limit + 1
        assert results["cost"]["trials_this_call"] == len(done)
        assert results["left_out"]
        assert (out / "model" / "card.json").is_file()
    before = rows(out)
    fitted(command, out, *SHORT)
    assert rows(out)[: len(before)] == before
    assert results_of(out)["left_out"] == []
    assert without_cost(results_of(out)) == without_cost(results_of(short))


def test_a_real_time_limit_is_kept_with_the_best_so_far(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inarch.launch.runner.CLOSING_SECONDS", 1.0)
    wanted = command(tmp_path / "run", *FULL, "--epochs", "12", "--seeds", "60")
    limit = 2 * least_that_is_enough(inarch(*wanted, "--time-limit", "1s"))
    begin = time.monotonic()
    ran = inarch(*wanted, "--time-limit", f"{limit}s")
    assert ran.exit_code == 0, ran.said
    # A minute more at most is what is promised; on a machine that does nothing else it is a second or two.
    assert time.monotonic() - begin < limit + 60
    results = results_of(tmp_path / "run")
    assert {"chosen", "traditional", "linear_probe"} <= results["test"].keys()
    left_out = counted(len(results["left_out"]), "trial")
    assert f"Left out for lack of time: {left_out}; the same command goes on." in ran.said


def test_a_study_whose_first_estimates_were_too_dear_goes_on_searching_in_the_time_that_is_left(
    command: Command, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dear_at_first(model: CostModel, *_: Any, **__: Any) -> float:
        return 1e6 if len(model.learned) < 2 else 0.0

    monkeypatch.setattr(CostModel, "seconds", dear_at_first)
    monkeypatch.setattr(CostModel, "total", dear_at_first)
    monkeypatch.setattr("inarch.launch.runner.TrialRunner._refuse_too_short_a_limit", lambda runner: None)
    results = results_of(fitted(command, tmp_path / "run", *SHORT, "--time-limit", "5m"))
    assert results["left_out"] == []
    assert without_cost(results) == without_cost(results_of(short))


def test_too_short_a_time_limit_says_what_is_enough_and_that_is_enough(command: Command, tmp_path: Path) -> None:
    least = least_that_is_enough(inarch(*command(tmp_path / "run", *ONE, "--time-limit", "1s")))
    fitted(command, tmp_path / "run", *ONE, "--time-limit", f"{least}s")


def least_that_is_enough(ran: Ran) -> int:
    """Seconds, as a study says that was given one."""
    assert ran.exit_code == 2
    assert "--time-limit 1 s is too short" in ran.said
    least = re.search(r"need at least (\d+) s on this machine", ran.said)
    assert least is not None
    return int(least[1])


@pytest.mark.parametrize("changed", [("--image-size", "20"), ("--epochs", "2", "--threads", "2")])
@pytest.mark.parametrize("ended", ["too short", "range tests"])
def test_a_run_folder_without_a_trial_takes_other_arguments_and_gives_what_a_new_one_gives(
    ended: str, changed: tuple[str, ...], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    if ended == "too short":
        assert inarch(*command(out, *ONE, "--time-limit", "1s")).exit_code == 2
    else:
        with monkeypatch.context() as patch:
            patch.setattr(Workbench, "run", interrupted)
            assert inarch(*command(out, *ONE)).exit_code == 1
        assert {row[2] for row in rows(out)} == {"range-test"}
    fitted(command, out, *ONE, *changed)
    fitted(command, tmp_path / "new", *ONE, *changed)
    assert without_cost(results_of(out)) == without_cost(results_of(tmp_path / "new"))
    assert [row[:5] for row in rows(out)] == [row[:5] for row in rows(tmp_path / "new")]


def test_without_a_limit_the_duration_is_estimated_first(command: Command, tmp_path: Path) -> None:
    ran = inarch(*command(tmp_path / "run", *ONE))
    trials = results_of(tmp_path / "run")["cost"]["trials"]
    announced = int(ran.said.partition("About ")[2].split()[0])
    assert 0.6 * trials <= announced <= 1.6 * trials
    assert "as estimated." in ran.said


def test_with_a_limit_the_whole_duration_is_estimated_as_well(command: Command, tmp_path: Path) -> None:
    ran = inarch(*command(tmp_path / "run", *ONE, "--time-limit", "10m"))
    assert re.search(r"About \d+ trials, \d+ s as estimated; the time limit is 10 min 0 s\.", ran.said)


# What restricts the proposal


@pytest.mark.parametrize(
    ("options", "proposal"),
    [
        (("--grafts", "retain", "--harmonise", "batch", "--cuts", "conv2"), {("retain", "batch", (), 2)}),
        (("--grafts", "retain", "--harmonise", "l2", "--cuts", "none,2"), {("retain", "l2", (), k) for k in (0, 2)}),
        (("--grafts", "joined", "--harmonise", "l2", "--cuts", "all"), {("joined", "l2", (), k) for k in range(4)}),
        (("--grafts", "replace", "--harmonise", "none", "--cuts", "1"), {("replace", "none", (), 1)}),
        (("--grafts", "replace", "--harmonise", "l2", "--cuts", "all"), {("replace", "l2", (), k) for k in range(3)}),
        (
            ("--grafts", "deepen", "--harmonise", "none", "--cuts", "1", "--hidden", "6,5", "--method", "l2-sp"),
            {("deepen", "none", (8,), 1), ("deepen", "none", (6, 5), 1)},
        ),
    ],
)  # fmt: skip
def test_options_restrict_the_proposal_and_never_the_baselines(
    command: Command, tmp_path: Path, options: tuple[str, ...], proposal: set[tuple[Any, ...]]
) -> None:
    out = fitted(command, tmp_path / "run", *QUICK, "--seeds", "1", *options)
    results = results_of(out)
    validate_results(results)
    method = "l2-sp" if "l2-sp" in options else "fine-tuning"

    def place_of(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["graft"], row["harmonise"], tuple(row["hidden"]), row["cut"]["index"]

    baseline = {("replace", "none", (), k) for k in range(3)}
    assert {place_of(row) for row in results["curve"]} == proposal | baseline
    assert len({(place_of(row), row["method"]) for row in results["curve"]}) == len(results["curve"])
    assert {row["method"] for row in results["curve"] if place_of(row) in proposal} == {method}
    assert place_of(results["chosen"]) in proposal
    assert results["chosen"]["method"] == method
    test = results["test"]
    assert place_of(test["traditional"]) == ("replace", "none", (), 0)
    assert place_of(test["linear_probe"]) == ("replace", "none", (), 2)
    assert test["replace_best_cut"]["graft"] == "replace"
    assert test["traditional"]["method"] == test["linear_probe"]["method"] == "fine-tuning"


def test_a_cut_behind_the_classification_layer_is_no_cut_of_a_graft_that_throws_it_away(
    command: Command, tmp_path: Path
) -> None:
    ran = inarch(*command(tmp_path / "run", *QUICK, "--grafts", "replace", "--cuts", "3"))
    assert ran.exit_code == 2
    assert "--cuts 3 leaves no cut for replace" in ran.said
    assert "Cuts go up to 2 for a graft that replaces the classification layer" in ran.said


def test_an_unknown_cut_is_refused_with_the_names_of_all_stages(command: Command, tmp_path: Path) -> None:
    ran = inarch(*command(tmp_path / "run", *QUICK, "--cuts", "conv9"))
    assert ran.exit_code == 2
    assert (
        "--cuts conv9: the network has no such stage. Give numbers from 0 to 3 or names: none, conv1, conv2,"
        in ran.said
    )
    # The mistake does not claim the run folder.
    fitted(command, tmp_path / "run", *ONE)


def test_what_is_chosen_is_not_trained_again_where_another_one_replaces_the_layer_better(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, calls = Workbench._train, []
    monkeypatch.setattr(
        Workbench, "_train", lambda bench, batch, watch: calls.append(batch) or train(bench, batch, watch)
    )
    options = ("--grafts", "replace", "--harmonise", "l2", "--cuts", "1,2", "--seeds", "2")
    out = fitted(command, tmp_path / "run", *QUICK, *options)
    test = results_of(out)["test"]
    assert test["chosen"]["harmonise"] == "l2"
    assert len(calls) == len(batches_of(out))


def test_a_choice_that_fails_with_every_other_seed_is_not_blamed_on_the_time(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Workbench._train

    def failing(bench: Workbench, batch: Sequence[Trial], watch: Watch) -> Any:
        networks, outcomes = train(bench, batch, watch)
        return networks, [
            o if t.seed == 0 else TrainingError("Diverged.", "") for t, o in zip(batch, outcomes, strict=True)
        ]

    monkeypatch.setattr(Workbench, "_train", failing)
    results = results_of(fitted(command, tmp_path / "run", *ONE))
    assert results["chosen"]["confirmed"] is False
    assert "It could not be trained again with other seeds: each time it failed." in results["sentence"]
    assert "Time was too short" not in results["sentence"]


def test_where_all_that_keeps_the_layer_fails_it_is_not_said_that_none_was_tried(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Workbench._train

    def failing(bench: Workbench, batch: Sequence[Trial], watch: Watch) -> Any:
        networks, outcomes = train(bench, batch, watch)
        kept = [graft_class(trial.configuration.graft).keeps_layer for trial in batch]
        return networks, [TrainingError("Diverged.", "") if k else o for k, o in zip(kept, outcomes, strict=True)]

    monkeypatch.setattr(Workbench, "_train", failing)
    options = ("--grafts", "replace,retain", "--harmonise", "none", "--cuts", "1", "--seeds", "1")
    results = results_of(fitted(command, tmp_path / "run", *QUICK, *options))
    assert results["kept_layer"]["reason"] == "No configuration that keeps the layer was trained in full."
    assert results["kept_layer"]["reason"] in results["sentence"]


# What came out for the classification layer


def test_the_kept_layer_is_judged_by_the_best_that_keeps_it_against_the_best_that_replaces_it(full: Path) -> None:
    results = results_of(full)
    kept, test = results["kept_layer"], results["test"]
    assert graft_class(kept["kept"]["graft"]).keeps_layer
    assert not graft_class(kept["replaced"]["graft"]).keeps_layer
    accuracy = {
        side: next(
            row["accuracy"]
            for row in test.values()
            if all(row[k] == kept[side][k] for k in ("graft", "harmonise", "hidden", "cut")) and len(row["seeds"]) == 2
        )
        for side in ("kept", "replaced")
    }
    assert kept["difference"] == pytest.approx(accuracy["kept"] - accuracy["replaced"])
    assert kept["interval95"][0] <= kept["difference"] <= kept["interval95"][1]
    assert kept["sentence"] in results["sentence"]
    assert "standard error" in results["sentence"]


def test_the_choice_is_compared_with_each_baseline_and_corrected_for_their_number(full: Path) -> None:
    results = results_of(full)
    test, pairs = results["test"], {row["against"]: row for row in results["paired"]}
    place = ("graft", "harmonise", "hidden", "cut", "log_loss")
    others = [
        r
        for r in ("traditional", "linear_probe", "replace_best_cut")
        if any(test[r][k] != test["chosen"][k] for k in place)
    ]
    assert list(pairs) == others
    for role, row in pairs.items():
        assert row["difference"] == pytest.approx(test["chosen"]["accuracy"] - test[role]["accuracy"])
        assert row["p"] <= row["p_holm"] <= 1
    assert min(row["p_holm"] for row in pairs.values()) == pytest.approx(
        min(1.0, len(pairs) * min(row["p"] for row in pairs.values()))
    )


def test_the_choice_is_the_best_over_seeds_among_the_best_that_the_search_found_of_each_graft(full: Path) -> None:
    trials = [(json.loads(r[3]), json.loads(r[4])["validation"]) for r in rows(full) if r[2] == "trial"]
    candidates = {}
    for graft in DEFAULT_GRAFTS:
        searched = [t for t in trials if t[0]["configuration"]["graft"] == graft and t[0]["seed"] == 0]
        best, _ = max(searched, key=lambda t: (t[1]["accuracy"], -t[1]["log_loss"], t[0]["cut"]))
        confirmed = [v for s, v in trials if s["seed"] in (1, 2) and s | {"seed": 0} == best]
        assert len(confirmed) == 2
        accuracy, log_loss = (float(np.mean([v[name] for v in confirmed])) for name in ("accuracy", "log_loss"))
        candidates[graft] = (accuracy, -log_loss, best["cut"])
    chosen = results_of(full)["chosen"]
    assert chosen["graft"] == max(candidates, key=lambda graft: candidates[graft])
    assert (chosen["validation_accuracy"], chosen["cut"]["index"]) == candidates[chosen["graft"]][::2]


def test_with_one_seed_intervals_are_about_images_and_say_so(command: Command, tmp_path: Path) -> None:
    results = results_of(fitted(command, tmp_path / "run", *ONE))
    assert {row["interval_of"] for row in results["test"].values()} == {"images"}
    assert {row["of"] for row in [*results["paired"], results["kept_layer"]]} == {"images"}
    assert "over images)" in results["sentence"]


def test_with_two_seeds_intervals_are_about_images_and_seeds(full: Path) -> None:
    results = results_of(full)
    assert {role for role, row in results["test"].items() if row["interval_of"] == "images"} == {"model"}
    assert {row["of"] for row in [*results["paired"], results["kept_layer"]]} == {"images and seeds"}


# Adapted networks


@pytest.fixture(scope="module", params=[*DEFAULT_GRAFTS, "wa-cnn", "head2toe", "residual"])
def adapted(request: pytest.FixtureRequest, command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of one graft, harmonised by L2."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    options = ("--grafts", request.param, "--harmonise", "l2", "--cuts", "1", "--seeds", "1")
    return fitted(command, out, *QUICK, *options)


def test_the_delivered_model_predicts_what_was_tested(adapted: Path, place: Path) -> None:
    results = results_of(adapted)
    chosen = results["chosen"]
    with Ledger(adapted / "ledger.sqlite") as ledger:
        (record,) = [
            r for r in ledger.records("test")
            if r.subject["seed"] == results["test"]["model"]["seeds"][0] and r.subject["cut"] == chosen["cut"]["index"]
            and r.subject["configuration"] == {k: chosen[k] for k in ("graft", "harmonise", "hidden")}
            and r.subject["new_layer_learning_rate"] == chosen["new_layer_learning_rate"]
            and r.subject["learning_rate"] == chosen["learning_rate"]
        ]  # fmt: skip
    dataset = open_dataset(place / "images")
    predictions = api.load(adapted / "model").predict([place / "images" / item.path for item in dataset.test], top=3)
    again = np.array(
        [[dict(zip(p.classes, p.probabilities, strict=True))[c] for c in dataset.classes] for p in predictions]
    )
    assert np.abs(again - record.arrays["test"]).max() < 1e-5
    assert np.ptp(again, axis=0).max() > 0.01


def test_an_adapted_model_is_itself_a_source(adapted: Path, place: Path, tmp_path: Path) -> None:
    graft = results_of(adapted)["chosen"]["graft"]
    listed = inarch("stages", adapted / "model")
    assert listed.exit_code == 0, listed.said
    names = {line.split()[1] for line in listed.out.splitlines()[1:]}
    # What reads activations before the penultimate stage is one stage with it.
    second = graft if graft in ("wa-cnn", "head2toe") else "conv2"
    assert {"conv1", second, "classification-layer"} <= names
    assert ("source-classification-layer" in names) == (graft in ("retain", "deepen"))
    assert ("hidden1" in names) == (graft == "deepen")
    write_images(tmp_path / "more", a_class=12, classes=("dawn", "dusk"))
    out = tmp_path / "second"
    ran = inarch(
        "fit",
        tmp_path / "more",
        "--source",
        adapted / "model",
        "--out",
        out,
        *ONE[:-4],
        "--cuts",
        second,
        "--seeds",
        "1",
    )
    assert ran.exit_code == 0, ran.said
    card = json.loads((out / "model" / "card.json").read_text())
    assert [added["graft"] for added in card["adapted"]] == [graft, "retain"]
    assert card["classes"] == ["dawn", "dusk"]
    assert absolute_paths(json.dumps(card)) == []
    (prediction,) = api.load(out).predict([tmp_path / "more" / "dusk" / "0.png"])
    assert prediction.classes[0] in ("dawn", "dusk")


def test_the_model_folder_works_wherever_it_is_moved(full: Path, place: Path, tmp_path: Path) -> None:
    shutil.copytree(full / "model", tmp_path / "moved")
    image = place / "images" / "red" / "1.png"
    asked: dict[str, Any] = {"source_classes": True, "unknown": 0.5}
    assert api.load(tmp_path / "moved").predict([image], **asked) == api.load(full).predict([image], **asked)


def test_the_python_file_of_a_source_goes_with_the_model_and_a_changed_copy_is_refused(
    full: Path, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(full / "model", tmp_path / "model")
    copy = tmp_path / "model" / "toy.py"
    assert copy.read_bytes() == (place / "source" / "toy.py").read_bytes()
    marker = tmp_path / "ran"
    copy.write_text(copy.read_text() + f"\nopen({str(marker)!r}, 'w')\n")
    image = place / "images" / "red" / "1.png"
    ran = inarch("predict", tmp_path / "model", image)
    assert ran.exit_code == 1
    assert "'toy.py' is not the one it was written for" in ran.said
    assert not marker.exists()


# A full disk


def fill_the_ledger(patch: pytest.MonkeyPatch) -> None:
    """SQLite itself says that the disk is full, as soon as the ledger has grown to this many pages."""
    prepare = Ledger._prepare

    def small(ledger: Ledger) -> None:
        prepare(ledger)
        ledger._connection.execute("PRAGMA max_page_count = 14")

    patch.setattr(Ledger, "_prepare", small)


def fill_the_checkpoints(patch: pytest.MonkeyPatch) -> None:
    from inarch.network import weights

    save, calls = weights.save_file, iter(range(100))

    def full(state: Any, path: Path) -> None:
        if next(calls) == 6:
            path.write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, path)

    patch.setattr(weights, "save_file", full)


def fill_at_the_end(patch: pytest.MonkeyPatch) -> None:
    def full(stream: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr("inarch.results.folder.os.fsync", full)


@pytest.mark.parametrize("fill", [fill_the_ledger, fill_the_checkpoints, fill_at_the_end])
def test_on_a_full_disk_nothing_recorded_is_lost_and_the_same_command_goes_on(
    short: Path, command: Command, tmp_path: Path, fill: Callable[[pytest.MonkeyPatch], None]
) -> None:
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        fill(patch)
        ran = inarch(*command(out, *SHORT))
    assert ran.exit_code == 1
    assert "full" in ran.said or "No space left on device" in ran.said
    assert "othing recorded before is lost" in ran.said
    assert "Traceback" not in ran.said
    before = rows(out)
    assert len(before) >= 4
    assert not list(out.rglob("*.part"))
    fitted(command, out, *SHORT)
    assert rows(out)[: len(before)] == before
    assert without_cost(results_of(out)) == without_cost(results_of(short))
