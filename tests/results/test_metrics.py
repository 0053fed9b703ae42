"""Metrics against worked examples and against scikit-learn used in the plainest way."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from inarch.errors import DataError
from inarch.results.metrics import calibration_error, classification_metrics, reliability

CLOSE = 1e-12


@pytest.fixture
def random() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.dirichlet(np.full(8, 0.5), size=400), rng.integers(0, 8, size=400)


def test_every_figure_agrees_with_scikit_learn(random: tuple[np.ndarray, np.ndarray]) -> None:
    p, y = random
    found = classification_metrics(p, y)
    predicted = p.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, predicted), abs=CLOSE)
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(y, predicted), abs=CLOSE)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(y, predicted, average="macro"), abs=CLOSE)
    assert found["log_loss"] == pytest.approx(metrics.log_loss(y, p), abs=CLOSE)
    inside = (np.argsort(p, axis=1)[:, -5:] == y[:, None]).any(axis=1)
    assert found["top5"] == pytest.approx(inside.mean(), abs=CLOSE)


def test_calibration_error_agrees_with_its_definition(random: tuple[np.ndarray, np.ndarray]) -> None:
    p, y = random
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == y
    expected = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert calibration_error(p, y) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_of_a_worked_example() -> None:
    # Two images at 0.9, one right: |0.5 - 0.9|; two at 0.6, both right: |1 - 0.6|. Each half of the images.
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert calibration_error(p, np.array([0, 1, 0, 0])) == pytest.approx(0.4)


def test_averages_are_over_the_classes_that_occur() -> None:
    # Class 2 has no image but is predicted once: it must count in no average.
    p = np.eye(3)[[0, 0, 2, 1]]
    found = classification_metrics(p, np.array([0, 0, 0, 1]))
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["macro_f1"] == pytest.approx((0.8 + 1) / 2)


def test_top5_is_none_with_five_classes_and_a_figure_with_six() -> None:
    assert classification_metrics(np.full((2, 5), 0.2), np.array([0, 1]))["top5"] is None
    assert classification_metrics(np.full((2, 6), 1 / 6), np.array([0, 1]))["top5"] is not None


def test_a_probability_of_zero_for_the_right_class_gives_a_finite_log_loss() -> None:
    found = classification_metrics(np.array([[1.0, 0.0]]), np.array([1]))
    assert found["log_loss"] == pytest.approx(-np.log(np.finfo(np.float64).eps))


def test_float32_rows_that_sum_to_one_only_nearly_are_taken_without_a_warning() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(1000), size=50).astype(np.float32)
    y = rng.integers(0, 1000, size=50)
    assert classification_metrics(p, y)["log_loss"] == pytest.approx(-np.log(p[np.arange(50), y]).mean(), rel=1e-4)


def test_no_images_is_an_error() -> None:
    with pytest.raises(DataError, match="no images to measure"):
        classification_metrics(np.empty((0, 3)), np.empty(0, dtype=np.int64))


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        (np.eye(3), np.array([0, 1]), "do not fit"),
        (np.eye(3), np.array([0, 1, 3]), "labels run from 0 to 3, with 3 classes"),
        (np.eye(3) * 2, np.array([0, 1, 2]), "sum to 1"),
        (np.where(np.eye(3) == 1, np.nan, 0), np.array([0, 1, 2]), "finite"),
    ],
)
def test_arrays_that_are_not_probabilities_and_labels_are_refused(p: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_metrics(p, y)


def test_reliability_bins_hold_mean_confidence_and_accuracy_and_add_up_to_the_calibration_error() -> None:
    p = np.array([[0.95, 0.05], [0.97, 0.03], [0.39, 0.61], [0.3, 0.7], [0.36, 0.64]])
    y = np.array([0, 1, 1, 0, 1])
    bins = reliability(p, y)
    assert [(b["images"], b["accuracy"]) for b in bins] == [(2, 1.0), (1, 0.0), (2, 0.5)]
    assert [b["confidence"] for b in bins] == pytest.approx([0.625, 0.7, 0.96])
    assert (bins[0]["low"], bins[0]["high"]) == pytest.approx((9 / 15, 10 / 15))
    gaps = sum(b["images"] * abs(b["accuracy"] - b["confidence"]) for b in bins) / 5
    assert calibration_error(p, y) == pytest.approx(gaps)
