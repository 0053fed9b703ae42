"""Conformal p-values: what they promise, exactly and in simulation, where they promise nothing, and their file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from inarch.errors import RunFolderError, SourceError, UsageError
from inarch.results.unknown import (
    KNOWN,
    Known,
    entropy,
    expected_share,
    fewest_images,
    measured,
    p_values,
    read_known,
)


def known(images: int) -> Known:
    return Known(np.linspace(0.0, 1.0, images) if images else np.zeros(0))


def test_the_entropy_is_that_of_scipy_with_zeros_and_ones() -> None:
    p = np.array([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.7, 0.3, 0.0]], dtype=np.float32)
    assert entropy(p) == pytest.approx(stats.entropy(p.astype(np.float64), axis=1))
    assert entropy(p)[0] == 0.0


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.integers(0, 8), min_size=2, max_size=40),
    st.sampled_from([0.01, 0.05, 0.1, 0.2, 0.5, 0.9]),
)
def test_no_more_than_the_rate_of_any_images_are_unknown_when_each_is_judged_by_the_others(
    scores: list[int], rate: float
) -> None:
    """The whole proof: exchangeable images are any order of some scores, ties included."""
    values = np.array(scores, dtype=np.float64)
    unknown = [p_values(values[[i]], np.delete(values, i))[0] <= rate for i in range(len(values))]
    assert np.mean(unknown) <= rate
    if len(set(scores)) == len(scores):
        assert sum(unknown) == math.floor(rate * len(scores) + 1e-9)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(0, 3), min_size=19, max_size=60), st.floats(0, 3), st.sampled_from([0.05, 0.1, 0.25]))
def test_a_small_p_value_is_a_score_above_the_conformal_quantile(
    calibration: list[float], score: float, rate: float
) -> None:
    n = len(calibration)
    place = math.ceil((n + 1) * (1 - rate) - 1e-9)
    threshold = sorted(calibration)[place - 1]
    assert (p_values(np.array([score]), np.array(calibration))[0] <= rate) == (score > threshold)


@pytest.mark.parametrize(("rate", "images"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.3, 3), (0.5, 1), (0.9, 1)])
def test_the_fewest_images_are_those_with_which_something_can_be_unknown(rate: float, images: int) -> None:
    assert fewest_images(rate) == images
    for n, possible in ((images - 1, False), (images, True)):
        assert (p_values(np.array([9.0]), np.zeros(n))[0] <= rate) == possible


def test_too_few_validation_images_and_shares_that_are_none_are_refused() -> None:
    known(19).require(0.05)
    with pytest.raises(UsageError, match=r"needs 19 validation images; this model had 18, .* at least 0\.053, or run"):
        known(18).require(0.05)
    known(18).require(0.053)
    with pytest.raises(UsageError, match=r"had 0, .* Run inarch fit with more validation images"):
        known(0).require(0.05)
    for rate in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="is no share of images"):
            known(100).require(rate)


def test_the_rate_holds_on_average_and_varies_as_much_as_is_said() -> None:
    random = np.random.default_rng(0)
    shares = []
    for _ in range(2000):
        scores = random.exponential(size=150 + 200)
        shares.append(np.mean(p_values(scores[150:], scores[:150]) <= 0.05))
    assert np.mean(shares) == pytest.approx(7 / 151, abs=0.0015)
    low, high = expected_share(0.05, 150, 200)
    assert np.mean((np.array(shares) >= low) & (np.array(shares) <= high)) == pytest.approx(0.96, abs=0.02)
    assert expected_share(0.05, 10, 200) == (0.0, 0.0)


def test_images_of_classes_that_validation_lacks_are_counted_apart_and_promised_nothing() -> None:
    sure, unsure = [0.98, 0.01, 0.01], [0.4, 0.3, 0.3]
    validation = np.array([sure] * 90 + [[0.01, 0.98, 0.01]] * 9)
    model = Known.of(validation, validation.argmax(axis=1), ["a", "b", "c"])
    assert model.without == ("c",)
    found = measured(model, np.array([sure, unsure, sure, unsure]), np.array([0, 0, 1, 2]), ["a", "b", "c"])
    assert found["classes_without_validation"] == ["c"]
    rate = found["rates"][1]
    assert rate["promised"] == 0.05
    assert (rate["test"]["images"], rate["test"]["unknown"], rate["test"]["share"]) == (3, 1, pytest.approx(1 / 3))
    assert rate["test"]["interval95"][0] < 1 / 3 < rate["test"]["interval95"][1]
    assert "expected95" in rate["test"]
    assert (rate["test_without_validation"]["images"], rate["test_without_validation"]["unknown"]) == (1, 1)
    assert "expected95" not in rate["test_without_validation"]


def test_rates_that_the_validation_images_cannot_show_are_left_out() -> None:
    validation = np.tile([0.9, 0.1], (19, 1))
    model = Known.of(validation, np.arange(19) % 2, ["a", "b"])
    assert [r["promised"] for r in measured(model, validation, np.zeros(19, int), ["a", "b"])["rates"]] == [0.05, 0.1]


def test_the_file_holds_what_was_written_bit_for_bit(tmp_path: Path) -> None:
    p = np.random.default_rng(1).dirichlet([1, 1, 1], 50).astype(np.float32)
    written = Known.of(p, np.zeros(50, int), ["a", "b", "c"])
    written.write(tmp_path)
    found = read_known(tmp_path, "m")
    assert found.without == ("b", "c")
    assert np.array_equal(found.scores, np.sort(entropy(p)))
    assert found.p_values(p[:3]).tolist() == written.p_values(p[:3]).tolist()


def test_a_file_that_is_not_there_or_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no known\.json that can be read.*same inarch fit command"):
        read_known(tmp_path, "m")
    known(3).write(tmp_path)
    value = json.loads((tmp_path / KNOWN).read_text())
    (tmp_path / KNOWN).write_text(json.dumps(value | {"score": "other"}))
    with pytest.raises(RunFolderError, match="score is 'other'"):
        read_known(tmp_path, "m")
