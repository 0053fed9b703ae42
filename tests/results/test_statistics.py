"""Intervals and tests: worked examples, independent formulas, and how often they are right in simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from inarch.results.statistics import accuracy_interval, holm, paired_difference, paired_on_draws


def _booleans(seeds: int, images: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.bool_, (seeds, images))


class World:
    """Images of different difficulty and seeds of different luck; a and b share most of an image's difficulty."""

    def __init__(self, seed_spread: float, mean: float = 4.0) -> None:
        self.seed_spread, self.mean = seed_spread, mean

    def draw(self, rng: np.random.Generator, images: int, seeds_a: int, seeds_b: int) -> tuple[np.ndarray, np.ndarray]:
        shared = rng.normal(size=images)
        sides = []
        for seeds in (seeds_a, seeds_b):
            difficulty = np.sqrt(0.8) * shared + np.sqrt(0.2) * rng.normal(size=images)
            logit = self.mean + 3.0 * difficulty + self.seed_spread * rng.normal(size=(seeds, 1))
            sides.append(rng.random((seeds, images)) < 1 / (1 + np.exp(-logit)))
        return sides[0], sides[1]

    def accuracy(self) -> float:
        z = np.random.default_rng(99).normal(size=500_000)
        return float((1 / (1 + np.exp(-(self.mean + np.hypot(3.0, self.seed_spread) * z)))).mean())


def test_one_seed_gives_wilsons_interval_with_students_quantile() -> None:
    # The example of Newcombe (Statistics in Medicine 17, 1998): for 81 of 263, Wilson gives 0.2553 to 0.3662.
    correct = np.arange(263)[None] < 81
    found = accuracy_interval(correct)
    assert found.of == "images"
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=6e-4)


def test_an_accuracy_of_one_or_zero_has_an_interval_of_some_width() -> None:
    # Newcombe's 0 of 20: Wilson's interval is 0 to 0.1611.
    none, every = accuracy_interval(np.zeros((1, 20))), accuracy_interval(np.ones((3, 20)))
    assert (none.low, none.high) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert (every.low, every.high) == pytest.approx((0.8389, 1.0), abs=1e-4)


def test_seeds_that_agree_on_every_image_tell_nothing_that_one_does_not() -> None:
    one = np.random.default_rng(0).random((1, 200)) < 0.8
    several, single = accuracy_interval(np.repeat(one, 4, axis=0)), accuracy_interval(one)
    assert (several.low, several.high) == pytest.approx((single.low, single.high))
    assert (several.of, single.of) == ("images and seeds", "images")


def test_a_wider_level_gives_a_wider_interval_of_the_same_data() -> None:
    correct = np.random.default_rng(1).random((3, 100)) < 0.7
    narrow, wide = accuracy_interval(correct, level=0.8), accuracy_interval(correct, level=0.99)
    assert wide.low < narrow.low < correct.mean() < narrow.high < wide.high


def test_one_seed_each_gives_a_paired_test_over_images_alone() -> None:
    # 30 images right by a alone, 10 by b alone, of 100. Worked by hand: d = 0.20,
    # V = (41 / 102 - (20 / 102)^2) / 102 = 0.0035639, t = 0.2 / 0.0596983 = 3.3502 with 101 degrees of freedom.
    a = np.repeat([1, 0, 1, 0], [30, 10, 40, 20])[None]
    b = np.repeat([0, 1, 1, 0], [30, 10, 40, 20])[None]
    found = paired_difference(a, b)
    assert found.of == "images"
    assert found.difference == pytest.approx(0.20)
    assert found.interval95 == pytest.approx((0.2 - 1.98373 * 0.0596983, 0.2 + 1.98373 * 0.0596983), abs=1e-5)
    assert found.p == pytest.approx(2 * stats.t.sf(3.35018, 101), rel=1e-4)


def test_the_variance_agrees_with_two_way_analysis_of_variance_from_its_textbook_sums() -> None:
    rng = np.random.default_rng(5)
    a, b = World(seed_spread=0.6).draw(rng, 120, 4, 3)
    images = 120
    parts = []
    for x in (a.astype(float), b.astype(float)):
        seeds = len(x)
        correction = x.sum() ** 2 / x.size
        ss_seeds = (x.sum(axis=1) ** 2).sum() / images - correction
        ss_images = (x.sum(axis=0) ** 2).sum() / seeds - correction
        ss_rest = (x**2).sum() - correction - ss_seeds - ss_images
        ms_seeds, df_rest = ss_seeds / (seeds - 1), (seeds - 1) * (images - 1)
        assert ms_seeds > ss_rest / df_rest, "the example must have a seed component on both sides"
        parts += [(ms_seeds / x.size, seeds - 1), (-ss_rest / df_rest / x.size, df_rest)]
    d = a.mean(axis=0) - b.mean(axis=0)
    padded = np.concatenate([d, [0.0]])  # the added pair that agrees; the one that differs adds 1 to the squares
    variance_images = ((padded**2).sum() + 1) / (images + 2) - (padded.sum() / (images + 2)) ** 2
    parts.append((variance_images / (images + 2), images + 1))
    variance = sum(v for v, _ in parts)
    degrees = variance**2 / sum(v**2 / k for v, k in parts)
    reach = stats.t.ppf(0.975, degrees) * np.sqrt(variance)
    found = paired_difference(a, b)
    assert found.of == "images and seeds"
    assert found.interval95 == pytest.approx((d.mean() - reach, d.mean() + reach), rel=1e-9)


def test_networks_that_agree_on_every_image_differ_by_nothing_and_still_have_an_interval() -> None:
    a = np.random.default_rng(2).random((2, 50)) < 0.9
    same = paired_difference(a[:1], a[:1])
    assert (same.difference, same.p) == (0.0, 1.0)
    assert same.interval95[0] < 0 < same.interval95[1] < 0.05


def test_networks_that_differ_on_every_image_differ_for_sure() -> None:
    found = paired_difference(np.ones((2, 40)), np.zeros((2, 40)))
    assert found.difference == 1.0
    assert found.interval95[1] == 1.0
    assert found.p < 1e-10


def test_one_seed_on_one_side_is_labelled_as_over_images() -> None:
    a, b = World(seed_spread=0.3).draw(np.random.default_rng(0), 60, 3, 1)
    assert paired_difference(a, b).of == paired_difference(b, a).of == "images"
    assert paired_difference(a, a[::-1]).of == "images and seeds"


@settings(max_examples=60, deadline=None)
@given(_booleans(3, 25), _booleans(2, 25))
def test_swapping_the_sides_mirrors_the_result_and_all_bounds_hold(a: np.ndarray, b: np.ndarray) -> None:
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.difference == pytest.approx(-back.difference)
    assert there.p == pytest.approx(back.p)
    assert there.interval95 == pytest.approx((-back.interval95[1], -back.interval95[0]))
    assert -1 <= there.interval95[0] <= there.difference <= there.interval95[1] <= 1
    assert 0 <= there.p <= 1
    # The test and the interval say the same.
    excluded = there.interval95[0] > 0 or there.interval95[1] < 0
    assert excluded == (there.p < 0.05)
    interval = accuracy_interval(a)
    assert 0 <= interval.low <= a.mean() <= interval.high <= 1
    assert interval.low < interval.high


@pytest.mark.parametrize(("seed_spread", "seeds"), [(0.0, 3), (0.15, 3), (0.4, 3), (0.15, 5)])
def test_equal_methods_are_told_apart_in_at_most_one_of_twenty_studies(seed_spread: float, seeds: int) -> None:
    world, rng = World(seed_spread), np.random.default_rng(7)
    studies = 600
    rejected = sum(paired_difference(*world.draw(rng, 300, seeds, seeds)).p < 0.05 for _ in range(studies))
    # 0.05 plus three standard errors of the simulation.
    assert rejected / studies < 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


def test_seeds_that_are_left_out_reject_too_often_which_is_why_the_label_says_so() -> None:
    world, rng = World(seed_spread=0.4), np.random.default_rng(8)
    rejected = np.mean([paired_difference(*world.draw(rng, 300, 1, 1)).p < 0.05 for _ in range(300)])
    assert rejected > 0.15


def test_a_real_difference_is_found() -> None:
    better, worse, rng = World(seed_spread=0.1, mean=5.0), World(seed_spread=0.1, mean=4.0), np.random.default_rng(9)
    found = 0
    for _ in range(200):
        state = rng.bit_generator.state
        a, _ = better.draw(rng, 400, 3, 3)
        rng.bit_generator.state = state
        _, b = worse.draw(rng, 400, 3, 3)
        found += paired_difference(a, b).p < 0.05
    assert found > 150


@pytest.mark.parametrize(("seed_spread", "mean", "images"), [(0.0, 4.0, 300), (0.15, 4.0, 300), (0.1, 8.0, 300)])
def test_accuracy_intervals_hold_the_truth_nineteen_times_of_twenty(
    seed_spread: float, mean: float, images: int
) -> None:
    world, rng = World(seed_spread, mean), np.random.default_rng(11)
    truth, studies = world.accuracy(), 600
    intervals = [accuracy_interval(world.draw(rng, images, 3, 1)[0]) for _ in range(studies)]
    coverage = np.mean([i.low <= truth <= i.high for i in intervals])
    assert coverage > 0.95 - 3 * np.sqrt(0.05 * 0.95 / studies)


def test_a_difference_on_shared_draws_has_the_variance_of_a_paired_t_test_and_what_images_add() -> None:
    # Three draws of four images, worked by hand: d has draw means 1/2, 1/4, 0 and image means 2/3, 1/3, 0, 0.
    a = [[1, 1, 1, 0], [1, 0, 1, 0], [0, 1, 1, 0]]
    b = [[0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 1, 0]]
    found = paired_on_draws(a, b)
    # MS_draws / (n draws) = variance of the draw means / 3 = (1/16) / 3. Squares of the rest: all, 3, less those of
    # draws, 4 (1/4 + 1/16), and of images, 3 (4/9 + 1/9), and again that of the mean, 12 / 16; over 2 * 3 * 12.
    # Image means with two imagined ones: ((5/9 + 1) / 6 - (1/6)^2) / 6.
    variance = 1 / 48 + ((14 / 9) / 6 - 1 / 36) / 6 - (5 / 6) / 72
    assert found.difference == pytest.approx(0.25)
    reach = 4.302653 * np.sqrt(variance)
    assert found.interval95 == pytest.approx((0.25 - reach, 1.0), abs=1e-6)  # which would reach above 1
    assert found.p == pytest.approx(2 * stats.t.sf(0.25 / np.sqrt(variance), 2))
    assert found.of == "images and seeds"


def test_what_makes_a_draw_easy_for_both_is_no_part_of_their_difference() -> None:
    # Whole draws are right or wrong for both alike; a is right on ten images more in each.
    b = np.zeros((4, 200), dtype=bool)
    b[:2, :150] = True
    a = b.copy()
    a[:2, 150:160], a[2:, :10] = True, True
    low, high = paired_on_draws(a, b).interval95
    independent = paired_difference(a, b).interval95
    assert high - low < 0.2 < 0.8 < independent[1] - independent[0]


def test_methods_that_agree_on_every_draw_differ_by_nothing_and_still_have_an_interval() -> None:
    a = np.random.default_rng(2).random((3, 50)) < 0.9
    same = paired_on_draws(a, a)
    assert (same.difference, same.p) == (0.0, 1.0)
    assert same.interval95[0] < 0 < same.interval95[1]


def test_draws_whose_differences_are_equal_by_chance_leave_an_interval_of_some_width() -> None:
    a, b = np.zeros((2, 40)), np.zeros((2, 40))
    a[0, :4], a[1, 4:8] = 1, 1  # each time four more, on other images
    found = paired_on_draws(a, b)
    assert found.difference == pytest.approx(0.1)
    assert found.interval95[0] < 0 < found.p


def test_one_draw_is_compared_over_images_alone() -> None:
    a, b = World(seed_spread=0.3).draw(np.random.default_rng(0), 60, 1, 1)
    assert paired_on_draws(a, b) == paired_difference(a, b)
    assert paired_on_draws(a, b).of == "images"


def test_draws_that_only_one_side_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the same draws and images on both sides, got \(3, 5\) and \(2, 5\)"):
        paired_on_draws(np.ones((3, 5)), np.ones((2, 5)))


@settings(max_examples=60, deadline=None)
@given(_booleans(3, 25), _booleans(3, 25))
def test_swapping_the_sides_on_shared_draws_mirrors_the_result(a: np.ndarray, b: np.ndarray) -> None:
    there, back = paired_on_draws(a, b), paired_on_draws(b, a)
    assert there.p == pytest.approx(back.p)
    assert there.interval95 == pytest.approx((-back.interval95[1], -back.interval95[0]))
    excluded = there.interval95[0] > 0 or there.interval95[1] < 0
    assert excluded == (there.p < 0.05)


def test_holm_agrees_with_a_worked_example() -> None:
    # 0.01 x 4, 0.02 x 3, 0.03 x 2 and 0.04 x 1, each at least as large as the one before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6, 0.001]) == pytest.approx([1.0, 1.0, 0.003])


def test_holm_of_one_is_itself_and_of_none_is_nothing() -> None:
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_arrays_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[seeds, images\].*got shape \(4,\)"):
        accuracy_interval(np.ones(4))
    with pytest.raises(ValueError, match="at least one of each"):
        accuracy_interval(np.ones((1, 0)))
    with pytest.raises(ValueError, match="right or wrong"):
        accuracy_interval(np.full((1, 3), 0.5))
    with pytest.raises(ValueError, match="the same images on both sides, got 3 and 4"):
        paired_difference(np.ones((1, 3)), np.ones((1, 4)))
