"""The answer: what accuracy, how sure, is that better than usual, did keeping the layer help, which configuration."""

from __future__ import annotations

from typing import Any

from inarch.plural import counted
from inarch.report import words
from inarch.report.run import Run
from inarch.report.section import Section


def section(run: Run) -> Section:
    results = run.results
    test = results["test"]["chosen"]
    of, classes = words.data_name(results), counted(len(run.classes), "class", "classes")
    return Section(
        "answer",
        f"Right on {words.percent(test['accuracy'])} of the test images",
        values={
            "about": f"{results['source']['name']}, adapted to {f'the {classes} of {of}' if of else classes}.",
            "lead": " ".join(lead(results)),
            "tiles": [_accuracy(results), *_traditional(results), _layer(results), _chosen(results["chosen"])],
        },
    )


def lead(results: Any) -> list[str]:
    """The answer in words that need no knowledge of the field, a sentence each."""
    test, images = results["test"]["chosen"], results["dataset"]["counts"]["test"]
    low, high = (f"{100 * end:.0f}" for end in test["interval95"])
    return [
        f"In the long run about {100 * test['accuracy']:.0f} of 100 images like those of the test are named correctly; "
        f"with {counted(images, 'test image')} to judge by, it may be anything from {low} to {high}.",
        *(_against_usual(row, results["test"]) for row in results["paired"] if row["against"] == "traditional"),
        _layer_in_words(results["kept_layer"]),
    ]


def _against_usual(row: Any, test: Any) -> str:
    usual = "The usual way (a new last layer, and the whole network trained on)"
    right = f"is right on {words.percent(test['traditional']['accuracy'])}" if "traditional" in test else "was tested"
    usual += f" {right}:"
    points = f"{100 * abs(row['difference']):.1f} points"
    low, high = row["interval95"]
    explained = "more than chance explains"
    if row.get("of") == "images":
        explained = "more than the choice of test images explains, while other seeds were not tried"
    if row.get("searched_in_full") is False:
        chance = ", which can be chance" if low <= 0 <= high else ""
        so_far = f"so far a difference of {words.points(row['difference'])} points{chance}"
        return f"{usual} {so_far}; time was too short to search both alike."
    if low > 0:
        return f"{usual} the choice is better by {points}, {explained}."
    if high < 0:
        return f"{usual} the choice is worse by {points}, {explained}."
    return f"{usual} a difference of {points}, which can be chance."


def _layer_in_words(layer: Any) -> str:
    what = "keeping the network's old last layer instead of throwing it away"
    if not (layer.get("kept") and layer.get("replaced")):
        return f"Whether {what} helps was not compared."
    if layer.get("tuned_alike") is False:
        return f"Whether {what} helps is not settled: the two were not given the same search."
    low, high = layer["interval95"]
    if low > 0:
        return f"{what.capitalize()} helped."
    return f"{what.capitalize()} " + ("did harm." if high < 0 else "made no difference that these images can show.")


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
            [f"95 % interval {words.points_range(row['interval95'])}", _verdict(row, row.get("searched_in_full"))],
        )
        for row in found
    ]


def _verdict(row: Any, alike: bool | None) -> str:
    return "so far: not yet tuned alike" if alike is False else words.verdict(row["interval95"])


def _layer(results: Any) -> tuple[str, str, list[str]]:
    title, layer = "Keeping the old last layer", results["kept_layer"]
    if not (layer.get("kept") and layer.get("replaced")):
        return title, "", [f"not compared: {layer['reason']}"]
    below = [f"95 % interval {words.points_range(layer['interval95'])}, against replacing it"]
    below.append(_verdict(layer, layer.get("tuned_alike")))
    return title, f"{words.points(layer['difference'])} points", below


def _chosen(chosen: Any) -> tuple[str, str, list[str]]:
    old, new = (words.rate(chosen[name]) for name in ("learning_rate", "new_layer_learning_rate"))
    rates = f"new layers at rate {new}" + (f", old ones at {old}" if chosen["learning_rate"] else "")
    below = [f"Frozen: {words.frozen(chosen['cut'])}", f"Trained by {chosen['method']}, {rates}"]
    if chosen["graft"] in words.GRAFTS:
        below.insert(0, words.GRAFTS[chosen["graft"]].capitalize())
    return "Chosen", words.configuration(chosen), below
