"""Which passes a GPU plays back, shown with a capture that runs them as they are; tests/test_gpu.py has real ones."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import SIDE, toy_network
from workbench import LAYER, deepest, method_trial, quick_selection, small, workbench  # noqa: F401

from inarch.features.plan import Plan
from inarch.methods import METHODS
from inarch.network import captured as module
from inarch.network.adapted import AdaptedNetwork
from inarch.network.captured import Tape, captured
from inarch.network.grafts import Widths
from inarch.network.stages import StagedNetwork, stage_network
from inarch.training.fit import Watch

PLAYED_BACK = [method.name for method in METHODS if method.same_passes]


class Gpu:
    """Stands in for CUDA: counts captures and what is played back. free: bytes, whenever they are asked for; the last
    ones from then on."""

    def __init__(self) -> None:
        self.captures: list[tuple[int, ...]] = []
        self.played: list[int] = []
        self.free = [1 << 30]
        self.cannot = False
        self.waiting: object = 0

    def set_waiting(self, mode: object) -> None:
        self.waiting = mode
        if mode == "error":
            warnings.warn("a prototype", stacklevel=1)  # as PyTorch does, once it is set

    def make(self, segment: nn.Module, example: tuple[Tensor], *, num_warmup_iters: int, **_: object) -> None:
        for _ in range(num_warmup_iters):
            segment(*example)
        if self.cannot:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.captures.append(tuple(example[0].shape))

        real = segment.forward

        def play(x: Tensor) -> Tensor:
            self.played.append(len(x))
            found: Tensor = real(x)
            return found

        segment.forward = play  # type: ignore[method-assign]

    def memory(self) -> tuple[int, int]:
        return self.free.pop(0) if len(self.free) > 1 else self.free[0], 1 << 30


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    stand_in = Gpu()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", stand_in.make)
    monkeypatch.setattr(torch.cuda, "mem_get_info", stand_in.memory)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 700)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 1700)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    # On a processor it would draw from the processor's random numbers.
    monkeypatch.setattr(nn.Dropout, "forward", lambda dropout, x: x)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: stand_in.waiting)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", stand_in.set_waiting)
    monkeypatch.setattr(module, "_forget_capture", lambda example: None)
    return stand_in


def staged_toy() -> StagedNetwork:
    return stage_network(toy_network(), LAYER, images())


def adapted(staged: StagedNetwork, graft: str = "retain", cut: int = 0) -> AdaptedNetwork:
    return AdaptedNetwork(staged, small(graft), Widths(12, 6, 3), cut=cut, seed=1).train()


def images(number: int = 8) -> Tensor:
    return torch.randn(number, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_capturing_leaves_buffers_gradients_and_random_state_as_they_were(gpu: Gpu) -> None:
    network = toy_network().train()
    before, random = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    captured(network, images())
    assert gpu.captures == [(8, 3, SIDE, SIDE)]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert gpu.waiting == 0


def test_what_cannot_be_captured_leaves_buffers_as_they_were_too(gpu: Gpu) -> None:
    gpu.cannot = True
    network = toy_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(RuntimeError, match="not permitted"):
        captured(network, images())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("missing", "enough"), [([0], True), ([1], False), ([1, 0], True)], ids=["enough", "too little", "after collecting"]
)
def test_passes_are_captured_where_memory_holds_them_twice_and_the_states_of_a_training(
    gpu: Gpu, missing: list[int], enough: bool
) -> None:
    tape, segment = Tape(), toy_network().train()
    weights = sum(parameter.nbytes for parameter in segment.parameters())
    gpu.free = [2 * 1000 + 3 * weights - bytes_ for bytes_ in missing]
    assert (tape.passes(0, segment, images()) is not segment) == enough


def test_training_steps_on_whole_batches_are_played_back_and_nothing_else_is(gpu: Gpu) -> None:
    network = adapted(staged_toy())
    network.play_back(Tape(), 8)
    for number in (8, 5, 8):
        network.from_stored(images(number)).sum().backward()
    with torch.no_grad():
        network.from_stored(images())
    network.eval().from_stored(images())
    assert gpu.captures == [(8, 3, SIDE, SIDE)]
    assert gpu.played == [8, 8]


def test_a_capture_serves_every_trial_that_trains_the_same_segment(gpu: Gpu) -> None:
    staged, tape = staged_toy(), Tape()

    def step(graft: str, cut: int, stored: Tensor) -> None:
        network = adapted(staged, graft, cut)
        network.play_back(tape, 8)
        network.from_stored(stored).sum().backward()

    middle = staged.segment(0, 1)(images()).detach()
    for graft, cut, stored in [
        ("retain", 0, images()), ("replace", 0, images()), ("retain", 1, middle), ("joined", 1, middle),
        ("retain", 0, images()), ("retain", 0, images().contiguous(memory_format=torch.channels_last)),
    ]:  # fmt: skip
        step(graft, cut, stored)
    assert len(gpu.captures) == 4
    assert len(gpu.played) == 6


def test_where_no_old_layer_trains_nothing_is_captured(gpu: Gpu) -> None:
    staged = staged_toy()
    network = adapted(staged, cut=deepest("retain"))
    network.play_back(Tape(), 8)
    stored = staged.segment(0, network.stored_cut)(images()).detach()
    network.from_stored(stored).sum().backward()
    assert not gpu.captures


def test_a_segment_whose_weights_moved_or_that_trains_less_is_captured_anew(gpu: Gpu) -> None:
    tape, segment = Tape(), toy_network().train()
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: None,
        lambda: segment[0].requires_grad_(False),
        lambda: segment[1].eval(),  # and stays so
        lambda: setattr(segment[4].weight, "data", segment[4].weight.data.clone()),
    ]
    captures = []
    for change in changes:
        change()
        tape.passes(0, segment, images())
        captures.append(len(gpu.captures))
    assert captures == [1, 1, 2, 3, 4]
    assert segment.training
    assert not segment[1].training


def test_what_cannot_be_captured_runs_as_it_is_and_is_not_tried_again(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.cannot, tried = True, []
    real = module.captured
    monkeypatch.setattr(module, "captured", lambda *given: tried.append(given) or real(*given))
    tape, segment = Tape(), toy_network().train()
    for _ in range(2):
        assert tape.passes(0, segment, images()) is segment
    assert len(tried) == 1


@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_methods_train_to_the_same_bits_and_those_of_same_passes_are_played_back(
    tmp_path: Path, method: str, gpu: Gpu
) -> None:
    trial, found = method_trial(method, "joined", 1, epochs=2), []
    for played_back in (False, True):
        with workbench(tmp_path / str(played_back), plan=Plan(captured=played_back)) as bench:
            bench.run([trial], Watch())
            found.append(bench.validation(trial))
            steps = bench.store.images.rows["train"].size // trial.settings.batch_size * trial.settings.epochs
    np.testing.assert_array_equal(*found)
    runs = 3 if method == "soup" else 1
    assert len(gpu.played) == (runs * steps if method in PLAYED_BACK else 0)


def test_plain_fine_tuning_is_played_back() -> None:
    assert {"fine-tuning", "l2-sp", "soup"} <= set(PLAYED_BACK)


class Rebinding(nn.Module):
    """Puts another tensor in place of its buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return x


class Drawing(nn.Module):
    """Draws from random numbers that are not the GPU's."""

    def __init__(self, draw: Callable[[], object]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        self.draw()
        return x


@pytest.mark.parametrize(
    "behind",
    [Rebinding(), Drawing(lambda: torch.rand(())), Drawing(random.random), Drawing(np.random.random)],
    ids=["rebinding", "torch", "python", "numpy"],
)
def test_a_network_whose_next_pass_is_another_one_is_not_captured(gpu: Gpu, behind: nn.Module) -> None:
    segment = nn.Sequential(toy_network(), behind).train()
    assert Tape().passes(0, segment, images()) is segment
    assert not gpu.captures


def test_a_tape_that_is_cleared_holds_neither_passes_nor_gradients(gpu: Gpu) -> None:
    tape, segment = Tape(), toy_network().train()
    tape.passes(0, segment, images())(images()).sum().backward()
    tape.clear()
    assert all(parameter.grad is None for parameter in segment.parameters())
    tape.passes(0, segment, images())
    assert len(gpu.captures) == 2


def test_a_trial_that_is_not_played_back_finds_the_memory_of_a_capture_free(tmp_path: Path, gpu: Gpu) -> None:
    cleared: list[bool] = []
    with workbench(tmp_path, plan=Plan(captured=True)) as bench:
        for method in ("fine-tuning", "fine-tuning", "delta", "fine-tuning"):
            bench.run([replace(method_trial(method, "retain", 0, epochs=1), seed=len(cleared))], Watch())
            assert bench._tape is not None
            cleared.append(bench._tape._held is None)
    assert cleared == [False, False, True, False]
    assert len(gpu.captures) == 2


def test_a_network_that_waits_for_the_gpu_is_not_captured(gpu: Gpu) -> None:
    class Waiting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if gpu.waiting == "error":
                raise RuntimeError("called a synchronizing CUDA operation")
            return x

    segment = nn.Sequential(toy_network(), Waiting()).train()
    assert Tape().passes(0, segment, images()) is segment
    assert not gpu.captures
    assert gpu.waiting == 0
