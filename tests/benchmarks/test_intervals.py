"""The simulation of comparisons: that its worlds are like the records, and that tests keep their promise in them."""

from __future__ import annotations

import numpy as np
import pytest

import intervals
from inarch.results.statistics import paired_difference
from intervals import SIZES, WORLDS, methods, simulate, sizes


def test_the_world_has_the_sizes_that_the_records_show() -> None:
    found = methods(np.random.default_rng(0), SIZES, 2000, 200, (0.54,) * 4)
    assert np.mean(found) == pytest.approx(0.54, abs=0.02)
    # What `sizes` gives for 13 contestants of the comparison on clothing, 372 images and 3 draws of 20 a class.
    recorded = {
        "one, draws": 0.0499, "one, images": 0.289, "one, rest": 0.404,
        "difference, draws": 0.0080, "difference, images": 0.126, "difference, rest": 0.459,
    }  # fmt: skip
    assert sizes({str(n): x for n, x in enumerate(found)}) == pytest.approx(recorded, rel=0.15)


def test_sizes_agree_with_the_mean_squares_of_a_worked_layout() -> None:
    # Two draws of three images, half of all right. Draw means are 2/3 and 1/3, image means 1, 1/2 and 0.
    x = np.array([[1, 1, 0], [1, 0, 0]], dtype=bool)
    total, of_draws, of_images = 6 * 0.25, 3 * 2 * (1 / 6) ** 2, 2 * 2 * 0.25
    rest = (total - of_draws - of_images) / 2
    found = sizes({"x": x, "y": x})
    assert found["one, rest"] == pytest.approx(np.sqrt(rest))
    assert found["one, images"] == pytest.approx(np.sqrt(0.25 - rest / 2))
    assert found["one, draws"] == pytest.approx(np.sqrt(max(0.0, 1 / 18 - rest / 3)), abs=1e-7)
    assert found["difference, rest"] == 0.0


@pytest.mark.parametrize("world", WORLDS)
def test_equal_methods_on_the_same_draws_are_told_apart_in_at_most_one_of_twenty_comparisons(world: str) -> None:
    times = 300
    found = simulate(WORLDS[world], 372, 3, times=times, seed=5)
    allowed = 3 * np.sqrt(0.05 * 0.95 / times)
    assert found["rejected"] < 0.05 + allowed
    assert found["covered"] > 0.95 - allowed


def test_a_difference_of_eight_points_is_found_on_shared_draws_and_missed_where_they_count_as_independent() -> None:
    shared = simulate(SIZES, 372, 5, times=100, seed=6, difference=0.08)
    independent = simulate(SIZES, 372, 5, times=100, seed=6, difference=0.08, test=paired_difference)
    assert shared["rejected"] > 0.9
    assert shared["rejected"] > independent["rejected"] + 0.2
    assert shared["reach"] < independent["reach"]


def test_all_figures_are_there_and_are_shares() -> None:
    found = intervals.figures(20, images=(60,), draws=(3,))
    assert [row["world"] for row in found["rows"]] == list(WORLDS)
    assert all(0 <= row[name] <= 1 for row in found["rows"] for name in ("rejected", "covered", "power"))
    assert all(0 <= share <= 1 for share in found["family"].values())
