"""The answer: which configuration, what accuracy, how sure, and whether keeping the layer helped."""

from __future__ import annotations

from typing import Any

from inarch.plural import counted
from inarch.report import words
from inarch.report.run import Run
from inarch.report.section import Section


def section(run: Run) -> Section:
    results = run.results
    test = results["test"]["chosen"]
    return Section(
        "answer",
        f"Right on {words.percent(test['accuracy'])} of the test images",
        values={"tiles": [_accuracy(results), *_traditional(results), _layer(results), _chosen(results["chosen"])]},
    )


def _accuracy(results: Any) -> tuple[str, str, list[str]]:
    test = results["test"]["chosen"]
    below = [
        f"95 % interval {words.percent_range(test['interval95'])}",
        counted(results["dataset"]["counts"]["test"], "image"),
    ]
    return "Test accuracy of the choice", words.percent(test["accuracy"]), below


def _traditional(results: Any) -> list[tuple[str, str, list[str]]]:
    found = [row for row in results["paired"] if row["against"] == "traditional"]
    return [
        (
            "Against traditional fine-tuning",
            f"{words.points(row['difference'])} points",
            [f"95 % interval {words.points_range(row['interval95'])}", words.verdict(row["interval95"])],
        )
        for row in found
    ]


def _layer(results: Any) -> tuple[str, str, list[str]]:
    title, layer = "Keeping the classification layer", results["kept_layer"]
    if not (layer.get("kept") and layer.get("replaced")):
        return title, "", [f"not compared: {layer['reason']}"]
    below = [f"against replacing it, 95 % interval {words.points_range(layer['interval95'])}"]
    if layer.get("tuned_alike") is False:
        below.append("so far: not yet tuned alike")
    else:
        below.append(words.verdict(layer["interval95"]))
    return title, f"{words.points(layer['difference'])} points", below


def _chosen(chosen: Any) -> tuple[str, str, list[str]]:
    old, new = (words.rate(chosen[name]) for name in ("learning_rate", "new_layer_learning_rate"))
    rates = f"new layers at rate {new}" + (f", old ones at {old}" if chosen["learning_rate"] else "")
    below = [f"Frozen: {words.frozen(chosen['cut'])}", f"Trained by {chosen['method']}, {rates}"]
    return "Chosen", words.configuration(chosen), below
