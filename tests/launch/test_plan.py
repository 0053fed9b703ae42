"""The fastest plan is found in turn, by shortest times, and only a clear gain counts."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from toy import SIDE, toy_network
from workbench import LAYER, workbench

from inarch.features.plan import PRECISIONS, Plan
from inarch.launch.plan import ROUNDS, Candidate, Decision, candidates, decide, measured_plan, race, survivors
from inarch.network.card import InputSpec
from inarch.network.recomputed import through
from inarch.network.stages import stage_network

LAST, BEST = ("channels_last", "fp32"), ("channels_last", "bf16")
ROW, ROW_BF16 = ("contiguous", "fp32"), ("contiguous", "bf16")


def test_the_shortest_time_counts_and_the_first_call_does_not() -> None:
    times = {LAST: iter([0.1, 3.0, 2.0, *[5.0] * 99]), BEST: iter([9.0, 4.0, 2.5, *[3.0] * 99])}
    assert race([LAST, BEST], lambda runner: next(times[runner]), seconds=0) == {LAST: 2.0, BEST: 2.5}


def test_candidates_run_in_turn_and_the_hopeless_leave() -> None:
    seconds = {LAST: 5.0, BEST: 1.0, ROW: 1.9, ROW_BF16: 2.1}
    calls: list[Candidate] = []

    def run(runner: Candidate) -> float:
        calls.append(runner)
        return seconds[runner]

    assert race(list(seconds), run) == seconds
    assert calls[:12] == 3 * [*seconds]  # once each before the rounds, and two rounds
    assert Counter(calls) == {LAST: 3, BEST: 1 + ROUNDS[1], ROW: 1 + ROUNDS[1], ROW_BF16: 3}
    assert survivors(seconds) == [LAST, BEST, ROW]
    assert survivors(seconds, 1.8) == [LAST, BEST]


def test_in_the_second_part_of_a_race_those_that_are_behind_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {LAST: 1.9, BEST: 1.0, ROW: 1.2}
    calls: list[Candidate] = []

    def run(runner: Candidate) -> float:
        calls.append(runner)
        return seconds[runner]

    # Every call takes a hundredth of the time that a race has: a quarter of it is over after nine rounds of three.
    monkeypatch.setattr("inarch.launch.plan.time.perf_counter", lambda: len(calls) / 100)
    assert race(list(seconds), run, seconds=1.0) == seconds
    assert Counter(calls) == {LAST: 1 + 9, BEST: 1 + ROUNDS[1], ROW: 1 + ROUNDS[1]}
    calls.clear()
    assert race([LAST, BEST], run, seconds=1.0) == {LAST: 1.9, BEST: 1.0}
    assert Counter(calls) == {LAST: 1 + 13, BEST: 1 + 13}


def test_a_race_ends_with_one_candidate() -> None:
    calls: list[Candidate] = []

    def run(runner: Candidate) -> float:
        calls.append(runner)
        return 5.0 if runner == LAST else 1.0

    assert race([LAST, BEST], run) == {LAST: 5.0, BEST: 1.0}
    assert calls == 3 * [LAST, BEST]


def test_one_disturbance_drops_nobody() -> None:
    times = {LAST: iter([0.0, *[3.0] * 99]), BEST: iter([0.0, 9.0, *[1.0] * 99])}
    assert race([LAST, BEST], lambda runner: next(times[runner]), seconds=0) == {LAST: 3.0, BEST: 1.0}


def test_a_candidate_that_cannot_compute_the_network_leaves_and_ends_nothing() -> None:
    def run(runner: Candidate) -> float:
        if runner[1] == "bf16":
            raise RuntimeError('"unusual_kernel" not implemented for BFloat16')
        return 1.0

    times = race([LAST, BEST, ROW], run, seconds=0)
    assert times == {LAST: 1.0, BEST: math.inf, ROW: 1.0}
    assert survivors(times) == [LAST, ROW]
    assert decide(LAST, times, times) == Decision(Plan(), 1.0, 1.0)


def test_where_no_candidate_can_compute_the_network_the_default_is_left_to_say_so() -> None:
    def run(runner: Candidate) -> float:
        raise RuntimeError("out of memory")

    times = race([LAST, BEST, ROW], run)
    assert set(times.values()) == {math.inf}
    assert survivors(times) == [LAST]
    assert decide(LAST, times, times) == Decision(Plan(), 1.0, 1.0)


def test_where_only_the_default_cannot_another_is_taken_and_nothing_is_said_to_be_gained() -> None:
    times = {LAST: math.inf, ROW: 2.0}
    assert decide(LAST, times, times) == Decision(Plan("contiguous"), None, None)


def test_one_that_is_alone_need_not_run() -> None:
    def run(runner: Candidate) -> float:
        raise AssertionError

    assert race([LAST], run) == {LAST: math.inf}
    assert decide(LAST, race([LAST], run), race([LAST], run)) == Decision(Plan(), 1.0, 1.0)


@pytest.mark.parametrize(
    ("forward", "training", "expected"),
    [
        ({LAST: 1.0, BEST: 0.92}, {LAST: 3.0, BEST: 2.8}, Decision(Plan(), 1.0, 1.0)),
        ({LAST: 1.0, BEST: 0.5}, {LAST: 3.0, BEST: 2.9}, Decision(Plan(frozen="bf16"), 2.0, 1.0)),
        ({LAST: 1.0, BEST: 1.5}, {LAST: 3.0, BEST: 2.0}, Decision(Plan(trained="bf16"), 1.0, 1.5)),
        ({LAST: 1.0, BEST: 0.5, ROW: 1.8}, {LAST: 3.0, BEST: 1.5}, Decision(Plan(frozen="bf16", trained="bf16"), 2, 2)),
        ({LAST: 1.0, ROW: 0.9}, {LAST: 3.0, ROW: 2.9}, Decision(Plan(), 1.0, 1.0)),
        ({LAST: 1.0, ROW: 1.25}, {LAST: 3.0, ROW: 2.0}, Decision(Plan("contiguous"), 0.8, 1.5)),
        (
            {LAST: 1.0, BEST: 0.5, ROW: 0.9, ROW_BF16: 0.1},
            {LAST: 3.0, BEST: 2.0, ROW: 1.5},
            Decision(Plan("contiguous", "bf16", "fp32"), 10.0, 2.0),
        ),
        # The default was hopeless in every way, and yet there to be compared with.
        ({LAST: 8.0, ROW: 1.0}, {LAST: 9.0, ROW: 3.0}, Decision(Plan("contiguous"), 8.0, 3.0)),
    ],
)
def test_the_default_stays_unless_another_is_faster_by_a_tenth(
    forward: dict[Candidate, float], training: dict[Candidate, float], expected: Decision
) -> None:
    assert decide(LAST, forward, training) == expected


@pytest.mark.parametrize(
    ("seconds", "fp32", "bf16", "trained"),
    [(3.7, 8, 4, "bf16"), (3.8, 8, 4, "fp32"), (2.9, 4, 4, "fp32"), (2.9, 4, 8, "fp32"), (2.6, 4, 8, "bf16")],
)
def test_a_precision_that_computes_fewer_stages_again_may_be_a_quarter_slower(
    seconds: float, fp32: int, bf16: int, trained: str
) -> None:
    forward, training = {LAST: 1.0, BEST: 0.95}, {LAST: 3.0, BEST: seconds}
    found = decide(LAST, forward, training, {"fp32": fp32, "bf16": bf16})
    assert found.plan == Plan(trained=trained)


def test_nothing_heavy_wins_by_beating_what_was_taken_because_it_is_lighter() -> None:
    forward, training = (
        {LAST: 1.0, BEST: 0.95, ROW: 1.05, ROW_BF16: 1.2},
        {LAST: 3.0, BEST: 3.7, ROW: 3.15, ROW_BF16: 5.0},
    )
    found = decide(LAST, forward, training, {"fp32": 8, "bf16": 0})
    assert found.plan == Plan(trained="bf16")


@pytest.mark.usefixtures("bf16_here")
def test_every_precision_is_measured_with_the_stages_that_it_computes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = toy_network().eval()
    staged = stage_network(network, LAYER, torch.zeros(2, 3, SIDE, SIDE))
    parts: dict[torch.dtype, set[int]] = {}

    def counted(given: list[torch.nn.Module], x: torch.Tensor) -> torch.Tensor:
        found = through(given, x)
        parts.setdefault(found.dtype, set()).add(len(given))
        return found

    monkeypatch.setattr("inarch.launch.plan.through", counted)
    # Nobody leaves by its speed, which on a busy machine is anybody's.
    monkeypatch.setattr("inarch.launch.plan.survivors", lambda times, *_: list(times))
    monkeypatch.setattr("inarch.launch.plan.race", lambda runners, run: {runner: run(runner) for runner in runners})
    wanted = {"fp32": 2, "bf16": 1}
    measured_plan(network, staged, torch.zeros(8, 3, SIDE, SIDE), "cpu", candidates("cpu"), wanted)
    assert parts == {torch.float32: {3}, torch.bfloat16: {2}}


def test_what_was_asked_for_is_not_compared_with_what_was_not_measured() -> None:
    found = decide(BEST, {BEST: 1.0, ROW_BF16: 0.5}, {BEST: 1.0, ROW_BF16: 0.5})
    assert found == Decision(Plan("contiguous", "bf16", "bf16"), None, None)


@pytest.mark.usefixtures("no_bf16_here")
def test_bf16_is_no_candidate_where_the_machine_has_none() -> None:
    assert candidates("cpu") == [LAST, ROW]


@pytest.mark.usefixtures("bf16_here")
def test_the_first_candidate_is_the_default_of_what_was_asked() -> None:
    assert candidates("cpu") == [LAST, BEST, ROW, ROW_BF16]
    assert candidates("cpu", ("bf16",)) == [BEST, ROW_BF16]


@pytest.mark.usefixtures("bf16_here")
def test_a_glance_at_a_small_batch_drops_memory_formats_and_judges_no_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Rehearsal:
        """Contiguous is ten times slower; bf16 is slow on small batches and fast on large ones."""

        def __init__(self, *arguments: object) -> None: ...

        def forward(self, runner: Candidate, images: torch.Tensor) -> float:
            small = len(images) < 32
            assert small or runner[0] != "contiguous"
            return {"fp32": 1.0, "bf16": 5.0 if small else 0.5}[runner[1]] * (10 if runner[0] == "contiguous" else 1)

        def step(self, runner: Candidate, images: torch.Tensor) -> float:
            assert len(images) == 32
            assert runner[0] != "contiguous"
            return 3.0

    monkeypatch.setattr("inarch.launch.plan._Rehearsal", Rehearsal)
    network = toy_network().eval()
    staged = stage_network(network, LAYER, torch.zeros(2, 3, SIDE, SIDE))
    found = measured_plan(network, staged, torch.zeros(32, 3, SIDE, SIDE), "cpu", candidates("cpu"))
    assert found == Decision(Plan(frozen="bf16"), 2.0, 1.0)


@pytest.mark.usefixtures("bf16_here")
def test_measuring_leaves_weights_buffers_modes_and_random_state_as_they_were() -> None:
    network = toy_network().eval()
    spec = InputSpec(3, SIDE, SIDE, (0.5,) * 3, (0.5,) * 3)
    staged = stage_network(network, LAYER, spec.example())
    before, random = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    found = measured_plan(network, staged, spec.example(8), "cpu", candidates("cpu"))
    assert found.plan.memory_format in ("channels_last", "contiguous")
    assert found.plan.precisions <= set(PRECISIONS)
    assert found.frozen_gain is not None
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


@pytest.mark.usefixtures("bf16_here")
def test_a_network_measured_before_its_trials_trains_to_the_same_bits(tmp_path: Path) -> None:
    from workbench import SETTINGS

    from inarch.network.grafts import Configuration
    from inarch.training.fit import Watch
    from inarch.training.trial import Trial

    trial = Trial(Configuration("retain", "l2"), 0, "fine-tuning", 0.01, 0.05, 1, SETTINGS)
    with workbench(tmp_path / "one") as bench:
        expected = bench.run([trial], Watch())
    with workbench(tmp_path / "two", measured=True) as bench:
        assert bench.run([trial], Watch()) == expected


class OnGpu:
    """What a GPU would measure: calls take 20 ms of every step that is not played back."""

    played_back: ClassVar = {LAST: 16.0, BEST: 11.0, ROW: 21.0, ROW_BF16: 17.0}

    def __init__(self, *arguments: object) -> None: ...

    def forward(self, runner: Candidate, images: torch.Tensor) -> float:
        return 12.0 if runner[1] == "bf16" else 6.0  # a race would leave bf16 behind

    def played(self, runner: Candidate, images: torch.Tensor) -> float:
        return self.played_back[runner]

    def step(self, runner: Candidate, images: torch.Tensor) -> float:
        return max(self.played_back[runner], 27.5)


def measured_on_gpu(monkeypatch: pytest.MonkeyPatch, rehearsal: type[OnGpu]) -> Decision:
    monkeypatch.setattr("inarch.launch.plan._Rehearsal", rehearsal)
    network = toy_network().eval()
    staged = stage_network(network, LAYER, torch.zeros(2, 3, SIDE, SIDE))
    return measured_plan(network, staged, torch.zeros(8, 3, SIDE, SIDE), "cuda", [LAST, BEST, ROW, ROW_BF16])


def test_on_a_gpu_steps_that_are_played_back_decide_and_say_what_that_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured_on_gpu(monkeypatch, OnGpu)
    assert found == Decision(Plan(trained="bf16", captured=True), 1.0, round(16 / 11, 3), captured_gain=2.5)
    assert Decision.from_json(found.to_json()) == found


def test_steps_that_are_slower_played_back_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(OnGpu):
        def step(self, runner: Candidate, images: torch.Tensor) -> float:
            return 0.99 * self.played_back[runner]

    found = measured_on_gpu(monkeypatch, Large)
    assert found == Decision(Plan(trained="bf16"), 1.0, round(16 / 11, 3), captured_gain=0.99)


def test_where_a_network_cannot_be_captured_steps_race_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn(OnGpu):
        def played(self, runner: Candidate, images: torch.Tensor) -> float:
            return math.inf

    found = measured_on_gpu(monkeypatch, Stubborn)
    assert found == Decision(Plan(), 1.0, 1.0)


def test_a_plan_from_before_passes_were_captured_is_read() -> None:
    value = Decision(Plan(), 1.0, 1.0).to_json()
    del value["captured"], value["gain"]["captured"]
    assert Decision.from_json(value) == Decision(Plan(), 1.0, 1.0)
