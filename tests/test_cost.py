"""Estimates follow what a trial has to compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from workbench import SETTINGS, workbench

from inarch.launch.cost import CostModel, Speeds
from inarch.network.grafts import Configuration
from inarch.training.fit import view_number
from inarch.training.trial import Trial

SPEEDS = Speeds(view=0.001, forward=0.01, training=0.04, head=0.004)


def a_trial(graft: str, cut: int, seed: int = 0) -> Trial:
    return Trial(Configuration(graft, "none"), cut, "fine-tuning", 0.0, 0.1, seed, SETTINGS)


def test_deeper_cuts_cost_less_and_held_activations_next_to_nothing(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        costs = CostModel(bench.staged, bench.store, SPEEDS)
        by_cut = [costs.seconds(a_trial("retain", cut)) for cut in range(4)]
        assert by_cut == sorted(by_cut, reverse=True)
        images = np.arange(len(bench.store.images.rows["train"]))
        bench.store.read(2, "train", images, view_number(0, 0))
        assert costs.seconds(a_trial("joined", 3)) == pytest.approx(by_cut[3]), "one view of two is not enough"
        bench.store.read(2, "train", images, view_number(0, SETTINGS.epochs - 1))
        assert costs.seconds(a_trial("joined", 3)) < 0.2 * by_cut[3]
        assert costs.seconds(a_trial("joined", 3, seed=1)) == pytest.approx(by_cut[3])


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


def test_two_measurements_give_the_shorter_times() -> None:
    assert SPEEDS.fastest(Speeds(0.002, 0.005, 0.05, 0.001)) == Speeds(0.001, 0.005, 0.04, 0.001)


def test_measuring_changes_neither_weights_nor_random_state(tmp_path: Path) -> None:
    import torch

    with workbench(tmp_path) as bench:
        before = torch.get_rng_state()
        speeds = bench.measure(SETTINGS)
        assert torch.equal(before, torch.get_rng_state())
        fresh = bench.network(a_trial("retain", 0)).state_dict()
        source = bench._source_weights
        assert all(torch.equal(value, source[name.partition(".")[2]]) for name, value in fresh.items()
                   if not name.startswith("graft."))  # fmt: skip
    assert min(speeds.view, speeds.forward, speeds.training) > 0
