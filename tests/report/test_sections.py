"""What each section shows, against figures worked out by hand."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from inarch.report import forest
from inarch.report.drawing import WIDTH
from inarch.report.run import Run
from inarch.report.sections import (
    again,
    confusion,
    cost,
    depth,
    glance,
    learning,
    mistakes,
    per_class,
    reliability,
    source_classes,
    terms,
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
    assert "The ring is the choice, made after all epochs, so not always the highest point;" in caption


def test_where_one_depth_alone_was_tried_no_curve_is_drawn(run: Run) -> None:
    first = run.results["curve"][0]["cut"]
    run.results["curve"] = [row for row in run.results["curve"] if row["cut"] == first]
    found = depth.section(run)
    assert not found.figures
    assert found.text == ["One depth alone was tried for lack of time, so there is no curve yet."]
    assert len(found.tables[0].rows) == len(run.results["curve"])


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


def test_trainings_without_a_learning_curve_are_left_out_and_roles_without_any_are_named(run: Run) -> None:
    assert run.evidence is not None
    chosen, traditional, _ = run.evidence["learning"]
    chosen["seeds"][1]["epochs"] = []
    for seed in traditional["seeds"]:
        seed["epochs"] = []
    section = learning.section(run)
    assert section is not None
    assert section.text[-1].startswith("No curve of traditional")
    assert section.tables[0].rows[2] == ["3", "1.667", "72.0 %", "2.167", "68.0 %"]


def test_the_matrix_of_81_classes_fits_in_a_page(run: Run) -> None:
    names = [f"class {k}, of which the name is long" for k in range(81)]
    run.results["dataset"]["classes"] = names
    section = confusion.section(run)
    assert section is not None
    values = section.values
    assert (len(values["names"]), values["side"], values["small"]) == (81, confusion.SMALL, True)
    assert values["left"] + 81 * values["side"] < 68 * 16


def test_the_parts_of_the_time_add_up_and_small_ones_are_summed(results: dict[str, Any]) -> None:
    results["cost"]["profile"] = {"training": 90.0, "views": 9.0, "ledger": 0.5, "other": 0.5}
    parts, profile = cost.section(Run(results)).tables
    assert parts.rows[0] == ["Training and validating all trials", "50 min 0 s"]
    assert [(row[0], row[2]) for row in profile.rows] == [
        ("training", "90.0 %"),
        ("making varied views of the images", "9.0 %"),
        ("everything else", "1.0 %"),
    ]
    results["cost"]["profile"] = {}
    assert len(cost.section(Run(results)).tables) == 1


def test_what_repeats_a_run_is_written_for_people(results: dict[str, Any]) -> None:
    results["cost"]["environment"]["store_limit"] = 8 * 2**30
    results["settings"]["augmentation"] = {"colour_jitter": 0.2}
    rows = dict(again.section(Run(results)).tables[0].rows)
    assert rows["store limit"] == "8 GiB"
    assert rows["augmentation"] == "colour jitter 0.2"
    assert str(rows["execution plan"]).startswith("channels last, frozen stages in bf16")


def test_errors_of_which_none_was_sure_are_not_called_sure(run: Run) -> None:
    section = mistakes.section(run)
    assert section is not None
    assert len(section.text) == 1
    assert run.evidence is not None
    run.evidence["model"]["mistakes"][0]["probability"] = 0.19
    section = mistakes.section(run)
    assert section is not None
    assert section.text[1].startswith("It was sure of none of these")


@pytest.mark.parametrize(("graft", "said"), [("replace", "replaces this layer"), ("joined", "(joined) keeps this")])
def test_source_classes_are_shown_whatever_was_chosen(run: Run, graft: str, said: str) -> None:
    run.results["chosen"]["graft"] = graft
    section = source_classes.section(run)
    assert section is not None
    assert said in section.text[1]
    assert len(section.values["classes"]) == 10


def test_the_grafts_that_were_tested_are_explained_among_the_words(run: Run) -> None:
    explained = dict(terms.section(run).tables[0].rows)
    tested = {row["graft"] for row in run.results["test"].values()}
    assert {*tested, "95 % interval"} <= set(explained)
    assert not {"replace", "retain", "deepen", "joined", "head2toe"} - tested & set(explained)


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
    assert section.text[1] == "Each class has 150 training images."
    assert section.text[2] == "1 file was set aside and not used: 1 \N{MULTIPLICATION SIGN} truncated & <unreadable>."
    assert section.values["classes"][3]["counts"] == "150 / 32 / 37"


@pytest.mark.parametrize(
    "section", [confusion.section, per_class.section, reliability.section, learning.section, mistakes.section,
                source_classes.section],
)  # fmt: skip
def test_without_evidence_a_section_is_left_out(results: dict[str, Any], section: Any) -> None:
    assert section(Run(results)) is None


@pytest.mark.parametrize("count", [1, 3, 4])
def test_no_name_in_the_picture_of_differences_touches_the_line_at_zero(count: int) -> None:
    name = "Choice \N{MINUS SIGN} traditional fine-tuning"
    rows = [forest.Row(name, "", 0.006, [-0.013, 0.025], n == 0) for n in range(count)]
    figure = Figure(figsize=(WIDTH, forest.height(rows)), layout="constrained")
    axes = figure.add_subplot()
    forest.paint_differences(axes, rows)
    figure.canvas.draw()
    texts = [text.get_window_extent() for text in axes.texts]
    lines = [line.get_window_extent() for line in axes.lines if set(np.asarray(line.get_xdata())) == {0}]
    assert len(texts) == 2 * len(lines) == 2 * count
    assert any(text.x0 < lines[0].x0 < text.x1 for text in texts)
    assert not [(text, line) for text in texts for line in lines if text.overlaps(line)]
    assert not [(one, other) for one, other in combinations(texts, 2) if one.overlaps(other)]
    assert axes.texts[1].get_text() == "+0.6 (\N{MINUS SIGN}1.3 to +2.5)"


def test_a_name_that_leaves_no_room_for_its_figures_stands_alone() -> None:
    axes = Figure().add_subplot()
    forest.paint_accuracies(axes, [forest.Row("x" * 60, "", 0.5, [0.4, 0.6], False)])
    assert [text.get_text() for text in axes.texts] == ["x" * 60]


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


def test_a_share_that_too_few_validation_images_allow_is_not_named(results: dict[str, Any]) -> None:
    del results["unknown"]["rates"][:2]
    section = unknown.section(Run(results))
    assert section is not None
    assert section.text[0].startswith("With --unknown 0.1, inarch predict answers")
    assert "no more than 10 % of the images" in section.text[0]
    assert section.text[1].startswith("Of the 340 test images 9.7 % are turned away")


def test_where_validation_has_every_class_and_is_too_small_nothing_is_promised(results: dict[str, Any]) -> None:
    results["unknown"] |= {"validation_images": 5, "classes_without_validation": [], "rates": []}
    section = unknown.section(Run(results))
    assert section is not None
    assert not section.tables
    assert section.text[-1].endswith(
        "validation images, of which 5 are too few for any of the usual shares; more would allow it."
    )
    assert "promises" not in " ".join(section.text)
    del results["unknown"]
    assert unknown.section(Run(results)) is None
