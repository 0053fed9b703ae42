"""What the report says in words follows from the figures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inarch.network.grafts import Configuration
from inarch.outcome import Outcome, kept_sentence
from inarch.search.choice import confirmations
from inarch.search.race import Race
from inarch.search.rounds import next_round
from inarch.search.space import FAILED, TRADITIONAL, Result, Space, Track
from inarch.training.trial import TrainingSettings

LABELS = np.array([0, 1, 1, 0])
RATES = dict.fromkeys((Configuration("retain", "none"), TRADITIONAL), 0.1)


def an_outcome(
    space: Space, history: dict[str, Result], labels: np.ndarray = LABELS, answers: np.ndarray = LABELS
) -> Outcome:
    """Of four validation images, and of test images with `labels` of two classes to which every network `answers`."""
    stages: Any = SimpleNamespace(stages=[SimpleNamespace(name=f"stage {i}") for i in range(space.stages)])
    data: Any = SimpleNamespace(
        validation=[None] * 4, classes=("a", "b"), made=(), digest="", set_aside=(), warnings=(),
        split=lambda _: [None] * 4,
    )  # fmt: skip
    return Outcome(space, history, stages, data, labels, lambda _: np.eye(2)[answers])


def finished(space: Space) -> dict[str, Result]:
    """Results of a study from its first trial to its last; with fewer frozen stages more images are right."""
    history: dict[str, Result] = {}
    while (found := next_round(space, history)) is not None:
        trial = found.trials[0]
        history[trial.key] = Result(trial, 0.5 - 0.1 * trial.cut, 0.5)
    while (trial := next(Race(space, history).pending(), None)) is not None:
        history[trial.key] = Result(trial, 0.5, 0.5)
    return history


def kept_layer(space: Space, history: dict[str, Result]) -> dict[str, Any]:
    found: dict[str, Any] = an_outcome(space, history).to_json()["kept_layer"]
    return found


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


def test_there_is_no_verdict_before_the_best_of_both_sides_is_trained_in_full() -> None:
    settings = TrainingSettings(epochs=8)
    space = Space(3, (Track(Configuration("retain", "none"), "fine-tuning"),), settings, RATES, seeds=2)
    history = finished(space)
    assert kept_layer(space, history)["tuned_alike"]
    again = {t.key for t in confirmations(space, Race(space, history).roles["retain_best_cut"])}
    kept = kept_layer(space, {key: result for key, result in history.items() if key not in again})
    assert not kept["tuned_alike"]
    assert kept["sentence"].startswith("Time was too short to tune both alike; so far")


def test_a_baseline_that_failed_at_every_rate_is_named_in_the_sentence() -> None:
    space = Space(3, (Track(Configuration("retain", "none"), "fine-tuning"),), TrainingSettings(epochs=1), RATES)
    sentences = {}
    for fails in (False, True):
        history: dict[str, Result] = {}
        while (found := next_round(space, history)) is not None:
            trial = found.trials[0]
            history[trial.key] = Result(trial, FAILED if fails and trial.cut == 0 else 0.5, 0.5)
        sentences[fails] = an_outcome(space, history).to_json()["sentence"]
    assert "failed at every rate" not in sentences[False]
    assert "with traditional fine-tuning: it failed at every rate" in sentences[True]


@pytest.mark.parametrize(
    ("frequent", "right", "warned"),
    [
        (500, (500, 0), True),
        (500, (260, 260), True),  # ahead by two points, which chance may do
        (500, (300, 300), False),
        (940, (940, 10), False),  # ahead by one point, on the same images
        (940, (935, 10), True),
    ],
)
def test_an_accuracy_that_one_answer_for_all_images_may_reach_is_called_that(
    frequent: int, right: tuple[int, int], warned: bool
) -> None:
    """Of 1,000 test images `frequent` are of the first class; `right`: how many answers are right in each class."""
    space = Space(3, (Track(Configuration("retain", "none"), "fine-tuning"),), TrainingSettings(epochs=1), RATES)
    labels = np.repeat([0, 1], [frequent, 1000 - frequent])
    answers = np.repeat([0, 1, 0, 1], [right[0], frequent - right[0], 1000 - frequent - right[1], right[1]])
    warnings = an_outcome(space, finished(space), labels, answers).to_json()["warnings"]
    expected = f"to name 'a' every time would be right on {frequent / 10} % of the test images."
    assert [warning.endswith(expected) for warning in warnings] == [True] * warned
