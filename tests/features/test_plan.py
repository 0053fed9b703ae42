"""A plan decides how fast a trial computes and how it rounds, and nothing else."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from workbench import SETTINGS, workbench

from inarch.errors import UsageError
from inarch.features.machine import Machine
from inarch.features.plan import MEMORY_FORMATS, PRECISIONS, Plan, computes_in_bf16, require_precision
from inarch.methods import make_method
from inarch.network.grafts import Configuration
from inarch.training.fit import Watch, train
from inarch.training.trial import Trial

PLANS = [Plan(*parts) for parts in itertools.product(MEMORY_FORMATS, PRECISIONS, PRECISIONS)]
# A number is off by up to half of this share of itself; a few layers and their gradients add up some of that.
ROUNDING = {"fp32": 50 * torch.finfo(torch.float32).eps, "bf16": 3 * torch.finfo(torch.bfloat16).eps}

every_plan = pytest.mark.parametrize("plan", PLANS, ids=lambda plan: "-".join(map(str, plan.to_json().values())))


def after_a_step(folder: Path, plan: Plan, cut: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Every parameter and buffer of a network before its first step and after it."""
    with workbench(folder, epochs=1, plan=plan) as bench:
        settings = replace(SETTINGS, epochs=1, batch_size=len(bench.store.images.rows["train"]), warmup=0.0)
        trial = Trial(Configuration("retain", "l2"), cut, "fine-tuning", 0.05, 0.05, 1, settings)
        # Which units dropout drops follows the order of the numbers in memory, and is no matter of rounding.
        bench._network.get_submodule("7").p = 0.0  # type: ignore[assignment]
        network = bench.network(trial)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        train(network, trial, bench.store, make_method("fine-tuning"), Watch())
        return before, dict(network.state_dict())


def moved(states: tuple[dict[str, Tensor], dict[str, Tensor]]) -> Tensor:
    """How far the step moved every parameter."""
    before, after = states
    names = [name for name in before if name.endswith(("weight", "bias", "scale"))]
    return torch.cat([(after[name] - before[name]).flatten() for name in names])


@every_plan
def test_a_training_step_agrees_with_fp32_within_the_rounding_of_the_precision(tmp_path: Path, plan: Plan) -> None:
    expected, found = (moved(after_a_step(tmp_path / name, p, 1)) for name, p in (("fp32", Plan()), ("plan", plan)))
    error = float((found - expected).norm() / expected.norm())
    coarsest = "bf16" if "bf16" in plan.precisions else "fp32"
    assert error < ROUNDING[coarsest]
    # Each of the two precisions shows: a plan that nothing obeys would agree to the last bit.
    assert (error > 1e-4) == (coarsest == "bf16")


@every_plan
def test_frozen_stages_stay_bit_identical_under_every_plan(tmp_path: Path, plan: Plan) -> None:
    before, after = after_a_step(tmp_path, plan, 2)
    frozen = [name for name in before if name.startswith("prefix.")]
    assert any("running_mean" in name for name in frozen)
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not any(torch.equal(before[name], after[name]) for name in before if name.startswith("graft."))


@every_plan
def test_what_a_stored_prefix_hands_over_suits_the_layers_behind_it(tmp_path: Path, plan: Plan) -> None:
    with workbench(tmp_path / "kept", plan=plan) as kept, workbench(tmp_path / "anew", limit=0, plan=plan) as anew:
        everything = np.arange(len(kept.store.images.rows["train"]))
        stored, again = (bench.store.read(2, "train", everything, None) for bench in (kept, anew))
    assert torch.equal(stored, again)
    assert stored.dtype == (torch.bfloat16 if plan == replace(plan, frozen="bf16", trained="bf16") else torch.float32)
    exact = torch.equal(stored.float(), stored.bfloat16().float())
    assert exact == (plan.frozen == "bf16")


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
def test_weights_and_pixels_have_the_memory_format_of_the_plan(tmp_path: Path, memory_format: str) -> None:
    plan = Plan(memory_format)
    with workbench(tmp_path, plan=plan) as bench:
        weight = bench._network.get_submodule("4").weight
        assert isinstance(weight, Tensor)
        pixels = Machine(plan=plan).place(torch.zeros(2, 3, 5, 7))
    assert all(t.is_contiguous(memory_format=plan.layout) for t in (weight, pixels))


@pytest.mark.parametrize("parts", [("sideways",), ("contiguous", "fp8"), ("contiguous", "fp32", "int4")])
def test_a_plan_of_unknown_words_is_refused(parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=parts[-1]):
        Plan(*parts)


def test_a_plan_survives_json() -> None:
    assert [Plan.from_json(plan.to_json()) for plan in PLANS] == PLANS


@pytest.mark.usefixtures("no_bf16_here")
def test_bf16_where_the_machine_has_none_says_who_asked_and_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"--precision bf16: this machine has no bf16 .* device cpu.*Give fp32\."):
        require_precision({"bf16"}, "cpu", "--precision bf16", "Give fp32.")
    require_precision({"fp32"}, "cpu", "--precision fp32", "")


def test_a_pytorch_that_cannot_tell_whether_there_is_bf16_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inarch.features.plan.torch.ops.mkldnn", object())
    assert computes_in_bf16("cpu") is False
