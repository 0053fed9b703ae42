"""Estimates follow what a trial has to compute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from workbench import SETTINGS, workbench

from inarch.features.shelf import Shelf
from inarch.features.store import Keeping
from inarch.launch.cost import CostModel, Speeds
from inarch.launch.here import Workbench
from inarch.network.grafts import Configuration
from inarch.training.fit import Watch
from inarch.training.order import view_number
from inarch.training.trial import Trial

SPEEDS = Speeds(view=0.001, forward=0.01, training=0.04, head=0.004)


def a_trial(graft: str, cut: int, seed: int = 0) -> Trial:
    return Trial(Configuration(graft, "none"), cut, "fine-tuning", 0.0, 0.1, seed, SETTINGS)


def test_deeper_cuts_cost_less_and_stored_views_nothing(tmp_path: Path) -> None:
    with workbench(tmp_path, keeping=Keeping((2,), shelf=Shelf(tmp_path / "store"))) as bench:
        costs = CostModel(bench.staged, bench.store, SPEEDS)
        by_cut = [costs.seconds(a_trial("retain", cut)) for cut in range(4)]
        assert by_cut == sorted(by_cut, reverse=True)
        images = np.arange(len(bench.store.images.rows["train"]))
        before = costs.raw(a_trial("joined", 3))
        a_view = len(images) * (SPEEDS.view + SPEEDS.forward * sum(s.cost for s in bench.staged.stages[:2]))
        bench.store.read(2, "train", images, view_number(0, 0, 4))
        assert costs.raw(a_trial("joined", 3)) == pytest.approx(before - a_view)
        bench.store.read(2, "train", images, view_number(0, 1, 4))
        assert costs.raw(a_trial("joined", 3)) == pytest.approx(before - 2 * a_view)
        assert costs.raw(a_trial("joined", 3, seed=1)) == pytest.approx(before)


def test_what_another_process_stored_costs_nothing(tmp_path: Path) -> None:
    keeping = Keeping((2,), shelf=Shelf(tmp_path / "store"))
    found = []
    for name in ("one", "other"):
        with workbench(tmp_path / name, keeping=keeping) as bench:
            found.append(CostModel(bench.staged, bench.store, SPEEDS).raw(a_trial("retain", 2)))
            bench.run([a_trial("retain", 2)], Watch())
    assert found[1] < 0.7 * found[0]


def test_views_that_come_again_are_paid_once(tmp_path: Path) -> None:
    with workbench(tmp_path, keeping=Keeping((2,))) as bench:
        costs = CostModel(bench.staged, bench.store, SPEEDS)
        images = len(bench.store.images.rows["train"])
        passing = images * (SPEEDS.view + SPEEDS.forward * sum(s.cost for s in bench.staged.stages[:2]))

        def raw(views: int) -> float:
            settings = replace(SETTINGS, epochs=8, views=views)
            return costs.raw(replace(a_trial("retain", 2), settings=settings))

        assert raw(4) - raw(2) == pytest.approx(2 * passing)
        assert raw(0) == pytest.approx(raw(8)) == pytest.approx(raw(100))
        assert raw(0) - raw(4) == pytest.approx(4 * passing)


def test_what_is_not_stored_costs_a_view_and_a_forward_pass_every_epoch(tmp_path: Path) -> None:
    with workbench(tmp_path, limit=0) as bench:
        costs = CostModel(bench.staged, bench.store, SPEEDS)
        images = {split: len(rows) for split, rows in bench.store.images.rows.items()}
        frozen = sum(stage.cost for stage in bench.staged.stages[:2])
        step = SPEEDS.view + frozen * SPEEDS.forward + (1 - frozen) * SPEEDS.training + SPEEDS.head / 8
        expected = SETTINGS.epochs * (images["train"] * step + images["validation"] * SPEEDS.forward)
        assert costs.raw(a_trial("retain", 2)) == pytest.approx(expected)


def test_trials_in_a_row_pay_for_a_view_together(tmp_path: Path) -> None:
    with workbench(tmp_path, keeping=Keeping((1, 2))) as bench:
        costs = CostModel(bench.staged, bench.store, SPEEDS)
        first, second = a_trial("retain", 1), a_trial("retain", 2)
        together = costs.total([[first], [second]])
        assert together < costs.seconds(first) + costs.seconds(second)
        assert costs.total([[first], [first]]) < 2 * costs.seconds(first)
        bench.run([first], Watch())
        assert together - costs.seconds(second) == pytest.approx(costs.total([[first]]) + passes(costs, bench, first))


def passes(costs: CostModel, bench: Workbench, trial: Trial) -> float:
    """Seconds, as estimated, in which all views of a trial are made."""
    images = SETTINGS.epochs * len(bench.store.images.rows["train"]) + len(bench.store.images.rows["validation"])
    an_image = SPEEDS.view + SPEEDS.forward * sum(stage.cost for stage in bench.staged.stages[:2])
    return images * an_image * costs.seconds(trial) / costs.raw(trial)


@pytest.mark.parametrize(("graft", "like"), [("residual", "joined"), ("head2toe", None)])
def test_a_graft_that_starts_from_the_images_costs_a_pass_over_them_for_each_trial(
    tmp_path: Path, graft: str, like: str | None
) -> None:
    with workbench(tmp_path, keeping=Keeping((1, 2))) as bench:
        costs = CostModel(bench.staged, bench.store, SPEEDS)
        images = len(bench.store.images.rows["train"])
        a_pass = images * (SPEEDS.view + SPEEDS.forward)
        one, two = (costs.raw(*[a_trial(graft, 3)] * number) for number in (1, 2))
        further = two - one
        if like is not None:  # its steps are those of a graft without a start
            assert one - costs.raw(a_trial(like, 3)) == pytest.approx(a_pass)
            assert further - a_pass == pytest.approx(0.5 * SETTINGS.epochs * images / 8 * SPEEDS.head)
        else:  # not stacked: its steps are its own, and only what is stored is shared
            joined = costs.raw(a_trial("joined", 0)) - SETTINGS.epochs * images * SPEEDS.view
            assert a_pass < further < a_pass + joined
            passing = (SETTINGS.epochs * images + len(bench.store.images.rows["validation"])) * (
                SPEEDS.view + SPEEDS.forward * sum(stage.cost for stage in bench.staged.stages[:2])
            )
            assert one - further == pytest.approx(passing)


def test_a_trial_whose_curve_nobody_sees_is_validated_once(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        always, once = (
            CostModel(bench.staged, bench.store, SPEEDS, lambda trial, every=every: every).raw(a_trial("retain", 0))
            for every in (True, False)
        )
        pass_over = len(bench.store.images.rows["validation"]) * SPEEDS.forward
    assert always - once == pytest.approx((SETTINGS.epochs - 1) * pass_over)


def test_scales_that_are_matched_cost_a_pass_over_the_images(tmp_path: Path) -> None:
    with workbench(tmp_path, keeping=Keeping((1, 2))) as bench:
        costs = CostModel(bench.staged, bench.store, SPEEDS)
        a_pass = len(bench.store.images.rows["train"]) * (SPEEDS.view + SPEEDS.forward)
        matched, fixed = (
            costs.raw(replace(a_trial("retain", 3), configuration=Configuration("retain", harmonise)))
            for harmonise in ("l2-matched", "l2")
        )
        assert matched - fixed == pytest.approx(a_pass)


def test_finished_trials_correct_the_estimate_within_bounds(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        costs = CostModel(bench.staged, bench.store, SPEEDS)
        raw = costs.raw(a_trial("retain", 0))
        for _ in range(3):
            costs.learn(raw, 2 * raw)
        assert costs.seconds(a_trial("retain", 0)) == pytest.approx(2 * raw)
        for _ in range(20):
            costs.learn(raw, 100 * raw)
        assert costs.seconds(a_trial("retain", 0)) == pytest.approx(4 * raw)


def test_what_took_long_tells_more_than_many_trials_that_took_a_moment(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        costs = CostModel(bench.staged, bench.store, SPEEDS)
        trial = a_trial("retain", 0)
        for _ in range(10):
            costs.learn(1.0, 0.3)
        for _ in range(2):
            costs.learn(200.0, 260.0)
        assert costs.seconds(trial) / costs.raw(trial) == pytest.approx(1.3, abs=0.04)


def test_two_measurements_give_the_shorter_times() -> None:
    assert SPEEDS.fastest(Speeds(0.002, 0.005, 0.05, 0.001)) == Speeds(0.001, 0.005, 0.04, 0.001)


def test_measuring_changes_neither_weights_nor_random_state(tmp_path: Path) -> None:
    import torch

    with workbench(tmp_path) as bench:
        before = torch.get_rng_state()
        speeds = bench.measure(SETTINGS)
        assert torch.equal(before, torch.get_rng_state())
        fresh = bench.network(a_trial("retain", 0)).state_dict()
        source = bench.source_weights
        assert all(torch.equal(value, source[name.partition(".")[2]]) for name, value in fresh.items()
                   if not name.startswith("graft."))  # fmt: skip
    assert min(speeds.view, speeds.forward, speeds.training) > 0


def test_a_test_costs_what_lies_behind_the_stored_activations_and_one_pass_for_these(tmp_path: Path) -> None:
    with workbench(tmp_path, keeping=Keeping((2,))) as bench:
        costs = CostModel(bench.staged, bench.store, SPEEDS)
        images, frozen = len(bench.store.images.rows["test"]), sum(s.cost for s in bench.staged.stages[:2])
        shallow, deep = a_trial("replace", 0), a_trial("retain", 2)
        assert costs.testing([shallow, shallow]) == pytest.approx(2 * images * SPEEDS.forward)
        behind = 1 - frozen
        assert costs.testing([deep, deep, shallow]) == pytest.approx(
            images * SPEEDS.forward * (1 + frozen + 2 * behind)
        )
