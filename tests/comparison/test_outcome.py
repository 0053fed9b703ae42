"""What a comparison says follows from its trials: made-up predictions, nothing is trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inarch.comparison.outcome import mean_ranks, of_size, sentence
from inarch.network.grafts import Configuration
from inarch.search.space import Result
from inarch.training.trial import TrainingSettings, Trial

LABELS = np.arange(400) % 2


def a_size(accuracies: dict[str, dict[int, float]], failed: tuple[str, ...] = ()) -> dict[str, Any]:
    """Contestants with the accuracy that each has with the draw of each seed."""
    settings, predicted, compared = TrainingSettings(epochs=1), {}, {}
    for number, (name, of_seed) in enumerate(accuracies.items()):
        trials = [
            Trial(Configuration("replace", "none"), 0, "fine-tuning", 0.1, 1.0 + number, seed, settings, shots=5)
            for seed in of_seed
        ]
        compared[name] = trials
        for trial, accuracy in zip(trials, of_seed.values(), strict=True):
            random = np.random.default_rng([number, trial.seed])
            right = random.permutation(len(LABELS)) < accuracy * len(LABELS)
            predicted[trial.key] = np.eye(2)[np.where(right, LABELS, 1 - LABELS)]
    history = {t.key: Result(t, 0.5, 1.0) for trials in compared.values() for t in trials}
    found = of_size(compared, LABELS, lambda t: predicted[t.key], SimpleNamespace(stages=[]), history)  # type: ignore[arg-type]
    return {"shots": 5, "failed": list(failed), **found}


def test_a_difference_is_taken_on_the_draws_that_both_have() -> None:
    size = a_size({"traditional": {1: 0.5, 2: 0.6, 3: 0.9}, "other": {1: 0.6, 2: 0.7}})
    assert [row["difference"] for row in size["paired"]] == [pytest.approx(0.1)]
    assert size["contestants"][0]["accuracy"] == pytest.approx(2 / 3)


def test_one_draw_gives_no_verdict_and_three_that_agree_do() -> None:
    one = a_size({"traditional": {1: 0.5}, "other": {1: 0.9}})
    assert one["paired"][0]["p_holm"] < 0.001
    assert "beyond chance" not in sentence([one])
    three = a_size({"traditional": {1: 0.5, 2: 0.51, 3: 0.49}, "other": {1: 0.9, 2: 0.89, 3: 0.9}})
    assert "better beyond chance: other (+39.7 points)" in sentence([three])
    worse = a_size({"traditional": {1: 0.9, 2: 0.91, 3: 0.9}, "other": {1: 0.5, 2: 0.5, 3: 0.5}})
    assert "worse beyond chance: other" in sentence([worse])


def test_who_failed_is_named() -> None:
    size = a_size({"traditional": {1: 0.5, 2: 0.5}, "other": {1: 0.5}}, failed=("other",))
    assert "other could not be trained on every draw" in sentence([size])


def test_contestants_that_come_out_the_same_are_named_with_the_reason_where_no_old_layer_trains() -> None:
    size = a_size({name: {1: 0.5, 2: 0.5} for name in ("traditional", "a", "b", "c")})
    assert "came out the same" not in sentence([size])
    for row in size["contestants"][1:]:
        row |= {"learning_rate": 0.0, "accuracy": 0.5, "log_loss": 1.0}
    assert "a, b and c came out the same: in all of them tuning lets new layers alone train" in sentence([size])
    size["contestants"][1]["graft"] = "retain"
    assert " b and c came out the same" in sentence([size])


def test_ranks_are_means_over_sizes_of_those_that_are_in_all_of_them() -> None:
    sizes = [
        a_size({"traditional": {1: 0.5}, "a": {1: 0.7}, "b": {1: 0.6}}),
        a_size({"traditional": {1: 0.8}, "a": {1: 0.7}}),
    ]
    assert mean_ranks(sizes) == [{"name": "traditional", "rank": 1.5}, {"name": "a", "rank": 1.5}]


def test_ranks_go_by_the_draws_that_both_have() -> None:
    # On its own draw "a" is behind; the reference has a harder one as well.
    (first, second) = mean_ranks([a_size({"traditional": {1: 0.9, 2: 0.3}, "a": {1: 0.8}})])
    assert (first["name"], second["name"]) == ("traditional", "a")
