"""The grid of a study's trials, its sample, and the sum over it."""

from __future__ import annotations

import pytest

import grid
from grid import Grid

# Five stages of equal cost.
EVEN = Grid((0.0, 0.2, 0.4, 0.6, 0.8, 1.0), cuts=(0, 2, 4, 5), seeds=2)


def test_the_grid_is_every_cut_graft_and_seed_that_can_be() -> None:
    # Replacing cannot be frozen up to the layer that it throws away.
    assert len(EVEN.trials()) == 4 * 4 - 1
    assert len(EVEN) == 30
    assert (5, "replace") not in EVEN.trials()


@pytest.mark.parametrize("stages", [10, 15, 20])
def test_there_are_eight_cuts_for_every_graft(stages: int) -> None:
    cuts = grid.spread_cuts(stages)
    assert cuts[0] == 0
    assert cuts[-2:] == (stages - 1, stages)
    for graft in grid.GRAFTS:
        of_graft = Grid(tuple(i / stages for i in range(stages + 1)), cuts)
        assert sum(graft in of_graft.grafts_at(cut) for cut in cuts) >= 8


def test_every_cut_is_sampled_with_every_graft_over_the_rounds() -> None:
    seen = [(t["cut"], t["graft"]) for turn in range(4) for t in grid.sample(EVEN, 4, turn)]
    assert set(seen) == set(EVEN.trials())


def test_a_short_sample_holds_the_first_and_the_last_cut() -> None:
    cuts = [trial["cut"] for trial in grid.sample(EVEN, 2, 0)]
    assert cuts == [0, 5]


def test_the_sum_counts_every_trial_once_a_seed() -> None:
    seconds = {0: 10.0, 2: 7.0, 4: 5.0, 5: 4.0}
    sampled = [{"cut": cut, "seconds": value} for cut, value in seconds.items()]
    by_hand = 2 * (4 * 10 + 4 * 7 + 4 * 5 + 3 * 4)
    assert grid.added_up(EVEN, grid.cost_by_cut(EVEN, sampled)) == pytest.approx(by_hand)
    assert grid.added_up(EVEN, grid.cost_by_cut(EVEN, sampled), once=3.0) == pytest.approx(by_hand + 3)


def test_cuts_that_were_not_sampled_are_on_the_line_between_those_that_were() -> None:
    # 10 s in full, 4 s with all frozen: what is frozen saves in proportion to its share of the forward pass.
    by_cut = grid.cost_by_cut(EVEN, [{"cut": 0, "seconds": 10.0}, {"cut": 5, "seconds": 4.0}])
    assert by_cut == pytest.approx({0: 10.0, 2: 7.6, 4: 5.2, 5: 4.0})


def test_one_slow_round_does_not_move_the_sum() -> None:
    sampled = [{"cut": 0, "seconds": value} for value in (1.0, 1.0, 50.0)]
    assert grid.cost_by_cut(Grid((0.0, 1.0), (0,)), sampled) == {0: 1.0}


def test_a_store_is_filled_once_for_each_seed() -> None:
    sampled = [{"cut": cut, "first": 1.0 + cut, "again": 1.0} for cut in EVEN.cuts]
    filling, reading = 2 * 5.0, 30 * 1.0
    assert grid.stored_sum(EVEN, sampled) == pytest.approx(filling + reading)


def test_all_grafts_are_compared_at_one_cut() -> None:
    assert {t["graft"] for t in grid.all_grafts(EVEN)} == set(EVEN.grafts_at(4))
    assert {t["cut"] for t in grid.all_grafts(EVEN)} == {4}
