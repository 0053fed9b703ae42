"""What each section shows, against figures worked out by hand."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from inarch.report import forest
from inarch.report.drawing import WIDTH
from inarch.report.run import Run
from inarch.report.sections import (
    confusion,
    depth,
    glance,
    learning,
    mistakes,
    per_class,
    reliability,
    source_classes,
    tested,
    unknown,
)
from inarch.results.statistics import accuracy_interval


def test_confusions_come_largest_first_and_with_their_share_of_the_true_class(run: Run) -> None:
    section = confusion.section(run)
    assert section is not None
    apple, pear = run.classes[:2]
    assert section.values["list"].rows == [
        [f"{apple} \N{RIGHTWARDS ARROW} {pear}", "4", "4 of 10 (40.0 %)"],
        [f"{pear} \N{RIGHTWARDS ARROW} class 0", "2", "2 of 10 (20.0 %)"],
        [f"{pear} \N{RIGHTWARDS ARROW} {apple}", "1", "1 of 10 (10.0 %)"],
    ]
    lead = (
        f"The delivered model is wrong on 7 of the 20 test images. Its largest confusion: {apple} taken for {pear}, 4"
    )
    assert section.text[0].startswith(lead)


def test_equal_confusions_are_ordered_by_their_share() -> None:
    counts = np.array([[8, 2, 0], [0, 2, 2], [1, 0, 9]])
    assert confusion.largest(counts) == [(1, 2, 2), (0, 1, 2), (2, 0, 1)]


def test_the_matrix_holds_every_image_once_and_confused_classes_side_by_side(run: Run) -> None:
    section = confusion.section(run)
    assert section is not None
    assert sum(cell.images for cell in section.values["cells"]) == 20
    names = section.values["names"]
    assert sorted(names) == sorted(run.classes)
    assert section.values["left"] == 10 + 7 * len("pear & <b>quince</b>")
    assert abs(names.index(run.classes[0]) - names.index(run.classes[1])) == 1
    for cell in section.values["cells"]:
        assert cell.title.startswith(f"{names[cell.row]} taken for {names[cell.column]}: {cell.images} of 10")
        assert cell.share == cell.images / 10


def test_a_long_name_is_shortened_to_what_fits_beside_the_matrix() -> None:
    assert confusion.label("x" * 28) == "x" * 28
    assert confusion.label("x" * 29) == "x" * 27 + "\N{HORIZONTAL ELLIPSIS}"
    assert confusion.columns(confusion.label("\N{CJK UNIFIED IDEOGRAPH-82F9}" * 40)) <= 28


def test_of_hundreds_of_classes_the_matrix_shows_those_with_most_errors() -> None:
    counts = np.diag(np.full(300, 5))
    counts[7, 250] = 3
    shown = confusion.shown_classes(counts)
    assert len(shown) == confusion.MOST_CLASSES
    assert {7, 250} <= set(shown)


def test_classes_come_worst_first_with_the_interval_of_their_own_images(run: Run) -> None:
    section = per_class.section(run)
    assert section is not None
    rows = section.tables[0].rows
    assert [(row[0], row[2], row[4]) for row in rows] == [
        (run.classes[0], "60.0 %", "6 of 10"),
        (run.classes[1], "70.0 %", "7 of 10"),
    ]
    assert rows[0][3] == "26.7 to 86.1 %"  # Wilson's with Student's quantile, for 6 of 10
    assert "Without a test image, so nothing can be said: class 0, class 1" in section.text[1]


def test_the_caption_says_where_the_search_trained_for_fewer_epochs(run: Run) -> None:
    assert "saw it with one seed; its line" in depth.section(run).figures[0].caption
    for row in run.results["curve"]:
        row["epochs"] = 3
    caption = depth.section(run).figures[0].caption
    assert "with one seed after 3 epochs (the choice and its baselines are trained for 8); its line" in caption


def test_an_interval_of_the_curve_is_that_of_its_share_of_right_images() -> None:
    expected = accuracy_interval(np.array([[True] * 15 + [False] * 5]))
    assert depth.interval(0.75, 20) == (expected.low, expected.high)


def test_reliability_says_too_sure_by_the_mean_gap(run: Run) -> None:
    # (5 * (0.45 - 0.2) + 15 * (0.95 - 0.8)) / 20 = 0.175
    assert run.evidence is not None
    assert reliability.gap(run.evidence["model"]["reliability"]) == pytest.approx(0.175)
    section = reliability.section(run)
    assert section is not None
    assert section.text[0].startswith("Overall it is too sure, by 17.5 points; the calibration error")
    assert section.tables[0].rows[1] == ["93 to 100 %", "15", "95.0 %", "80.0 %"]


def test_learning_curves_are_means_over_seeds(run: Run) -> None:
    assert run.evidence is not None
    chosen = run.evidence["learning"][0]
    assert learning.mean_curve(chosen, "training_loss") == pytest.approx([3.5, 2.5, 2 / 3 + 1.5])
    section = learning.section(run)
    assert section is not None
    assert section.tables[0].rows[2] == ["3", "2.167", "73.0 %", "2.167", "63.0 %", "2.167", "68.0 %"]
    assert "The choice: from 33.0 % to 73.0 %" in section.figures[0].panels[1].description


@pytest.mark.parametrize("name", ["graft", "harmonise", "hidden", "cut"])
def test_a_tested_configuration_that_is_not_whole_is_left_blank(run: Run, name: str) -> None:
    del run.results["test"]["traditional"][name]
    (table,) = tested.section(run).tables
    shown = {row[0]: row[1:3] for row in table.rows}
    assert shown["Traditional fine-tuning of all layers"] == ["", ""]
    assert shown["The choice"][0] == "deepen 512, l2"


def test_a_mistake_is_shown_with_both_classes_and_their_probabilities(run: Run) -> None:
    section = mistakes.section(run)
    assert section is not None
    [shown] = section.values["mistakes"]
    assert (shown["true"], shown["predicted"]) == (run.classes[0], run.classes[1])
    assert (shown["probability"], shown["probability_of_true"]) == ("98.0 %", "1.0 %")
    assert shown["image"] == "data:image/webp;base64,AAAA"


def test_source_classes_stand_in_order_with_meters_of_one_scale(run: Run) -> None:
    section = source_classes.section(run)
    assert section is not None
    first = section.values["classes"][0]["sources"]
    assert [s["name"] for s in first] == [f"source <i>0</i> {rank}" for rank in range(3)]
    assert [s["raised"] for s in first] == ["+2.0", "+1.7", "+1.4"]
    assert [s["share"] for s in first] == ["100.0", "85.0", "70.0"]


def test_the_data_are_shown_with_counts_and_reasons(run: Run) -> None:
    section = glance.section(run)
    assert section.text[0] == "10 classes. train: 1500 images, validation: 320 images, test: 372 images."
    assert section.text[1] == "1 file was set aside and not used: 1 \N{MULTIPLICATION SIGN} truncated & <unreadable>."
    assert section.values["classes"][3]["counts"] == "150 / 32 / 37"


@pytest.mark.parametrize(
    "section", [confusion.section, per_class.section, reliability.section, learning.section, mistakes.section,
                source_classes.section],
)  # fmt: skip
def test_without_evidence_a_section_is_left_out(results: dict[str, Any], section: Any) -> None:
    assert section(Run(results)) is None


@pytest.mark.parametrize("count", [1, 3, 4])
def test_no_name_in_the_picture_of_differences_touches_the_line_at_zero(count: int) -> None:
    values = {"difference": 0.006, "interval95": [-0.013, 0.025]}
    rows = [forest.Row("Choice \N{MINUS SIGN} traditional fine-tuning", "", values, n == 0) for n in range(count)]
    figure = Figure(figsize=(WIDTH, forest.height(rows)), layout="constrained")
    axes = figure.add_subplot()
    forest.paint(axes, rows)
    figure.canvas.draw()
    names = [text.get_window_extent() for text in axes.texts]
    lines = [line.get_window_extent() for line in axes.lines if set(np.asarray(line.get_xdata())) == {0}]
    assert len(names) == len(lines) == count
    assert any(name.x0 < lines[0].x0 < name.x1 for name in names)
    assert not [(name, line) for name in names for line in lines if name.overlaps(line)]


def test_the_promised_share_of_unknown_stands_beside_the_measured_one_and_what_chance_allows(run: Run) -> None:
    section = unknown.section(run)
    assert section is not None
    assert section.text[1].startswith("Of the 340 test images 5.0 % are turned away; with so few images anything from ")
    assert section.text[2] == "Nothing can be promised for classes that validation has no image of: class 7."
    (table,) = section.tables
    assert table.rows[1] == ["5.0 %", "5.0 % (17 of 340)", "2.5 to 10.0 %", "2.0 to 9.0 %", "25.0 % (8 of 32)"]
    assert all(len(row) == len(table.columns) for row in table.rows)


@pytest.mark.parametrize(
    ("expected", "words"),
    [([0.0, 0.049], "more than chance explains .up to 4.9 %.* Do not rely"), ([0.06, 0.1], "fewer than chance")],
)
def test_a_promise_that_the_test_images_break_is_said_to_be_broken(
    run: Run, results: dict[str, Any], expected: list[float], words: str
) -> None:
    results["unknown"]["rates"][1]["test"]["expected95"] = expected
    section = unknown.section(Run(results))
    assert section is not None
    assert re.search(words, section.text[1])


def test_where_validation_has_every_class_and_is_too_small_nothing_is_promised(results: dict[str, Any]) -> None:
    results["unknown"] |= {"validation_images": 5, "classes_without_validation": [], "rates": []}
    section = unknown.section(Run(results))
    assert section is not None
    assert not section.tables
    assert section.text[-1].startswith("That is too few")
    del results["unknown"]
    assert unknown.section(Run(results)) is None
