"""The page of a comparison: what it says of the best, what it draws, and that older comparisons still have one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inarch.report import write_report
from inarch.report.run import Run
from inarch.report.sections import compared


def test_with_one_draw_nothing_is_called_beyond_chance(comparison: dict[str, Any]) -> None:
    for size in comparison["sizes"]:
        for row in size["paired"]:
            row["of"] = "images"
    text = compared.answer(Run(comparison)).text
    assert text[2].endswith("which can be chance.")


def test_the_best_of_each_size_is_named_with_what_chance_allows(comparison: dict[str, Any]) -> None:
    comparison["sizes"][1]["paired"][1]["p_holm"] = 0.06
    text = compared.answer(Run(comparison)).text
    assert text[0] == "mobilenetv2_100.in1k, on 10 classes of fruit."
    assert text[2:4] == [
        "The best with 5 a class: l2-sp, retain, +20.0 points against traditional fine-tuning (95 % interval +5.0 to "
        "+35.0), beyond chance.",
        "The best with all 50: l2-sp, retain, +20.0 points against traditional fine-tuning (95 % interval +5.0 to "
        "+35.0), which can be chance.",
    ]


def test_a_best_that_is_worse_beyond_chance_is_not_called_chance(comparison: dict[str, Any]) -> None:
    for row in comparison["sizes"][0]["paired"]:
        row |= {"difference": -0.083, "interval95": [-0.101, -0.065], "p_holm": 0.001, "of": "images and draws"}
    assert compared.answer(Run(comparison)).text[2].endswith(", worse beyond chance.")


def test_accuracy_and_difference_stand_side_by_side_for_each_size(comparison: dict[str, Any]) -> None:
    section = compared.differences(Run(comparison))
    assert section is not None
    panels = section.figures[0].panels
    assert [panel.description.split(":")[0] for panel in panels] == [
        "Test accuracy, 5 a class", "5 a class", "Test accuracy, all 50", "all 50",
    ]  # fmt: skip
    assert "l2-sp, retain: 80.0 %, interval 77.0 to 83.0 %; co-tuning, replace: 70.0 %" in panels[0].description
    assert panels[1].description.endswith("co-tuning, replace: +10.0 points, interval \N{MINUS SIGN}5.0 to +25.0.")


def test_what_failed_to_train_is_named(comparison: dict[str, Any]) -> None:
    assert "5 a class: delta, retain failed to train on a draw." in compared.accuracies(Run(comparison)).text


def test_a_comparison_of_an_older_version_is_drawn_and_says_what_it_lacks(
    comparison: dict[str, Any], tmp_path: Path
) -> None:
    for size in comparison["sizes"]:
        del size["failed"]
        for row in size["contestants"]:
            del row["tuning_trials"]
    (tmp_path / "comparison.json").write_text(json.dumps(comparison), encoding="utf-8")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "this version of Inarch did not record what failed to train" in page
    assert page.count("not recorded</td>") == 6
