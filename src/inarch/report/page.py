"""`report.html`: what a study found, drawn from `results.json` alone, so also where no PyTorch is installed.

The page holds everything it shows: no script, no outside request (its own security policy forbids them).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from inarch.errors import RunFolderError
from inarch.report import words
from inarch.report.picture import NARROW, WIDE, depth_picture
from inarch.results.folder import write_text
from inarch.results.schema import validate_results

RESULTS = "results.json"
REPORT = "report.html"


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder and return its path; equal results give equal bytes.

    Raises `RunFolderError` where `results.json` is missing, is not JSON or lacks a field, and where the page cannot be
    written.
    """
    path = folder / RESULTS
    again = "Run `inarch fit` again with the same arguments to have it written."
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunFolderError(f"{folder} holds no {RESULTS}, so there is nothing to report.", again) from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}.", again) from error
    return write_text(folder / REPORT, render(results))


def render(results: Mapping[str, Any]) -> str:
    """Return the page for what `results.json` holds; raises `RunFolderError` naming a field that is wrong."""
    validate_results(results)
    # Names of classes, files and stages come from a user's disk: everything is escaped but the picture.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        function.__name__: function
        for function in (
            words.role, words.percent, words.percent_range, words.points, words.points_range, words.p_value, words.rate,
            words.duration, words.configuration, words.frozen, words.setting, words.plan_sentence,
        )
    }  # fmt: skip
    template = environment.from_string(files("inarch.report").joinpath("template.html.j2").read_text(encoding="utf-8"))
    return template.render(results=results, **_view(results)) + "\n"


def _view(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows beside the results themselves."""
    curve, chosen = results["curve"], results["chosen"]
    error = results["validation_standard_error"]
    pictures = {
        name: Markup(depth_picture(curve, chosen, error, size)) if curve else None
        for name, size in (("wide", WIDE), ("narrow", NARROW))
    }
    return {
        "pictures": pictures,
        "description": _description(results),
        "tested": _in_order(results["test"]),
        "environment": results["cost"].get("environment", {}),
        "settings": results.get("settings", {}),
        "warnings": [*results["dataset"].get("warnings", []), *results.get("warnings", [])],
        "has_top5": any(row["top5"] is not None for row in results["test"].values()),
    }


def _in_order(test: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The choice first, then the rest in the order of `words.ROLES`, unknown roles last."""
    order = list(words.ROLES)
    return sorted(test.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))


def _description(results: Mapping[str, Any]) -> str:
    """The picture in words, for those who do not see it."""
    curve = results["curve"]
    if not curve:
        return ""
    best = max(curve, key=lambda row: row["validation_accuracy"])
    worst = min(curve, key=lambda row: row["validation_accuracy"])
    return (
        f"Validation accuracy against the number of frozen stages, {len(curve)} points. Highest: "
        f"{words.configuration(best)} with {words.percent(best['validation_accuracy'])}, frozen: "
        f"{words.frozen(best['cut'])}. Lowest: {words.configuration(worst)} with "
        f"{words.percent(worst['validation_accuracy'])}, frozen: {words.frozen(worst['cut'])}. "
        "The table below holds every point."
    )
