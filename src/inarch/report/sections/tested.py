"""Every figure of the test: the choice, the delivered model, and what they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inarch.plural import counted
from inarch.report import words
from inarch.report.drawing import draw
from inarch.report.forest import Row, described, height, paint_accuracies
from inarch.report.run import Run
from inarch.report.section import Figure, Panel, Section, Table

_PLACE = ("graft", "harmonise", "hidden", "cut")


def section(run: Run) -> Section:
    tested = _in_order(run.results["test"])
    text = [
        f"The {counted(run.results['dataset']['counts']['test'], 'test image was', 'test images were')} read once, at "
        "the end; nothing was chosen by them. Each row is a mean over its seeds, which are trainings that differ by "
        "chance alone.",
    ]
    if any(row.get("failed_seeds") for _, row in tested):
        text.append(
            "Where a training failed with some of its seeds, its row is a mean over the others alone: it is not to be "
            "relied on to train again."
        )
    return Section("tested", "How good is it?", text, [_figure(tested)], [_table(tested)])


def _figure(tested: Sequence[tuple[str, Any]]) -> Figure:
    rows = [
        Row(_whole_name(name, row, tested), words.role(name), row["accuracy"], row["interval95"], name == "chosen")
        for name, row in tested
        if name != "model"
    ]
    svg = draw("tested", height(rows), lambda axes: paint_accuracies(axes, rows))
    caption = (
        "Share of the test images that are right, and its 95 % interval: where the share would likely be with other "
        "test images. Orange: the choice. Where two intervals overlap, look at the differences below before calling "
        "one better: they are on the same images and more exact. The axis need not begin at zero."
    )
    return Figure([Panel(svg, f"Test accuracy. {described(rows, differences=False)}.")], caption)


def _whole_name(name: str, row: Any, tested: Sequence[tuple[str, Any]]) -> str:
    """A short name; where the best of a graft is the choice itself, it says so."""
    # All of a row, not its configuration alone: another method or other rates are another training.
    same = name != "chosen" and row == dict(tested)["chosen"]
    short = words.short_role(name)
    return short[0].upper() + short[1:] + " (the choice)" * same


def _table(tested: Sequence[tuple[str, Any]]) -> Table:
    has_top5 = any(row["top5"] is not None for _, row in tested)
    columns = ["What", "Accuracy", "95 % interval", "Balanced accuracy", "Macro F1"]
    columns += ["Top 5"] * has_top5 + ["Log loss", "Calibration error", "Seeds", "Configuration", "Frozen"]
    rows = []
    for name, row in tested:
        figures = [
            words.percent(row["accuracy"]), words.percent_range(row["interval95"]),
            words.percent(row["balanced_accuracy"]), words.percent(row["macro_f1"]),
        ]  # fmt: skip
        figures += ["" if row["top5"] is None else words.percent(row["top5"])] * has_top5
        figures += [f"{row['log_loss']:.3f}", words.percent(row["calibration_error"]), _seeds(row)]
        place = [words.configuration(row), words.frozen(row["cut"])] if row.keys() >= set(_PLACE) else ["", ""]
        rows.append([words.role(name), *figures, *place])
    marked = frozenset(at for at, (name, _) in enumerate(tested) if name == "chosen")
    return Table("Test of each configuration", columns, rows, frozenset(range(1, len(columns) - 2)), marked)


def _seeds(row: Any) -> str:
    """How many, how many failed, and whether it is the search's own, by which it was found."""
    said = [f"{row['failed_seeds']} failed"] if row.get("failed_seeds") else []
    said += ["the search's"] if row.get("confirmed") is False else []
    return str(len(row["seeds"])) + (f" ({', '.join(said)})" if said else "")


def _in_order(test: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The choice first, then the rest in the order of `words.ROLES`, unknown roles last.

    The delivered model is left out where it is all that the choice is a mean of.
    """
    order = list(words.ROLES)
    kept = [(name, row) for name, row in test.items() if name != "model" or len(test["chosen"]["seeds"]) > 1]
    return sorted(kept, key=lambda item: order.index(item[0]) if item[0] in order else len(order))
