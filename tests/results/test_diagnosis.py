"""Errors and class profiles against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from inarch.results.diagnosis import ClassProfile, Mistake, confident_mistakes, confusions, highest

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.85, 0.05], [0.3, 0.6, 0.1], [0.05, 0.9, 0.05], [0.1, 0.3, 0.6]])
LABELS = np.array([0, 0, 0, 1, 1])


def test_every_pair_of_true_and_predicted_class_is_counted_once() -> None:
    assert confusions(PROBABILITIES, LABELS) == [(0, 0, 1), (0, 1, 2), (1, 1, 1), (1, 2, 1)]


def test_the_most_confident_mistakes_come_first_and_ties_by_position() -> None:
    assert confident_mistakes(PROBABILITIES, LABELS, 2) == [Mistake(1, 0, 1, 0.85, 0.1), Mistake(2, 0, 1, 0.6, 0.3)]
    assert [m.position for m in confident_mistakes(PROBABILITIES, LABELS, 9)] == [1, 2, 4]
    assert confident_mistakes(PROBABILITIES[:1], LABELS[:1], 9) == []


def test_a_profile_is_the_mean_of_standardised_logits() -> None:
    logits = np.array([[1.0, 10.0, 4.0], [3.0, 10.0, 0.0], [5.0, 10.0, 2.0], [7.0, 10.0, 2.0]])
    profile = ClassProfile(3, 3)
    profile.add(logits[:3], np.array([0, 0, 1]))
    profile.add(logits[3:], np.array([1]))
    spread = np.sqrt(5.0)  # of 1, 3, 5, 7 around 4
    expected = [[-2 / spread, 0, 0], [2 / spread, 0, 0], [0, 0, 0]]
    assert profile.raised() == pytest.approx(np.array(expected))


def test_a_profile_is_that_of_numpy_whatever_the_batches() -> None:
    random = np.random.default_rng(3)
    logits, labels = random.normal(5, 2, (40, 6)).astype(np.float32), random.integers(0, 4, 40)
    scores = (logits - logits.mean(axis=0, dtype=np.float64)) / logits.std(axis=0, dtype=np.float64)
    expected = [scores[labels == label].mean(axis=0) for label in range(4)]
    profile = ClassProfile(4, 6)
    for start in range(0, 40, 7):
        profile.add(logits[start : start + 7], labels[start : start + 7])
    assert profile.raised() == pytest.approx(np.array(expected), rel=1e-6)


def test_the_highest_are_above_zero_and_ties_keep_their_order() -> None:
    assert highest([0.5, -1.0, 2.0, 0.5, 0.0], 4) == [2, 0, 3]
    assert highest([0.5, 0.6, 0.7], 2) == [2, 1]
