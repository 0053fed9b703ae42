"""Stages whose inside is computed again take less memory, and that is all that changes."""

from __future__ import annotations

import copy
import gc
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from toy import SIDE, toy_network
from workbench import LAYER, workbench

from inarch.features.plan import Plan
from inarch.launch.memory import BACKWARD, BUDGET, budget_in, within_budget
from inarch.methods import METHODS
from inarch.network.adapted import AdaptedNetwork, stage
from inarch.network.card import InputSpec
from inarch.network.grafts import Configuration, Widths
from inarch.network.recomputed import computed_again, kept_bytes, stages_to_recompute
from inarch.network.stages import StagedNetwork, stage_network
from inarch.training.fit import Watch
from inarch.training.trial import TrainingSettings, Trial

SETTINGS = TrainingSettings(epochs=2, batch_size=8)


def staged_toy() -> StagedNetwork:
    return stage_network(toy_network(), LAYER, torch.zeros(2, 3, SIDE, SIDE))


def adapted(graft: str, cut: int, recomputed: int) -> AdaptedNetwork:
    configuration = Configuration(graft, "l2", (5,) if graft == "deepen" else ())
    network = AdaptedNetwork(staged_toy(), configuration, Widths(12, 6, 3), cut=cut, seed=1)
    network.recompute(recomputed)
    return network.train()


def images() -> Tensor:
    return torch.randn(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def after_two_steps(network: AdaptedNetwork) -> dict[str, Tensor]:
    """Logits, gradients, weights and buffers, and the random state."""
    torch.manual_seed(5)
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    found: dict[str, Tensor] = {}
    for _ in range(2):
        logits = network(images())
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.arange(8) % 3).backward()
        optimiser.step()
        found |= {"logits": logits.detach()}
    found |= {f"gradient of {n}": p.grad for n, p in network.named_parameters() if p.grad is not None}
    return found | network.state_dict() | {"random state": torch.get_rng_state()}


def saved_bytes(network: AdaptedNetwork) -> int:
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value
        return value

    with saved_tensors_hooks(keep, lambda value: value):
        network(images())
    return sum(value.untyped_storage().nbytes() for value in kept.values())


@pytest.mark.parametrize("recomputed", [1, 9])
@pytest.mark.parametrize("cut", [0, 1, 2])
@pytest.mark.parametrize("graft", ["replace", "retain", "deepen", "joined", "head2toe"])
def test_training_comes_out_the_same_bit_for_bit(graft: str, cut: int, recomputed: int) -> None:
    plain, again = (after_two_steps(adapted(graft, cut, number)) for number in (0, recomputed))
    assert plain.keys() == again.keys()
    for name, value in plain.items():
        assert torch.equal(again[name], value), name


def test_less_is_kept_the_more_stages_are_computed_again_and_frozen_ones_do_not_count() -> None:
    none, one = (saved_bytes(adapted("retain", 0, number)) for number in (0, 1))
    assert one < none / 2
    assert saved_bytes(adapted("retain", 1, 1)) == saved_bytes(adapted("retain", 1, 0))


def test_a_module_that_was_put_in_the_place_of_another_runs_when_computed_again() -> None:
    plain, again = adapted("retain", 0, 0), adapted("retain", 0, 2)
    for network in (plain, again):
        network.put("suffix", "2", torch.nn.Sigmoid())
    one, other = after_two_steps(plain), after_two_steps(again)
    assert all(torch.equal(other[name], value) for name, value in one.items())
    assert not torch.equal(one["logits"], after_two_steps(adapted("retain", 0, 0))["logits"])


def test_stages_of_an_adapted_source_are_computed_again_alike() -> None:
    states = []
    for recomputed in (0, 3):
        first = adapted("deepen", 0, 0).eval()
        example = torch.zeros(2, 3, SIDE, SIDE)
        staged, widths = stage(first, "", example), Widths(5, 3, 3)
        network = AdaptedNetwork(staged, Configuration("retain", "none"), widths, cut=1, seed=2)
        network.recompute(recomputed)
        states.append(after_two_steps(network.train()))
    assert network._pieces is not None
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())


def test_a_stage_is_computed_again_to_its_end_also_where_nothing_more_is_needed() -> None:
    calls = []

    class Counted(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(x.shape)
            return x.view(-1)

    computed_again(torch.nn.Sequential(torch.nn.Linear(2, 2), Counted()), torch.ones(3, 2)).sum().backward()
    assert len(calls) == 2


def test_stages_that_are_held_stay_in_evaluation_mode_when_computed_again() -> None:
    plain, again = adapted("retain", 0, 0), adapted("retain", 0, 2)
    for network in (plain, again):
        network.hold(1)
    before = copy.deepcopy(again.suffix.state_dict())
    one, other = after_two_steps(plain), after_two_steps(again)
    assert all(torch.equal(other[name], value) for name, value in one.items())
    first = {name for name in before if name.startswith(("0.", "1."))}
    assert first
    assert all(torch.equal(again.suffix.state_dict()[name], before[name]) for name in first)


@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_every_method_trains_the_same_with_stages_computed_again(tmp_path: Path, method: str) -> None:
    configuration = Configuration("joined", "l2")
    trial = Trial(configuration, 3 if method == "linear-probe" else 0, method, 0.01, 0.1, 1, SETTINGS)
    states = []
    for recomputed in (0, 2):
        with workbench(tmp_path / str(recomputed), plan=Plan(recomputed=recomputed)) as bench:
            accuracy = bench.run([trial], Watch())[0].accuracy
            assert accuracy >= 0
            states.append(bench.restore(trial).state_dict())
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name


def test_counting_holds_nothing_of_what_it_counted() -> None:
    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(found), Tensor) for found in gc.get_objects())

    staged, example = staged_toy(), images()
    before = tensors()
    kept_bytes(staged, example, nullcontext)
    assert tensors() == before


def test_what_a_step_keeps_is_counted_as_the_step_keeps_it() -> None:
    staged = staged_toy()
    counted = kept_bytes(staged, images(), nullcontext)
    network = adapted("retain", 0, 0)
    own = sum(v.untyped_storage().nbytes() for v in network.suffix.state_dict().values())
    # The stages' inputs are counted with both neighbours, and a graft is not counted.
    assert saved_bytes(network) - own == pytest.approx(sum(counted), rel=0.1)
    assert counted[0] > counted[1] > counted[2]


@pytest.mark.parametrize(
    ("budget", "stages"), [(100, 0), (99, 1), (60, 1), (59, 2), (40, 2), (1, 2)],
)  # fmt: skip
def test_as_few_stages_are_computed_again_as_the_budget_takes(budget: int, stages: int) -> None:
    # None: 100. One: its input of 5, 40 + 15, or its own 45 while it is computed again. Two: 5 + 20 + 15, or 45.
    assert stages_to_recompute([45, 40, 15], [5, 20, 10], budget) == stages


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_what_a_batch_of_any_size_keeps_follows_from_two_counts(batch: int) -> None:
    staged, example = staged_toy(), InputSpec(3, SIDE, SIDE, (0.5,) * 3, (0.5,) * 3).example(batch)
    kept = sum(kept_bytes(staged, example.to(memory_format=torch.channels_last), nullcontext))
    assert within_budget(Plan(), staged.network, staged, example, "cpu", budget=kept).recomputed == 0
    assert within_budget(Plan(), staged.network, staged, example, "cpu", budget=kept - 1).recomputed == 1


def test_in_bf16_a_step_may_keep_more_for_its_backward_pass_adds_less() -> None:
    assert budget_in("fp32") == BUDGET
    assert budget_in("bf16") == BUDGET + BACKWARD // 2


def test_a_plan_within_the_budget_leaves_the_network_as_it_was() -> None:
    network = toy_network()
    example = InputSpec(3, SIDE, SIDE, (0.5,) * 3, (0.5,) * 3).example(8)
    staged = stage_network(network, LAYER, example)
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    assert within_budget(Plan(), network, staged, example, "cpu").recomputed == 0
    found = within_budget(Plan(), network, staged, example, "cpu", budget=1)
    assert found.recomputed == 1
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert found == Plan.from_json(found.to_json())
    assert within_budget(Plan(), network, staged, example, "meta", budget=1) == Plan()
