"""What the report says in words follows from the figures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from inarch.network.grafts import Configuration
from inarch.outcome import Outcome, kept_sentence
from inarch.search.rounds import next_round
from inarch.search.space import FAILED, TRADITIONAL, Result, Space, Track
from inarch.training.trial import TrainingSettings

RATES = dict.fromkeys((Configuration("retain", "none"), TRADITIONAL), 0.1)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((0.01, 0.05), "helped here"),
        ((-0.05, -0.01), "did not help here, it cost"),
        ((-0.02, 0.03), "did not help here measurably"),
        ((0.0, 0.03), "did not help here measurably"),
    ],
)
def test_the_verdict_on_the_layer_is_that_of_its_interval(interval: tuple[float, float], words: str) -> None:
    sentence = kept_sentence(0.5 * sum(interval), interval, "images and seeds")
    assert words in sentence
    assert "over images and seeds" in sentence


def test_there_is_no_verdict_where_the_two_were_not_tuned_alike() -> None:
    sentence = kept_sentence(0.05, (0.01, 0.09), "images", "Time was too short to tune both alike")
    assert "helped" not in sentence
    assert sentence.startswith("Time was too short to tune both alike; so far")
    assert "+5.0 points" in sentence


def test_a_baseline_that_failed_at_every_rate_is_named_in_the_sentence() -> None:
    space = Space(3, (Track(Configuration("retain", "none"), "fine-tuning"),), TrainingSettings(epochs=1), RATES)
    outcomes, labels = {}, np.array([0, 1, 1, 0])
    for fails in (False, True):
        history: dict[str, Result] = {}
        while (found := next_round(space, history)) is not None:
            trial = found.trials[0]
            history[trial.key] = Result(trial, FAILED if fails and trial.cut == 0 else 0.5, 0.5)
        stages = SimpleNamespace(stages=[SimpleNamespace(name=f"stage {i}") for i in range(3)])
        data = SimpleNamespace(validation=[None] * 4, classes=("a", "b"), made=(), digest="", set_aside=(), warnings=())
        data.split = lambda _: [None] * 4
        outcomes[fails] = Outcome(space, history, stages, data, labels, lambda _: np.eye(2)[labels])  # type: ignore[arg-type]
    assert "failed at every rate" not in outcomes[False].to_json()["sentence"]
    assert "with traditional fine-tuning: it failed at every rate" in outcomes[True].to_json()["sentence"]
