"""Whole comparisons on toy images with a toy network, from the command line."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from program import absolute_paths, inarch, rows, running, without_cost
from torch import nn
from toy import write_images, write_source

import inarch as api
from inarch.errors import UsageError
from inarch.features.passes import Passes
from inarch.launch.here import Workbench
from inarch.results.comparison import validate_comparison
from inarch.results.ledger import Ledger
from inarch.training.fit import OutOfTimeError, Watch
from inarch.training.trial import Trial

SMALL = (
    "--methods", "fine-tuning,l2-sp", "--grafts", "replace,retain", "--harmonise", "none", "--shots", "4,all",
    "--trials", "3", "--seeds", "2", "--epochs", "2", "--batch-size", "8", "--threads", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_source(folder / "source")
    write_images(folder / "images", a_class=16)
    return folder


def command(place: Path, out: Path, *options: str) -> list[str | Path]:
    return ["compare", place / "images", "--source", place / "source" / "toy.json", "--out", out, *(options or SMALL)]


@pytest.fixture(scope="module")
def finished(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison; tests only read it."""
    out = tmp_path_factory.mktemp("finished") / "run"
    ran = inarch(*command(place, out))
    assert ran.exit_code == 0, ran.said
    assert "traditional" in ran.out
    return out


def results_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "comparison.json").read_text())
    return found


def test_everybody_is_tested_on_every_size_of_draw_and_compared_with_traditional_fine_tuning(finished: Path) -> None:
    results = results_of(finished)
    validate_comparison(results)
    assert not absolute_paths((finished / "comparison.json").read_text())
    assert [size["shots"] for size in results["sizes"]] == [4, None]
    names = {"traditional", "fine-tuning, replace", "fine-tuning, retain", "l2-sp, replace", "l2-sp, retain"}
    for size in results["sizes"]:
        assert size["finished"]
        assert {row["name"] for row in size["contestants"]} == names
        assert {row["name"] for row in size["paired"]} == names - {"traditional"}
        accuracy = {row["name"]: row["accuracy"] for row in size["contestants"]}
        for row in size["paired"]:
            assert row["difference"] == pytest.approx(accuracy[row["name"]] - accuracy["traditional"])
            assert row["p"] <= row["p_holm"]
        assert all(row["seeds"] == [1, 2] for row in size["contestants"])
        assert all(row["tuning_trials"] == 3 for row in size["contestants"])
        assert size["failed"] == []
    assert results["sizes"][0]["counts"] == {"train": 12, "validation": 6, "test": 9}
    assert {row["name"] for row in results["ranks"]} == names


def test_the_report_says_and_draws_it(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert results_of(finished)["sentence"].split(";")[0] in page
    # For each of two sizes the accuracies and the differences; the bars beside classes come on top.
    assert page.count("<svg") - page.count('<svg class="bar"') == 4
    (finished / "report.html").unlink()
    ran = inarch("report", finished)
    assert ran.exit_code == 0, ran.said
    assert (finished / "report.html").read_text() == page


def test_what_is_compared_is_validated_once(finished: Path) -> None:
    with Ledger(finished / "ledger.sqlite") as ledger:
        assert {len(record.outcome["epochs"]) for record in ledger.records("trial")} == {0}


def test_a_draw_is_what_was_trained_and_validated_on(finished: Path) -> None:
    with Ledger(finished / "ledger.sqlite") as ledger:
        drawn = [r for r in ledger.records("trial") if r.subject.get("shots") == 4]
        whole = [r for r in ledger.records("trial") if "shots" not in r.subject]
    assert {len(r.arrays["validation"]) for r in drawn} == {6}
    assert {len(r.arrays["validation"]) for r in whole} == {6}
    assert len({r.subject["seed"] for r in drawn}) == 3


def test_the_same_comparison_elsewhere_and_after_kills_gives_the_same(
    place: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for call in (2, 9):
        with running(*command(place, out), die_at=("inarch.launch.here:Workbench.run", call)) as child:
            child.join(120)
            assert child.exitcode == -signal.SIGKILL
    before = rows(out)
    assert before
    ran = inarch(*command(place, out))
    assert ran.exit_code == 0, ran.said
    assert rows(out)[: len(before)] == before
    assert without_cost(results_of(out)) == without_cost(results_of(finished))


def test_the_frozen_network_is_held_once_for_all_draws(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Sequence[nn.Module]] = []
    made = Passes.__init__

    def noted(passes: Passes, *given: Any) -> None:
        made(passes, *given)
        held.append(passes.chain)

    monkeypatch.setattr(Passes, "__init__", noted)
    few = ("--methods", "fine-tuning", "--grafts", "replace", "--trials", "1", "--seeds", "1", "--epochs", "1")
    ran = inarch(*command(place, tmp_path / "run", *few, "--harmonise", "none", "--shots", "4,all", "--threads", "1"))
    assert ran.exit_code == 0, ran.said
    assert len(held) >= 4, "two draws of two sizes"
    assert all(chain is held[0] for chain in held)


def test_a_time_limit_leaves_out_what_does_not_fit_and_the_same_command_goes_on(
    place: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = tmp_path / "run", 0
    run = Workbench.run

    def until_the_time_is_up(bench: Workbench, batch: tuple[Trial, ...], watch: Watch) -> Any:
        nonlocal calls
        calls += 1
        # Of the second draw with four images a class some are trained, and nothing with all.
        if calls > 21:
            raise OutOfTimeError
        return run(bench, batch, watch)

    with monkeypatch.context() as patch:
        patch.setattr(Workbench, "run", until_the_time_is_up)
        ran = inarch(*command(place, out, *SMALL, "--time-limit", "10m"))
    assert ran.exit_code == 0, ran.said
    assert "the same command goes on" in ran.said
    results = results_of(out)
    trials = [row for row in rows(out) if row[2] == "trial"]
    assert len(trials) == 21
    (size,) = (size for size in results["sizes"] if size["contestants"])
    assert (size["shots"], size["finished"]) == (4, False)
    # On one draw all were compared, and what the second draw has is not compared with what it lacks.
    assert len(size["contestants"]) == 5
    assert results["left_out"]
    ran = inarch(*command(place, out))
    assert ran.exit_code == 0, ran.said
    assert results_of(out)["left_out"] == []
    assert without_cost(results_of(out)) == without_cost(results_of(finished))


def test_one_draw_settles_nothing_and_a_draw_that_is_larger_than_classes_says_so(place: Path, tmp_path: Path) -> None:
    one = (
        "--methods", "fine-tuning", "--grafts", "retain", "--harmonise", "none", "--shots", "99", "--trials", "1",
        "--seeds", "1", "--epochs", "1", "--batch-size", "8", "--threads", "1",
    )  # fmt: skip
    ran = inarch(*command(place, tmp_path / "run", *one))
    assert ran.exit_code == 0, ran.said
    assert "--shots 99: 3 of 3 classes have fewer training images, and give all that they have." in ran.said
    assert "1 of 1 others cannot be told from it, as one draw says nothing of others." in ran.out


def test_a_time_limit_that_leaves_room_for_nothing_says_so(place: Path, tmp_path: Path) -> None:
    ran = inarch(*command(place, tmp_path / "run", *SMALL, "--time-limit", "1s"))
    assert ran.exit_code == 2
    assert "time limit ended before" in ran.said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--methods", "magic"), "--methods magic is not known"),
        (("--methods", ""), "--methods names no method"),
        (("--methods", "l2-sp", "--shots", "few"), "--shots few: not a number of images"),
        (("--methods", "l2-sp", "--shots", ""), "--shots names nothing"),
        (("--methods", "l2-sp", "--trials", "10"), "--trials 10 is more than traditional fine-tuning has settings"),
        (("--methods", "l2-sp", "--trials", "0"), "--trials 0 is too small"),
    ],
)
def test_what_cannot_be_meant_is_refused(place: Path, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    ran = inarch(*command(place, tmp_path / "run", *options))
    assert ran.exit_code == 2
    assert words in ran.said


@pytest.mark.parametrize("options", [{"cuts": "1"}, {"method": "l2-sp"}])
def test_options_of_fit_that_a_comparison_has_no_use_for_are_refused(
    place: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match=f"compare has no option '{next(iter(options))}'"):
        api.compare(
            place / "images", source=place / "source" / "toy.json", out=tmp_path / "run", methods="l2-sp", **options
        )


def test_a_run_folder_of_another_comparison_is_refused(place: Path, finished: Path) -> None:
    ran = inarch(*command(place, finished, *SMALL, "--trials", "4"))
    assert ran.exit_code == 1
    assert "trials was 3, now 4" in ran.said


def test_from_python_with_the_same_words(place: Path, finished: Path) -> None:
    results = api.compare(
        place / "images", source=place / "source" / "toy.json", out=finished, methods="fine-tuning,l2-sp",
        grafts=("replace", "retain"), harmonise="none", shots=[4, "all"], trials=3, seeds=2, epochs=2, batch_size=8,
        threads=1,
    )  # fmt: skip
    assert results["cost"]["trials_this_call"] == 0
    assert results["sentence"] == results_of(finished)["sentence"]
