"""Every figure of the test: the choice, the delivered model, and what they are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.plural import counted
from inarch.report import words
from inarch.report.run import Run
from inarch.report.section import Section, Table


def section(run: Run) -> Section:
    tested = _in_order(run.results["test"])
    has_top5 = any(row["top5"] is not None for _, row in tested)
    columns = ["What", "Configuration", "Frozen", "Accuracy", "95 % interval", "Balanced accuracy", "Macro F1"]
    columns += ["Top 5"] * has_top5 + ["Log loss", "Calibration error", "Seeds"]
    rows = []
    for name, row in tested:
        figures = [
            words.percent(row["accuracy"]), words.percent_range(row["interval95"]),
            words.percent(row["balanced_accuracy"]), words.percent(row["macro_f1"]),
        ]  # fmt: skip
        figures += ["" if row["top5"] is None else words.percent(row["top5"])] * has_top5
        figures += [f"{row['log_loss']:.3f}", words.percent(row["calibration_error"]), str(len(row["seeds"]))]
        whole = row.keys() >= {"graft", "harmonise", "hidden", "cut"}
        place = [words.configuration(row), words.frozen(row["cut"])] if whole else ["", ""]
        rows.append([words.role(name), *place, *figures])
    text = [
        f"The {counted(run.results['dataset']['counts']['test'], 'test image was', 'test images were')} read once, at "
        "the end; nothing was chosen by them. Each row is a mean over its seeds.",
    ]
    marked = frozenset(at for at, (name, _) in enumerate(tested) if name == "chosen")
    table = Table("Test of each configuration", columns, rows, frozenset(range(3, len(columns))), marked)
    return Section("tested", "On the test images", text, tables=[table])


def _in_order(test: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The choice first, then the rest in the order of `words.ROLES`, unknown roles last."""
    order = list(words.ROLES)
    return sorted(test.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))
