"""Stored prefix activations are what the prefix gives, however they came about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from workbench import workbench

from inarch.features.store import CHUNK


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("view", [None, 0, 7])
def test_stored_activations_equal_recomputed_ones(tmp_path: Path, cut: int, view: int | None) -> None:
    with workbench(tmp_path) as kept, torch.no_grad():
        assert len(kept.store.images.rows["train"]) < CHUNK  # one chunk: the same batch, so the same bits
        positions = np.arange(len(kept.store.images.rows["train"]))
        stored = kept.store.read(cut, "train", positions, view)
        assert kept.store.holds(cut, view)
    with workbench(tmp_path, limit=0) as forgetful, torch.no_grad():
        assert forgetful.store.kept_cuts == frozenset()
        again = forgetful.store.read(cut, "train", positions, view)
        assert not forgetful.store.holds(cut, view)
    assert torch.equal(stored, again)


def test_activations_made_from_held_ones_equal_those_made_from_pixels(tmp_path: Path) -> None:
    positions = np.arange(5)
    with workbench(tmp_path) as step_by_step:
        step_by_step.store.read(1, "train", positions, 0)
        found = step_by_step.store.read(3, "train", positions, 0)
    with workbench(tmp_path) as at_once:
        assert torch.equal(found, at_once.store.read(3, "train", positions, 0))


def test_a_batch_reads_its_own_images(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        everything = bench.store.read(2, "train", np.arange(len(bench.store.images.rows["train"])), 3)
        positions = np.array([4, 0, 11])
        assert torch.equal(bench.store.read(2, "train", positions, 3), everything[torch.from_numpy(positions)])


def test_what_is_kept_follows_from_sizes_and_the_limit(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        images = len(bench.store.images.rows["train"])
    # Two epochs of 4-byte elements: 12 after the second stage, 6 after the third, 512 after the first.
    with workbench(tmp_path, limit=2 * images * 4 * 12) as bench:
        assert bench.store.kept_cuts == {2, 3}
    with workbench(tmp_path, limit=2 * images * 4 * 12 - 1) as bench:
        assert bench.store.kept_cuts == {3}


def test_the_oldest_activations_make_room_within_the_limit(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        images = len(bench.store.images.rows["train"])
    limit = 2 * images * 4 * 12
    with workbench(tmp_path, limit=limit) as bench:
        for view in range(5):
            bench.store.read(2, "train", np.arange(images), view)
            assert sum(t.nbytes for t in bench.store._held.values()) <= limit
        assert not bench.store.holds(2, 0)
        assert bench.store.holds(2, 4)


def test_evaluation_batches_cover_the_split_in_order(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        batches = torch.cat(list(bench.store.batches(3, "validation")))
        positions = np.arange(len(bench.store.images.rows["validation"]))
        assert torch.equal(batches, bench.store.read(3, "validation", positions, None))
