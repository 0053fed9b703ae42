"""Every moment of a study belongs to one section of its profile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from program import ONE, inarch
from toy import write_images, write_source

from inarch.profile import WORK, Profile, overhead, peak_memory


class Hand:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_inner_sections_time_is_its_own_and_all_sections_sum_to_the_total() -> None:
    clock = Hand()
    profile = Profile(clock)
    clock.now += 1
    with profile.section("training"):
        clock.now += 10
        with profile.section("views"):
            clock.now += 3
        clock.now += 20
        with profile.section("views"), profile.section("training"):
            clock.now += 4
    clock.now += 2
    assert profile.seconds() == {"other": 3, "training": 34, "views": 3}
    clock.now += 5
    assert profile.seconds() == {"other": 8, "training": 34, "views": 3}
    assert overhead(profile.seconds()) == pytest.approx(8 / 45)


def test_time_beside_this_process_is_shared_out_by_what_was_done_there() -> None:
    clock = Hand()
    profile = Profile(clock)
    with profile.section("measuring"):
        clock.now += 4
        profile.works_beside(True)
        clock.now += 10
        profile.works_beside(False)
        clock.now += 1
    profile.works_beside(True)
    with profile.section("ledger"):
        clock.now += 5
    profile.works_beside(False)
    profile.add_beside(0, {"training": 18.0, "views": 2.0}, memory=300)
    profile.add_beside(1, {"training": 6.0, "measuring": 4.0}, memory=200)
    profile.add_beside(0, {}, memory=100)
    # 15 seconds, in which two processes trained for 24, made views for 2 and measured for 4.
    assert profile.seconds() == {"other": 0, "measuring": 5 + 2, "training": 12, "views": 1}
    assert profile.memory_beside == 500


def test_a_section_ends_where_an_error_leaves_it() -> None:
    clock = Hand()
    profile = Profile(clock)

    def fails() -> None:
        with profile.section("training"):
            clock.now += 1
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    clock.now += 2
    assert profile.seconds() == {"training": 1, "other": 2}


def test_the_profile_of_a_study_names_its_parts_and_sums_to_its_seconds(tmp_path: Path) -> None:
    source, images = write_source(tmp_path / "source"), write_images(tmp_path / "images", a_class=12)
    # A store of its own: in one that other tests filled, no prefix pass would be left to do.
    command = ("fit", images, "--source", source, "--out", tmp_path / "run", "--store", tmp_path / "store", *ONE)
    ran = inarch(*command, "--profile")
    assert ran.exit_code == 0, ran.said
    cost = json.loads((tmp_path / "run" / "results.json").read_text())["cost"]
    profile = cost["profile"]
    assert profile.keys() >= {*WORK, "reading images", "measuring", "ledger", "checkpoints", "search and estimates"}
    assert min(profile.values()) >= 0
    # The model is written when the seconds are known already.
    late = profile["model and evidence"] + profile["checkpoints"] + 0.1
    assert cost["seconds"] - 0.1 <= sum(profile.values()) <= cost["seconds"] + late
    assert "where the time went" in ran.out
    assert "Outside training, evaluation and feature extraction: " in ran.said
    assert "where the time went" not in inarch(*command).out


def test_peak_memory_is_in_bytes_and_never_falls() -> None:
    before = peak_memory()
    held = np.ones(16 << 20)  # 128 MiB
    during = peak_memory()
    del held
    if before is None:
        pytest.skip("this system does not count it")
    assert during is not None
    assert 50 << 20 < before <= during < 1 << 40
    assert peak_memory() == pytest.approx(during)
