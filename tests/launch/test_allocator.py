"""What a study that saves memory gives back to the system, and when."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch
from workbench import SETTINGS, workbench

from inarch.features.plan import Plan
from inarch.launch.allocator import give_back, keep_memory
from inarch.network.grafts import Configuration
from inarch.training.fit import Watch
from inarch.training.trial import Trial


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is another one")
def test_memory_that_was_kept_goes_back_when_asked() -> None:
    keep_memory()
    some = [torch.ones(1 << 18) for _ in range(256)]
    held = [tensor for number, tensor in enumerate(some) if number % 2]  # so that half of it lies in pieces
    del some
    before = resident()
    give_back()
    assert before - resident() > 64 << 20
    assert all(bool((tensor == 1).all()) for tensor in held)


@pytest.mark.parametrize("preloaded", ["", "/usr/lib/libjemalloc.so.2", "/opt/libtcmalloc_minimal.so.4 /lib/other.so"])
def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch, preloaded: str) -> None:
    monkeypatch.setenv("LD_PRELOAD", preloaded)
    assert keep_memory() == (platform.libc_ver()[0] == "glibc" and not preloaded)


@pytest.mark.parametrize("recomputed", [0, 1])
def test_only_a_study_that_saves_memory_gives_it_back_around_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recomputed: int
) -> None:
    given: list[None] = []
    monkeypatch.setattr("inarch.launch.here.give_back", lambda: given.append(None))
    with workbench(tmp_path, plan=Plan(recomputed=recomputed)) as bench:
        bench.run([Trial(Configuration("retain", "none"), 1, "fine-tuning", 0.01, 0.1, 1, SETTINGS)], Watch())
        before = len(given)
        bench.measure(SETTINGS)
        assert len(given) - before == recomputed
    # Around the evaluation of each of two epochs, and after the views that were stored.
    assert len(given) >= 4 if recomputed else not given
