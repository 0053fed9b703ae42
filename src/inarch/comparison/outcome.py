"""From records to `comparison.json`: accuracy of every contestant, and its difference from traditional fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from inarch.comparison.design import REFERENCE
from inarch.network.stages import Stages, cut_json
from inarch.report.words import percent, points
from inarch.results.metrics import mean_metrics
from inarch.results.statistics import accuracy_interval, holm, paired_on_draws
from inarch.search.space import Result
from inarch.training.trial import Trial

FORMAT = 1
Probabilities = Callable[[Trial], np.ndarray]


def of_size(
    compared: Mapping[str, Sequence[Trial]], labels: np.ndarray, probabilities: Probabilities, staged: Stages,
    history: Mapping[str, Result],
) -> dict[str, Any]:  # fmt: skip
    """What was found with draws of one size. compared: the trials on draws by contestant, the reference among them.

    Differences are those of "Traditional fine-tuning" turned round: above 0 the contestant is better. Contestants are
    trained on the same draws and tested on the same images, and their difference is taken draw by draw, image by image.
    """
    found = {name: [probabilities(trial) for trial in trials] for name, trials in compared.items()}
    correct = {name: np.stack([p.argmax(axis=1) == labels for p in some]) for name, some in found.items()}
    rows = []
    for name, trials in compared.items():
        interval = accuracy_interval(correct[name])
        rows.append(
            {
                "name": name,
                **_setting(trials[0], staged),
                "validation_accuracy": float(np.mean([history[t.key].accuracy for t in trials])),
                **mean_metrics(found[name], labels),
                "interval95": [interval.low, interval.high],
                "seeds": [t.seed for t in trials],
            }
        )
    seeds = {name: [trial.seed for trial in trials] for name, trials in compared.items()}
    return {"contestants": rows, "paired": _paired(correct, seeds)}


def _setting(trial: Trial, staged: Stages) -> dict[str, Any]:
    """What tuning chose."""
    return trial.configuration.to_json() | {
        "method": trial.method,
        "cut": cut_json(staged, trial.cut),
        "learning_rate": trial.learning_rate,
        "new_layer_learning_rate": trial.new_layer_learning_rate,
        "strength": trial.strength,
    }


def _paired(correct: Mapping[str, np.ndarray], seeds: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """Differences from the reference on the draws that both have: draws differ by more than methods do."""
    rows: list[dict[str, Any]] = []
    for name, some in correct.items():
        common = set(seeds[name]) & set(seeds[REFERENCE])
        if name != REFERENCE and common:
            mine, its = ([i for i, seed in enumerate(seeds[which]) if seed in common] for which in (name, REFERENCE))
            pair = paired_on_draws(some[mine], correct[REFERENCE][its])
            rows.append(
                {"name": name, "difference": pair.difference, "interval95": list(pair.interval95), "p": pair.p,
                 "of": pair.of}
            )  # fmt: skip
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = corrected
    return rows


def mean_ranks(sizes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean rank over the sizes of draws of each contestant that is in all of them: 1 is best, ties share a rank.

    By differences from the reference, which are taken on the draws that both have: not all have the same ones.
    """
    differences = [{REFERENCE: 0.0} | {row["name"]: row["difference"] for row in size["paired"]} for size in sizes]
    names = [row["name"] for row in sizes[0]["contestants"] if all(row["name"] in of for of in differences)]
    ranks = np.mean([rankdata([-of[name] for name in names]) for of in differences], axis=0)
    ordered = sorted(zip(names, ranks.tolist(), strict=True), key=lambda pair: pair[1])
    return [{"name": name, "rank": rank} for name, rank in ordered]


def sentence(sizes: Sequence[Mapping[str, Any]]) -> str:
    """What came out, in plain words."""
    return " ".join(map(_sentence, sizes))


def _sentence(size: Mapping[str, Any]) -> str:
    reference = next(row for row in size["contestants"] if row["name"] == REFERENCE)
    shots = f"With {size['shots']} images a class" if size["shots"] else "With all training images"
    text = f"{shots}, tuned traditional fine-tuning is right on {percent(reference['accuracy'])} of the test images"
    if not size["paired"]:
        return f"{text}; nothing else was compared."
    # One draw says nothing about others, whatever its images say.
    judged = [r for r in size["paired"] if r["p_holm"] < 0.05 and r["of"] != "images"]
    better, worse = ([r for r in judged if sign * r["difference"] > 0] for sign in (1, -1))
    for words, rows in (("Better beyond chance", better), ("worse beyond chance", worse)):
        if rows:
            ordered = sorted(rows, key=lambda r: -abs(r["difference"]))
            text += f"; {words}: " + ", ".join(f"{r['name']} ({points(r['difference'])} points)" for r in ordered)
    rest = len(size["paired"]) - len(better) - len(worse)
    if rest:
        text += f"; {rest} of {len(size['paired'])} others cannot be told from it"
    if rest and all(r["of"] == "images" for r in size["paired"]):
        text += ", as one draw says nothing of others"
    if size["failed"]:
        text += f"; {', '.join(size['failed'])} could not be trained on every draw"
    return " ".join([text.replace("; Better", "; better") + ".", *_same(size["contestants"])])


def _same(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for contestants that came out the same because none of them trains what they differ in."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        if not row["learning_rate"]:
            alike.setdefault((row["graft"], row["accuracy"], row["log_loss"]), []).append(row["name"])
    return [
        f"{', '.join(names[:-1])} and {names[-1]} came out the same: in all of them tuning lets new layers alone "
        "train, where they do not differ."
        for names in alike.values()
        if len(names) > 1
    ]
