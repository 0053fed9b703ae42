"""The execution plan of a whole study: decided at its first call, said, recorded, used again, and kept by the model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import ONE, Ran, inarch, rows, without_cost
from toy import write_images, write_source

import inarch as api
from inarch.data import open_dataset
from inarch.errors import SourceError
from inarch.features.plan import Plan
from inarch.launch.memory import within_budget
from inarch.launch.plan import Decision
from inarch.results.ledger import Ledger

FOUND = Decision(Plan("contiguous", "bf16", "fp32"), 1.9, 0.97)
OTHER = Decision(Plan("channels_last", "fp32", "bf16"), 1.0, 1.4)

pytestmark = pytest.mark.usefixtures("bf16_here")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy source (`source/toy.json`) and toy images (`images`)."""
    folder = tmp_path_factory.mktemp("place")
    write_source(folder / "source")
    write_images(folder / "images", a_class=20)
    return folder


@pytest.fixture
def fit(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """A short study in a folder of this name, with a cache of its own."""
    monkeypatch.setenv("INARCH_CACHE", str(tmp_path / "cache"))

    def run(name: str, *options: str) -> Ran:
        source = place / "source" / "toy.json"
        return inarch("fit", place / "images", "--source", source, "--out", tmp_path / name, *ONE, *options)

    return run


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is measured: `FOUND` at first, then `OTHER`. Holds the candidates of each measurement."""
    asked: list[Any] = []

    def measure(network: Any, staged: Any, images: Any, device: str, runners: Any, recomputed: Any) -> Decision:
        asked.append((tuple(images.shape), device, runners, recomputed))
        return FOUND if len(asked) == 1 else OTHER

    monkeypatch.setattr("inarch.environment.measured_plan", measure)
    return asked


def results_of(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def finished(ran: Ran) -> Ran:
    assert ran.exit_code == 0, ran.said
    return ran


Fit = Callable[..., Ran]


def test_what_was_measured_is_said_recorded_reported_and_part_of_every_trial(
    fit: Fit, measured: list[Any], tmp_path: Path
) -> None:
    ran = finished(fit("run"))
    sentence = (
        "Execution plan: contiguous, frozen stages in bf16 (1.9 times as fast), trained ones in fp32 (0.97 times as "
        "fast), as measured against channels last in fp32."
    )
    assert ran.said.count(sentence) == 1
    results = results_of(tmp_path / "run")
    assert results["cost"]["environment"]["plan"] == FOUND.to_json()
    assert isinstance(results["cost"]["environment"]["allocator_keeps_memory"], bool)
    assert sentence in " ".join((tmp_path / "run" / "report.html").read_text().split())
    subjects = [json.loads(row[3]) for row in rows(tmp_path / "run") if row[2] == "trial"]
    assert {(s["settings"]["precision"], s["settings"]["frozen_precision"]) for s in subjects} == {("fp32", "bf16")}
    assert [(shape, device) for shape, device, *_ in measured] == [((16, 3, 16, 16), "cpu")]
    assert len(measured[0][2]) == 4


def test_two_folders_on_one_machine_get_the_same_plan_and_the_same_results(
    fit: Fit, measured: list[Any], tmp_path: Path
) -> None:
    finished(fit("one"))
    finished(fit("two"))
    assert len(measured) == 1
    one, two = (results_of(tmp_path / name) for name in ("one", "two"))
    assert one["cost"]["environment"] == two["cost"]["environment"]
    assert without_cost(one) == without_cost(two)
    for name in ("card.json", "model.safetensors"):
        assert (tmp_path / "one" / "model" / name).read_bytes() == (tmp_path / "two" / "model" / name).read_bytes()


def test_a_tight_budget_of_memory_changes_what_is_said_of_the_plan_and_no_result(
    fit: Fit, measured: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(fit("ample"))
    with monkeypatch.context() as patch:
        patch.setattr("inarch.environment.within_budget", partial(within_budget, budget=1))
        ran = finished(fit("tight"))
    said = "training computes activations of the first stage twice, which changes no result."
    assert said in ran.said
    ample, tight = (results_of(tmp_path / name) for name in ("ample", "tight"))
    plans = [results["cost"]["environment"]["plan"] for results in (ample, tight)]
    assert [plan["recomputed"] for plan in plans] == [0, 1]
    assert without_cost(ample) == without_cost(tight)
    assert said in " ".join((tmp_path / "tight" / "report.html").read_text().split())
    # What was recorded is used again, whatever the budget says now.
    assert "Execution plan" not in finished(fit("tight")).said


def test_every_precision_is_measured_with_the_stages_that_its_memory_takes(
    fit: Fit, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bounded(plan: Plan, *_: object) -> Plan:
        return replace(plan, recomputed={"fp32": 2, "bf16": 1}[plan.trained])

    monkeypatch.setattr("inarch.environment.within_budget", bounded)
    finished(fit("run"))
    assert [recomputed for *_, recomputed in measured] == [{"fp32": 2, "bf16": 1}]


def test_a_precision_in_which_the_network_cannot_be_counted_is_not_measured(
    fit: Fit, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bounded(plan: Plan, *_: object) -> Plan:
        if plan.trained == "bf16":
            raise RuntimeError("index_add_(): self (Float) and source (BFloat16) must have the same scalar type")
        return plan

    monkeypatch.setattr("inarch.environment.within_budget", bounded)
    finished(fit("run"))
    ((_, _, runners, recomputed),) = measured
    assert {precision for _, precision in runners} == {"fp32"}
    assert recomputed == {"fp32": 0}


def test_a_run_goes_on_with_its_recorded_plan_whatever_the_cache_says(
    fit: Fit, measured: list[Any], tmp_path: Path
) -> None:
    finished(fit("run"))
    before = rows(tmp_path / "run")
    shutil.rmtree(tmp_path / "cache")
    finished(fit("other"))  # measured anew, and now the cache holds another plan
    assert results_of(tmp_path / "other")["cost"]["environment"]["plan"]["trained"] == "bf16"
    again = finished(fit("run"))
    assert "Execution plan" not in again.said
    assert len(measured) == 2
    assert rows(tmp_path / "run") == before
    assert results_of(tmp_path / "run")["cost"]["environment"]["plan"]["frozen"] == "bf16"


def test_another_batch_or_image_size_or_number_of_threads_is_measured_for_itself(
    fit: Fit, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopHereError(Exception):
        pass

    def stop(*arguments: Any, **options: Any) -> None:
        raise StopHereError

    monkeypatch.setattr("inarch.study.PrefixStore", stop)
    for number, options in enumerate(
        ((), ("--batch-size", "8"), ("--image-size", "20"), ("--threads", "2"), ("--precision", "fp32")), start=1
    ):
        for name in ("a", "b"):
            with pytest.raises(StopHereError):
                fit(f"{name}{number}", *options)
        assert len(measured) == number
    assert [shape for shape, *_ in measured[:3]] == [(16, 3, 16, 16), (8, 3, 16, 16), (16, 3, 20, 20)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_that_was_asked_for_is_that_of_everything(fit: Fit, tmp_path: Path, precision: str) -> None:
    ran = finished(fit("run", "--precision", precision))
    results = results_of(tmp_path / "run")
    plan = results["cost"]["environment"]["plan"]
    assert (plan["frozen"], plan["trained"]) == (precision, precision)
    assert (results["settings"]["precision"], results["settings"]["frozen_precision"]) == (precision, precision)
    assert f"frozen stages in {precision}" in ran.said
    assert ("times as fast" in ran.said or "faster by a tenth" in ran.said) == (precision == "fp32")


def test_auto_is_what_nobody_asked_for_and_another_precision_is_another_run(fit: Fit) -> None:
    finished(fit("run", "--precision", "auto"))
    finished(fit("run"))
    refused = fit("run", "--precision", "fp32")
    assert refused.exit_code == 1
    assert 'precision was "auto", now "fp32"' in refused.said


def test_bf16_where_there_is_none_is_refused_before_any_work(fit: Fit, no_bf16_here: None, tmp_path: Path) -> None:
    ran = fit("run", "--precision", "bf16")
    assert ran.exit_code == 2
    assert "--precision bf16: this machine has no bf16 arithmetic on device cpu." in ran.said
    assert "Leave --precision away, or give fp32." in ran.said
    assert rows(tmp_path / "run") == []


def test_a_run_begun_in_bf16_is_not_continued_in_another_precision(
    fit: Fit, measured: list[Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    finished(fit("run"))
    before = rows(tmp_path / "run")
    request.getfixturevalue("no_bf16_here")
    ran = fit("run")
    assert ran.exit_code == 2
    assert "This run was begun in bf16: this machine has no bf16 arithmetic on device cpu." in ran.said
    assert rows(tmp_path / "run") == before


def test_a_cache_that_cannot_be_written_ends_no_study(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    ran = finished(fit("run"))
    assert "could not be kept" in ran.said


# The delivered model


@pytest.fixture
def mixed(fit: Fit, measured: list[Any], tmp_path: Path) -> Path:
    """A finished run whose frozen stages compute in bf16 and the rest in fp32."""
    finished(fit("mixed"))
    return tmp_path / "mixed"


def probabilities_of(run: Path, images: Path) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [images, classes] of the model's test, and what the model folder predicts for these images."""
    results = results_of(run)
    with Ledger(run / "ledger.sqlite") as ledger:
        (record,) = [
            r for r in ledger.records("test")
            if r.subject["configuration"]["graft"] == results["chosen"]["graft"]
            and r.subject["cut"] == results["chosen"]["cut"]["index"]
            and r.subject["seed"] == results["test"]["model"]["seeds"][0]
        ]  # fmt: skip
    dataset = open_dataset(images)
    found = api.load(run).predict([images / item.path for item in dataset.test], top=3)
    again = [[dict(zip(p.classes, p.probabilities, strict=True))[c] for c in dataset.classes] for p in found]
    return record.arrays["test"], np.array(again)


def test_a_model_tested_with_frozen_stages_in_bf16_predicts_the_same(mixed: Path, place: Path) -> None:
    card = json.loads((mixed / "model" / "card.json").read_text())
    cut = results_of(mixed)["chosen"]["cut"]["index"]
    assert card["arithmetic"] == FOUND.plan.to_json() | {"frozen_stages": cut}
    tested, predicted = probabilities_of(mixed, place / "images")
    assert np.abs(tested - predicted).max() < 1e-5
    file = mixed / "model" / "card.json"
    for other in ({"frozen": "fp32"}, {"trained": "bf16"}, {"frozen_stages": 0}):
        file.write_text(json.dumps(card | {"arithmetic": card["arithmetic"] | other}))
        assert np.abs(tested - probabilities_of(mixed, place / "images")[1]).max() > 1e-5, other


def test_where_there_is_no_bf16_the_model_computes_in_fp32_and_says_so(
    mixed: Path, place: Path, no_bf16_here: None
) -> None:
    ran = inarch("predict", mixed, place / "images" / "red" / "0.png")
    assert ran.exit_code == 0
    assert "was tested in bf16, which device cpu lacks: it computes in fp32 here." in ran.said


@pytest.mark.parametrize(
    "damage", [{"frozen": "fp8"}, {"frozen_stages": 99}, {"frozen_stages": "many"}, {"memory_format": None}]
)
def test_a_card_whose_arithmetic_cannot_be_meant_is_refused(mixed: Path, damage: dict[str, Any]) -> None:
    file = mixed / "model" / "card.json"
    card = json.loads(file.read_text())
    file.write_text(json.dumps(card | {"arithmetic": card["arithmetic"] | damage}))
    with pytest.raises(SourceError, match="'arithmetic' cannot be read"):
        api.load(mixed)


def test_a_model_card_from_before_plans_still_loads(mixed: Path, place: Path) -> None:
    file = mixed / "model" / "card.json"
    card = json.loads(file.read_text())
    del card["arithmetic"]
    file.write_text(json.dumps(card))
    (prediction,) = api.load(mixed).predict([place / "images" / "red" / "0.png"])
    assert prediction.error is None


def test_an_adapted_model_is_a_source_whose_arithmetic_is_its_own(mixed: Path, place: Path, tmp_path: Path) -> None:
    ran = inarch("fit", place / "images", "--source", mixed / "model", "--out", tmp_path / "second", *ONE)
    assert ran.exit_code == 0, ran.said
    card = json.loads((tmp_path / "second" / "model" / "card.json").read_text())
    assert (card["arithmetic"]["frozen"], card["arithmetic"]["trained"]) == (OTHER.plan.frozen, OTHER.plan.trained)
    tested, predicted = probabilities_of(tmp_path / "second", place / "images")
    assert np.abs(tested - predicted).max() < 1e-5
