"""What is added to the usual training (`--augmentation`, `--mixup`, `--ema`), and soups, in whole studies."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from program import ONE, inarch, rows, running, without_cost
from toy import write_images, write_source
from workbench import SETTINGS

import inarch as api
from inarch.data import AUGMENTATIONS
from inarch.errors import UsageError
from inarch.features.plan import Plan
from inarch.features.shelf import Shelf
from inarch.network.grafts import Configuration
from inarch.options import StudyOptions
from inarch.results.ledger import Ledger
from inarch.training.trial import Trial

ADDED = ("--augmentation", "randaugment", "--mixup", "0.2", "--ema", "0.9")
STUDY = (*ONE, "--epochs", "2", *ADDED, "--method", "soup")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_source(folder)
    write_images(folder / "images", a_class=12)
    return folder


def fit(place: Path, out: Path, *options: str) -> list[str | Path]:
    store = ("--store", out.parent / "store") if "--store" not in options else ()
    return ["fit", place / "images", "--source", place / "toy.json", "--out", out, *store, *options]


@pytest.fixture(scope="module")
def finished(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study with everything added; tests only read it."""
    out = tmp_path_factory.mktemp("finished") / "run"
    ran = inarch(*fit(place, out, *STUDY))
    assert ran.exit_code == 0, ran.said
    return out


def results_of(folder: Path, name: str = "results.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found


def test_every_trial_and_the_results_say_what_was_added_and_the_report_says_it_in_words(finished: Path) -> None:
    with Ledger(finished / "ledger.sqlite") as ledger:
        subjects = [record.subject for record in ledger.records("trial")]
        soups = [r for r in ledger.records("trial") if r.subject["method"] == "soup"]
    for settings in (*(subject["settings"] for subject in subjects), results_of(finished)["settings"]):
        assert (settings["mixup"], settings["ema"]) == (0.2, 0.9)
        assert settings["augmentation"]["operations"] == 2
    assert soups
    assert all(len(record.outcome["members"]) == 3 for record in soups)
    page = (finished / "report.html").read_text()
    for words in (
        "RandAugment (2 operations of magnitude 9 of 30)", "mixup (alpha 0.2)", "manifold mixup",
        "moving average of the weights (decay 0.9)",
        "Trainings whose weights were averaged, for each seed: the choice:",
    ):  # fmt: skip
        assert words in page
    assert all(word in results_of(finished)["cost"]["command"] for word in ADDED)


def test_killed_elsewhere_and_called_again_it_comes_to_the_same(place: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    # Within the second member of a soup, too.
    for moment in (("inarch.training.fit:_once", 6), ("inarch.results.ledger:Ledger.add_all", 4)):
        with running(*fit(place, out, *STUDY), die_at=moment) as child:
            child.join(120)
            assert child.exitcode == -signal.SIGKILL, f"{moment} was not met"
    before = rows(out)
    ran = inarch(*fit(place, out, *STUDY))
    assert ran.exit_code == 0, ran.said
    assert rows(out)[: len(before)] == before
    assert without_cost(results_of(out)) == without_cost(results_of(finished))
    weights = "model/model.safetensors"
    assert (out / weights).read_bytes() == (finished / weights).read_bytes()


def test_views_made_otherwise_are_stored_apart_and_what_is_stored_changes_nothing(place: Path, tmp_path: Path) -> None:
    found = {}
    for augmentation in ("crop-flip", "randaugment"):
        options = (*ONE, "--augmentation", augmentation, "--store", str(tmp_path / "store"))
        for name, also in (("stored", ()), ("read", ()), ("anew", ("--store-limit", "0"))):
            out = tmp_path / augmentation / name
            ran = inarch(*fit(place, out, *options, *also))
            assert ran.exit_code == 0, ran.said
            found[augmentation, name] = results_of(out)["test"], len(Shelf(tmp_path / "store").entries())
    for augmentation in ("crop-flip", "randaugment"):
        tests, counts = zip(*(found[augmentation, name] for name in ("stored", "read", "anew")), strict=True)
        assert tests[0] == tests[1] == tests[2]
        assert counts[0] == counts[1] == counts[2] > 0
    assert found["randaugment", "stored"][1] == 2 * found["crop-flip", "stored"][1]
    assert found["randaugment", "stored"][0] != found["crop-flip", "stored"][0]


def test_soup_and_additions_in_a_comparison(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ran = inarch(
        "compare", place / "images", "--source", place / "toy.json", "--out", out, "--methods", "fine-tuning,soup",
        "--grafts", "retain", "--harmonise", "none", "--shots", "4", "--trials", "2", "--seeds", "2", "--epochs", "2",
        "--batch-size", "8", "--threads", "1", "--store", tmp_path / "store", *ADDED,
    )  # fmt: skip
    assert ran.exit_code == 0, ran.said
    results = results_of(out, "comparison.json")
    assert {row["name"] for row in results["sizes"][0]["contestants"]} >= {"fine-tuning, retain", "soup, retain"}
    assert {row["tuning_trials"] for row in results["sizes"][0]["contestants"]} == {2}
    assert (results["settings"]["mixup"], results["settings"]["ema"]) == (0.2, 0.9)
    assert "RandAugment (2 operations" in (out / "report.html").read_text()
    with Ledger(out / "ledger.sqlite") as ledger:
        of_soup = [r for r in ledger.records("trial") if r.subject["method"] == "soup"]
    assert all(("members" in r.outcome) is (r.subject["learning_rate"] > 0) for r in of_soup)
    assert any("members" in r.outcome for r in of_soup)


def test_from_python_the_same_words_mean_the_same(place: Path, finished: Path) -> None:
    results = api.fit(
        place / "images", source=place / "toy.json", out=finished, store=finished.parent / "store", epochs=2,
        batch_size=16, hidden=8, threads=1, grafts="retain", harmonise="none", cuts=1, seeds=1,
        augmentation="randaugment", mixup="0.2", ema=0.9, method="soup",
    )  # fmt: skip
    assert results["cost"]["trials_this_call"] == 0
    with pytest.raises(UsageError, match="--ema much is not a number"):
        api.fit(place / "images", source=place / "toy.json", out=finished, ema="much")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mixup", "0.2", "--method", "bi-tuning"), "bi-tuning compares images by their one label, and mixup (0.2)"),
        (("--mixup", "-1"), "mixup is -1.0. Give alpha, such as 0.2"),
        (("--ema", "1"), "ema is 1.0. Give a decay below 1"),
        (("--classifier-start", "-1"), "classifier_start is -1.0. Give 0.01, or 1 for PyTorch's initial weights"),
    ],
)
def test_what_cannot_be_meant_is_refused(place: Path, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    ran = inarch(*fit(place, tmp_path / "run", *ONE, *options))
    assert ran.exit_code == 2
    assert said in ran.said
    assert not (tmp_path / "run").exists()


def test_what_is_not_added_names_nothing_so_that_older_trials_and_run_folders_go_on() -> None:
    trial = Trial(Configuration("retain", "l2"), 1, "fine-tuning", 0.01, 0.05, 1, SETTINGS)
    # The key of this trial before there was anything to add.
    assert trial.key == "d8079491a310eeac5a0ac7a2"
    assert not {"augmentation", "mixup", "ema"} & StudyOptions().identity().keys()
    assert StudyOptions().additions() == {}
    everything = StudyOptions(augmentation="randaugment", mixup=1, ema=0.5)
    assert everything.identity().keys() >= {"augmentation", "mixup", "ema"}
    assert everything.additions() == {"augmentation": AUGMENTATIONS["randaugment"].to_json(), "mixup": 1.0, "ema": 0.5}


def test_a_number_is_the_same_setting_whether_it_is_whole_or_not() -> None:
    def written(options: StudyOptions) -> str:
        return json.dumps(options.settings(2, Plan()).to_json())

    whole = StudyOptions(label_smoothing=0, mixup=1, ema=0, classifier_start=1)
    assert written(whole) == written(replace(whole, label_smoothing=0.0, mixup=1.0, ema=0.0, classifier_start=1.0))
