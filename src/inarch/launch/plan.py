"""The execution plan of a study: which memory format and which precisions are fastest for its network on this machine.

Candidates run in turn, and their shortest times count, since whatever disturbs a machine only adds. First a glance at
a small batch drops a memory format that is hopeless, then the forward pass of frozen stages and a training step of the
whole network are measured at the study's batch and image size, each with as many stages computed again as it must for
its memory. The default stays unless another is faster by a tenth; one that computes fewer stages again, and so takes
less memory, may be a quarter slower.

On a GPU training steps of all candidates are played back from captured passes (network/captured.py) where the network
lets itself be captured, for else it would be the calls that are measured: one after the other, since each takes memory.
Capturing stays unless it makes the chosen candidate's steps slower: those of deeper cuts gain more.

Not among the candidates: `torch.compile`, which took 16 to 63 seconds to warm up and seldom won on processors, and
smaller batches for the frozen pass, which gained nothing (docs/lab-notebook.md).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inarch.features.machine import Machine
from inarch.features.plan import MEMORY_FORMATS, PRECISIONS, Plan, computes_in_bf16
from inarch.launch.beside import quickest_number
from inarch.network.captured import captured
from inarch.network.randomness import own_randomness
from inarch.network.recomputed import through
from inarch.network.stages import Stages
from inarch.network.weights import copy_of_weights

# By how much a candidate must beat the default: less is within what other work does to a short measurement.
MARGIN = 1.1
# By how much one that computes fewer stages again, and so takes less memory, may be slower.
LIGHTER = 1.25
# A candidate that takes so many times as long as the best leaves the race; in its second part so does one that takes so
# many times as long, which forward is not measured in training steps either, since they are dear.
HOPELESS, BEHIND = 2.0, 1.3
# The share of the race's seconds after which that part begins, once the fewest rounds are run.
EARLY = 0.25
# Fewest and most rounds of a race, and the seconds after which no round begins once the fewest are run. With three,
# chance put one of two that are equally fast a tenth ahead where steps are long.
ROUNDS = (5, 20)
SECONDS = 1.0
# The share of a batch that a first glance takes.
GLANCE = 8

# By precision, how many stages a training step computes again; none where nothing is said.
NONE_AGAIN: Mapping[str, int] = MappingProxyType({})
# A memory format and a precision. In a list of candidates the first is the default.
Candidate = tuple[str, str]
Times = Mapping[Candidate, float]


@final
@dataclass(frozen=True)
class Decision:
    """A plan and what it gains: how many times as fast as channels last in fp32 it is, in forward passes through frozen
    stages and in training steps; None where that was not or could not be measured. workers: how many trials train side
    by side, in processes that share the threads. captured_gain: of training steps that are played back, against the
    same ones that are not; None where they cannot be."""

    plan: Plan
    frozen_gain: float | None = None
    trained_gain: float | None = None
    workers: int = 1
    captured_gain: float | None = None

    def to_json(self) -> dict[str, Any]:
        gain = {"frozen": self.frozen_gain, "trained": self.trained_gain, "captured": self.captured_gain}
        return self.plan.to_json() | {"gain": gain, "workers": self.workers}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Decision:
        """`KeyError`, `TypeError` or `ValueError` where `value` is none."""
        gains = [value["gain"].get(name) for name in ("frozen", "trained", "captured")]
        known = [None if gain is None else float(gain) for gain in gains]
        if not all(gain is None or (math.isfinite(gain) and gain > 0) for gain in known):
            raise ValueError(f"gains {gains}")
        workers = int(value.get("workers", 1))
        if workers < 1:
            raise ValueError(f"{workers} workers")
        frozen, trained, played = known
        return cls(Plan.from_json(value), frozen, trained, workers, played)


def candidates(device: str, precisions: Sequence[str] = PRECISIONS) -> list[Candidate]:
    """Every memory format with every one of `precisions` in which the device computes."""
    usable = [p for p in precisions if p != "bf16" or computes_in_bf16(device)]
    return [(memory_format, precision) for memory_format in MEMORY_FORMATS for precision in usable]


def measured_plan(
    network: nn.Module, staged: Stages, images: Tensor, device: str, runners: Sequence[Candidate],
    recomputed: Mapping[str, int] = NONE_AGAIN,
) -> Decision:  # fmt: skip
    """Measures the `runners` on `images` [batch, channels, height, width] and decides.

    recomputed: by precision the stages that steps compute again, as in `Plan`. Where there are any, half of the images
    are enough: measuring must not take the memory that a study is to do without, and in a bad format a step may take
    twice of it. The network's weights, buffers and modes, and the random state, are as before afterwards.
    """
    with rehearsing(network, staged, device, recomputed) as rehearsal:
        if any(recomputed.values()):
            images = images[: max(2, len(images) // 2)]
        few = images[: max(2, len(images) // GLANCE)]
        # In one precision: a small batch does not show what another gains, since converting the weights takes its time.
        formats = [runner for runner in runners if runner[1] == runners[0][1]]
        left = {memory_format for memory_format, _ in survivors(race(formats, lambda r: rehearsal.forward(r, few)))}
        forward = race([r for r in runners if r[0] in left], lambda runner: rehearsal.forward(runner, images))
        if torch.device(device).type == "cuda":
            played = {runner: rehearsal.played(runner, images) for runner in forward}
            if played[runners[0]] < math.inf:
                return _with_gain(decide(runners[0], forward, played, recomputed), played, rehearsal, images)
        training = race(survivors(forward, BEHIND), lambda runner: rehearsal.step(runner, images))
    return decide(runners[0], forward, training, recomputed)


def _with_gain(decision: Decision, played: Times, rehearsal: _Rehearsal, images: Tensor) -> Decision:
    """The decision with captured passes, unless they make its training steps slower."""
    plan = decision.plan
    chosen = plan.memory_format, plan.trained
    gain = min(rehearsal.step(chosen, images) for _ in range(1 + ROUNDS[0])) / played[chosen]
    return replace(decision, plan=replace(plan, captured=gain >= 1), captured_gain=round(gain, 3))


def measured_workers(
    plan: Plan, network: nn.Module, staged: Stages, images: Tensor, threads: int, numbers: Sequence[int]
) -> int:
    """How many trials should train side by side on the processor's `threads`: 1 or one of `numbers`.

    Measured with training steps of the whole network on `images` under the plan, in as many processes at once.
    """
    runner = plan.memory_format, plan.trained
    with rehearsing(network, staged, "cpu") as rehearsal:
        return quickest_number(lambda: rehearsal.step(runner, images), threads, numbers)


def race(
    runners: Sequence[Candidate], run: Callable[[Candidate], float], *, seconds: float = SECONDS
) -> dict[Candidate, float]:
    """The shortest time of each candidate, run in turn; those that are hopeless twice leave, and the last one is not
    run for nothing.

    Infinity: one that is alone, which is not run, and one that cannot compute the network at all.
    """
    times = dict.fromkeys(runners, math.inf)
    if len(runners) < 2:
        return times
    running = [runner for runner in runners if _can(runner, run)]
    start = time.perf_counter()
    for done in range(ROUNDS[1]):
        if len(running) < 2 or (done >= ROUNDS[0] and time.perf_counter() - start > seconds):
            break
        for runner in running:
            times[runner] = min(times[runner], run(runner))
        best = min(times.values())
        if done:  # one long time may be a disturbance: SqueezeNet in bf16 was lost to one
            long = done + 1 >= ROUNDS[0] and time.perf_counter() - start > seconds * EARLY
            running = [r for r in running if times[r] <= (BEHIND if long else HOPELESS) * best]
    return times


def _can(runner: Candidate, run: Callable[[Candidate], float]) -> bool:
    """Runs once what is prepared at a first call and is not part of the work; False where PyTorch cannot do it."""
    try:
        run(runner)
    except RuntimeError:  # an operation without a version for this precision, too little memory
        return False
    return True


def survivors(times: Times, hopeless: float = HOPELESS) -> list[Candidate]:
    """The candidates that take less than `hopeless` times as long as the best, and the first."""
    first, best = next(iter(times)), min(times.values())
    return [r for r, seconds in times.items() if r == first or (seconds <= hopeless * best and seconds < math.inf)]


def decide(default: Candidate, forward: Times, training: Times, recomputed: Mapping[str, int] = NONE_AGAIN) -> Decision:
    """The plan with the least time for a forward pass and a training step, each in its own precision, if it is faster
    than the default by the margin; so too a precision other than the first of its memory format. One in which steps
    compute fewer stages again, so that they take less memory, may be slower by `LIGHTER`.
    """
    plans = {}
    for memory_format in dict.fromkeys(f for f, _ in training):
        frozen, trained = _fastest(forward, memory_format), _fastest(training, memory_format, recomputed)
        plans[frozen, trained] = forward[frozen] + training[trained]
    (frozen, trained), least = next(iter(plans.items()))
    # What was taken because it is lighter may be slow: nothing heavy wins by beating that alone.
    usual = forward[default] + training[default]
    for pair, seconds in plans.items():
        if seconds * MARGIN < min(least, usual):
            (frozen, trained), least = pair, seconds
    plan = Plan(frozen[0], frozen[1], trained[1])
    if default[1] != "fp32":
        return Decision(plan)
    return Decision(plan, _gain(forward, default, frozen), _gain(training, default, trained))


def _fastest(times: Times, memory_format: str, recomputed: Mapping[str, int] = NONE_AGAIN) -> Candidate:
    """The first candidate of a memory format, one that beats it by the margin, or one that computes fewer stages again
    and is not much slower."""
    rivals = [runner for runner in times if runner[0] == memory_format]
    first = rivals[0]

    def least_gain(rival: Candidate) -> float:
        lighter = recomputed.get(rival[1], 0) < recomputed.get(first[1], 0)
        return 1 / LIGHTER if lighter else MARGIN

    better = [rival for rival in rivals[1:] if times[rival] * least_gain(rival) < times[first]]
    return min(better, key=lambda rival: times[rival], default=first)


def _gain(times: Times, default: Candidate, chosen: Candidate) -> float | None:
    if chosen == default:
        return 1.0
    return round(times[default] / times[chosen], 3) if times[default] < math.inf else None


@final
class _Rehearsal:
    """The two kinds of work of a study, on images that only look like some; returns the seconds that they took."""

    def __init__(self, network: nn.Module, staged: Stages, device: str, recomputed: Mapping[str, int]) -> None:
        self._network, self._staged, self._device, self._recomputed = network, staged, device, recomputed
        network.to(device)  # before there are segments, which have dictionaries of their own for what is no module's
        self._frozen = staged.segment(0, max(1, len(staged.stages) - 1))

    def forward(self, runner: Candidate, images: Tensor) -> float:
        machine, pixels = self._made_ready(runner, images)
        self._frozen.eval()
        start = self._now()
        with torch.no_grad(), machine.autocast(frozen=True):
            self._frozen(pixels)
        return self._now() - start

    def step(self, runner: Candidate, images: Tensor) -> float:
        machine, pixels = self._made_ready(runner, images)
        labels = torch.zeros(len(images), dtype=torch.long, device=pixels.device)
        staged, number = self._staged, self._recomputed.get(runner[1], 0)
        parts = [*(staged.segment(k, k + 1) for k in range(number)), staged.segment(number, len(staged.stages))]
        for part in parts:
            part.train()
        return self._timed(lambda: through(parts, pixels), machine, labels)

    def played(self, runner: Candidate, images: Tensor) -> float:
        """The shortest of some steps that are played back; infinity where they cannot be captured."""
        machine, pixels = self._made_ready(runner, images)
        labels = torch.zeros(len(images), dtype=torch.long, device=pixels.device)
        whole = self._staged.segment(0, len(self._staged.stages)).train()
        try:
            with machine.autocast():
                passes = captured(whole, pixels)
            return min(self._timed(lambda: passes(pixels), machine, labels) for _ in range(1 + ROUNDS[0]))
        except RuntimeError:
            return math.inf

    def _timed(self, run: Callable[[], Tensor], machine: Machine, labels: Tensor) -> float:
        """Seconds of a forward and backward pass."""
        start = self._now()
        with machine.autocast():
            logits = run()
        F.cross_entropy(logits.float(), labels).backward()
        seconds = self._now() - start
        self._network.zero_grad(set_to_none=True)
        return seconds

    def _made_ready(self, runner: Candidate, images: Tensor) -> tuple[Machine, Tensor]:
        memory_format, precision = runner
        machine = Machine(self._device, Plan(memory_format, precision, precision))
        self._network.to(memory_format=machine.plan.layout)
        return machine, machine.place(images)

    def _now(self) -> float:
        Machine(self._device).wait()
        return time.perf_counter()


@contextmanager
def rehearsing(
    network: nn.Module, staged: Stages, device: str, recomputed: Mapping[str, int] = NONE_AGAIN
) -> Iterator[_Rehearsal]:
    """Whatever is done to the network within, it is on the processor and as before afterwards; so is random state."""
    weights = copy_of_weights(network)
    modes = {module: module.training for module in network.modules()}
    try:
        with own_randomness():
            yield _Rehearsal(network, staged, device, recomputed)
    finally:
        network.zero_grad(set_to_none=True)
        network.to("cpu").to(memory_format=torch.contiguous_format)
        network.load_state_dict(weights)
        for module, training in modes.items():
            module.training = training
