"""How often `--unknown` turns away images of known classes: what is promised, and what the test images say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.plural import counted
from inarch.report import words
from inarch.report.run import Run
from inarch.report.section import Section, Table

_NAMED = 12
# The share that the page speaks of where there are enough validation images for it.
_USUAL = 0.05
_QUOTED = "\N{LEFT DOUBLE QUOTATION MARK}unknown\N{RIGHT DOUBLE QUOTATION MARK}"


def section(run: Run) -> Section | None:
    unknown = run.results.get("unknown")
    if unknown is None:
        return None
    images = unknown["validation_images"]
    if unknown["rates"]:
        rate = next((r for r in unknown["rates"] if r["promised"] == _USUAL), unknown["rates"][0])
        text = [
            f"With --unknown {rate['promised']:g}, inarch predict answers {_QUOTED} where an image leaves the model "
            "more undecided than nearly all validation images did, and promises that no more than "
            f"{100 * rate['promised']:g} % of the images of known classes are turned away: on average over classes and "
            f"over draws of validation images. It is calibrated on {images} of them, which also served to choose the "
            "model: the test images are the proof.",
            *filter(None, [_finding(rate)]),
        ]
    else:
        text = [
            f"Whether inarch predict may answer {_QUOTED} (--unknown) is calibrated on validation images, of which "
            f"{counted(images, 'is', 'are')} too few for any of the usual shares; more would allow it."
        ]
    lacking = unknown["classes_without_validation"]
    if lacking:
        names = ", ".join(lacking[:_NAMED]) + (f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else "")
        text.append(f"Nothing can be promised for classes that validation has no image of: {names}.")
    if not unknown["rates"]:
        return Section("unknown", "May it say that it does not know?", text)
    columns = ["At most", "Test images turned away", "95 % interval", "Within chance"]
    rows = [[words.percent(rate["promised"]), *_cells(rate["test"])] for rate in unknown["rates"]]
    if lacking:
        columns.append("Of classes without validation")
        rows = [
            [*row, _share(rate["test_without_validation"])] for row, rate in zip(rows, unknown["rates"], strict=True)
        ]
    table = Table("Images turned away as unknown", columns, rows, numbers=frozenset(range(len(columns))))
    return Section("unknown", "May it say that it does not know?", text, tables=[table])


def _finding(rate: Mapping[str, Any]) -> str:
    """Whether the test images keep the promise, in words."""
    test = rate["test"]
    if test is None:
        return ""
    low, high = test["expected95"]
    said = f"Of the {test['images']} test images {words.percent(test['share'])} are turned away"
    if test["share"] > high:
        return (
            f"{said}, more than chance explains (up to {words.percent(high)}): the test images differ from the "
            "validation images, or the choice made these look too familiar. Do not rely on the promise here."
        )
    if test["share"] < low:
        return (
            f"{said}, fewer than chance explains (from {words.percent(low)}): the validation images are stranger to "
            "the model than the test images."
        )
    return f"{said}; with so few images anything from {words.percent_range([low, high])} is chance."


def _cells(test: Mapping[str, Any] | None) -> list[str]:
    if test is None:
        return ["no images", "", ""]
    return [_share(test), words.percent_range(test["interval95"]), words.percent_range(test["expected95"])]


def _share(found: Mapping[str, Any] | None) -> str:
    return (
        "no images" if found is None else f"{words.percent(found['share'])} ({found['unknown']} of {found['images']})"
    )
