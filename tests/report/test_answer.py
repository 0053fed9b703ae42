"""The answer in plain words, and the test behind it."""

from __future__ import annotations

from typing import Any

import pytest

from inarch.report.run import Run
from inarch.report.sections import answer, tested


@pytest.mark.parametrize("name", ["graft", "harmonise", "hidden", "cut"])
def test_a_tested_configuration_that_is_not_whole_is_left_blank(run: Run, name: str) -> None:
    del run.results["test"]["traditional"][name]
    (table,) = tested.section(run).tables
    shown = {row[0]: row[-2:] for row in table.rows}
    assert shown["Traditional fine-tuning of all layers"] == ["", ""]
    assert shown["The choice"][0] == "deepen 512, l2"


def test_of_one_seed_the_choice_and_the_delivered_model_are_one_row(run: Run) -> None:
    assert "The delivered model (first seed of the choice)" in [row[0] for row in tested.section(run).tables[0].rows]
    run.results["test"]["chosen"]["seeds"] = [1]
    assert [row[0] for row in tested.section(run).tables[0].rows][:2] == [
        "The choice",
        "Traditional fine-tuning of all layers",
    ]


def test_the_picture_of_accuracies_names_the_best_of_a_graft_that_is_the_choice(run: Run) -> None:
    test = run.results["test"]
    test["deepen_best_cut"] = test["chosen"]
    svg = str(tested.section(run).figures[0].panels[0].svg)
    assert "Deepen, best cut (the choice)" in svg
    assert ">Joined, best cut<" in svg
    assert "88.9 % (85.9 to 91.9 %)" in svg


def test_the_same_configuration_trained_otherwise_is_not_called_the_choice(run: Run) -> None:
    test = run.results["test"]
    test["deepen_best_cut"] = test["chosen"] | {"method": "soup", "accuracy": 0.91}
    assert "Deepen, best cut (the choice)" not in str(tested.section(run).figures[0].panels[0].svg)


def test_seeds_that_failed_are_said(run: Run) -> None:
    run.results["test"]["traditional"] |= {"failed_seeds": 1, "confirmed": True}
    run.results["test"]["linear_probe"] |= {"failed_seeds": 0, "confirmed": False, "seeds": [0]}
    section = tested.section(run)
    column = section.tables[0].columns.index("Seeds")
    seeds = {row[0]: row[column] for row in section.tables[0].rows}
    assert seeds["Traditional fine-tuning of all layers"] == "3 (1 failed)"
    assert seeds["Linear probe (nothing old trained)"] == "1 (the search's)"
    assert seeds["The choice"] == "3"
    assert "a training failed with some of its seeds" in section.text[-1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"searched_in_full": False}, "so far a difference of +2.4 points; time was too short to search both alike."),
        ({"of": "images"}, "more than the choice of test images explains, while other seeds were not tried."),
    ],
)
def test_a_verdict_against_the_usual_way_says_what_it_lacks(
    results: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    results["paired"][0] |= changes
    assert said in answer.lead(results)[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"interval95": [0.001, 0.03]}, "Keeping the network's old last layer instead of throwing it away helped."),
        ({"interval95": [-0.03, -0.001]}, "did harm."),
        ({}, "made no difference that these images can show."),
        ({"tuned_alike": False}, "helps is not settled: the two were not given the same search."),
        ({"kept": None, "reason": "None was tried."}, "helps was not compared."),
    ],
)
def test_the_answer_says_in_plain_words_what_came_of_keeping_the_layer(
    results: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    results["kept_layer"] |= changes
    assert answer.lead(results)[-1].endswith(said)


def test_the_answer_says_in_plain_words_how_good_and_against_what(results: dict[str, Any]) -> None:
    good, against, _ = answer.lead(results)
    assert good == (
        "In the long run about 89 of 100 images like those of the test are named correctly; with 372 test images to "
        "judge by, it may be anything from 86 to 92."
    )
    assert against.endswith("is right on 86.5 %: the choice is better by 2.4 points, more than chance explains.")
    results["paired"][0]["interval95"] = [-0.01, 0.05]
    assert answer.lead(results)[1].endswith("a difference of 2.4 points, which can be chance.")
    results["paired"] = []
    assert len(answer.lead(results)) == 2


def test_what_is_adapted_to_what_stands_below_the_heading(run: Run) -> None:
    assert answer.section(run).values["about"] == "mobilenetv2_100.in1k, adapted to the 10 classes of my fruit."
    del run.results["cost"]["command"]
    assert answer.section(run).values["about"] == "mobilenetv2_100.in1k, adapted to 10 classes."
