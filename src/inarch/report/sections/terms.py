"""What the words of the page mean, for readers from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.report import words
from inarch.report.run import Run
from inarch.report.section import Section, Table

_FIRST = (
    ("source network", "the network that was trained before, on other images, and is adapted here"),
    ("classification layer", "its last layer, which tells its own classes apart; most others throw it away"),
    ("logits", "what that layer gives out: a number for each class, the higher the likelier"),
)
_THEN = (
    ("l2, batch", "how numbers are brought to one scale between old and new layers; without either they are not"),
    ("frozen stages", "the first parts of the network, counted from the image, that stay as they came"),
    ("cut", "where the frozen stages end"),
    ("traditional fine-tuning", "what is usually done: a new last layer, and everything trained on"),
    ("linear probe", "the cheapest way: a new last layer alone is trained"),
    ("training, validation, test", "images to learn from, images to choose between configurations, images to judge by "
     "at the end"),
    ("epoch", "one pass over all training images"),
    ("seed", "the number that chance starts from; several seeds show how much of a result is luck"),
    ("95 % interval", "what fits the data: in 95 of 100 such studies it holds the true value"),
    ("points", "percentage points: from 80 % to 82 % are 2 points"),
)  # fmt: skip


def section(run: Run) -> Section:
    tested = run.results["test"].values() if "test" in run.results else _contestants(run)
    used = dict.fromkeys(row.get("graft") for row in tested)
    rows = [*_FIRST, *((name, words.GRAFTS[name]) for name in used if name in words.GRAFTS), *_THEN]
    return Section("terms", "Words", tables=[Table("What is meant by", ["Word", "Meaning"], rows)])


def _contestants(run: Run) -> list[Mapping[str, Any]]:
    """Of a comparison, which has no choice and no baselines but one."""
    return [row for size in run.results["sizes"] for row in size["contestants"]]
