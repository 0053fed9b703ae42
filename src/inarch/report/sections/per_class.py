"""How well each class is recognised, the worst first."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from inarch.report import words
from inarch.report.run import Run
from inarch.report.section import Section, Table
from inarch.report.sections.confusion import matrix
from inarch.report.sections.depth import interval

OPEN = 20


def section(run: Run) -> Section | None:
    if run.evidence is None:
        return None
    counts = matrix(run.evidence["model"]["confusions"], len(run.classes))
    totals, right = counts.sum(axis=1), np.diagonal(counts)
    tested = [i for i in range(len(run.classes)) if totals[i]]
    tested.sort(key=lambda i: (right[i] / totals[i], -totals[i], i))
    rows = []
    for i in tested:
        accuracy, ends = right[i] / totals[i], interval(right[i] / totals[i], int(totals[i]))
        rows.append(
            [run.classes[i], bar(accuracy, ends), words.percent(accuracy), words.percent_range(list(ends)),
             f"{right[i]} of {totals[i]}"]
        )  # fmt: skip
    missing = [name for name, total in zip(run.classes, totals, strict=True) if not total]
    text = [
        "Share of each class's test images that the delivered model gets right (recall), the worst first. The thin "
        "line is the 95 % interval: with few images of a class it is wide, and says little."
    ]
    if missing:
        text.append(f"Without a test image, so nothing can be said: {', '.join(missing)}.")
    table = Table(
        "Accuracy of each class", ["Class", "From 0 to 100 %", "Accuracy", "95 % interval", "Right"], rows,
        frozenset({2, 3, 4}), open_rows=OPEN,
    )  # fmt: skip
    return Section("classes", "Class by class", text, tables=[table])


def bar(share: float, ends: tuple[float, float]) -> Markup:
    """A bar from 0 to 1 with its interval; the figures stand beside it, so it has no words of its own."""
    low, high = (f"{100 * end:.1f}" for end in ends)
    return share_bar(share, Markup('<path d="M{} 6H{}"/>').format(low, high))


def share_bar(share: float, over: str = "") -> Markup:
    """A bar from 0 to 1, and what is drawn over it."""
    return Markup(
        '<svg class="bar" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="all" width="100" height="12"/><rect class="part" width="{}" height="12"/>{}</svg>'
    ).format(f"{100 * share:.1f}", over)
