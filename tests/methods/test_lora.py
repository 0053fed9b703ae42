"""LoRA: low-rank updates are trained, old weights stand still until the updates are added to them."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from methods_bench import RATES, a_step, a_task, adapted, images, labels, stored_for
from timm.layers import Conv2dSame
from torch import nn
from torch.nn import functional as F
from workbench import small

from inarch.errors import UsageError
from inarch.methods.lora import LoRA, adaptable
from inarch.network import head2toe
from inarch.network.adapted import AdaptedNetwork, stage
from inarch.network.grafts import Widths
from inarch.network.stages import Stages


def trained(method: LoRA, network: Any, steps: int = 5) -> None:
    """A few steps of plain gradient descent on everything that the method lets learn."""
    groups = method.groups(network, RATES)
    solver = torch.optim.SGD([{"params": g.parameters, "lr": 0.1} for g in groups])
    for number in range(steps):
        network.train()
        step = a_step(network, number)
        solver.zero_grad()
        method.loss(network, step).backward()
        solver.step()


def test_training_starts_from_the_source_network_and_moves_nothing_old_before_the_end() -> None:
    network, method = adapted("retain", 1), LoRA(rank=2)
    stored = stored_for(network)
    source = {name: value.clone() for name, value in network.staged.network.state_dict().items()}
    before = network.eval().from_stored(stored).detach()
    method.prepare(network, a_task(network))
    torch.testing.assert_close(network.eval().from_stored(stored).detach(), before)
    trained(method, network)
    after = network.staged.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in source.items())
    assert not torch.allclose(network.eval().from_stored(stored).detach(), before, atol=1e-3)


def test_the_merged_network_computes_what_the_adapted_one_did_and_is_an_ordinary_one() -> None:
    network, method = adapted("retain", 1), LoRA(rank=2)
    names = list(network.state_dict())
    stored = stored_for(network)
    source = {name: value.clone() for name, value in network.staged.network.state_dict().items()}
    method.prepare(network, a_task(network))
    trained(method, network)
    adapted_output = network.eval().from_stored(stored).detach()
    method.finish(network)
    torch.testing.assert_close(network.eval().from_stored(stored).detach(), adapted_output, rtol=1e-4, atol=1e-4)
    assert list(network.state_dict()) == names
    after = network.staged.network.state_dict()
    moved = {name for name, value in source.items() if not torch.equal(value, after[name])}
    assert moved == {"4.weight", "10.weight"}  # weights behind the cut; no bias, no statistics


@pytest.mark.parametrize("alpha", [2, 6])
def test_what_is_added_to_a_linear_layer_is_alpha_over_r_times_b_a(alpha: int) -> None:
    network, method = adapted("retain", 2), LoRA(rank=2, alpha=alpha)
    layer = network.staged.network.get_submodule("10")
    start = layer.weight.detach().clone()  # type: ignore[operator,union-attr]
    method.prepare(network, a_task(network))
    trained(method, network)
    here: Any = network.layer
    a, b = (dict(here.named_parameters())[f"10.lora_{part}.default.weight"].detach() for part in "AB")
    assert a.shape == (2, 12)
    assert b.shape == (6, 2)
    method.finish(network)
    torch.testing.assert_close(layer.weight.detach(), start + alpha / 2 * b @ a)  # type: ignore[union-attr,operator]


def test_what_is_added_to_a_convolution_is_one_pixel_of_b_behind_the_kernel_of_a() -> None:
    network, method = adapted("replace", 1), LoRA(rank=2, alpha=4)
    layer: Any = network.staged.network.get_submodule("4")
    x = torch.randn(2, 8, 7, 7, generator=torch.Generator().manual_seed(1))
    before = F.conv2d(x, layer.weight.detach(), layer.bias, padding=1)
    method.prepare(network, a_task(network))
    trained(method, network)
    parts = dict(network.suffix.named_parameters())
    a, b = (parts[f"4.lora_{part}.default.weight"].detach() for part in "AB")
    expected = before + 4 / 2 * F.conv2d(F.conv2d(x, a, padding=1), b)
    method.finish(network)
    torch.testing.assert_close(layer(x).detach(), expected, rtol=1e-4, atol=1e-4)


def test_adapters_learn_at_the_old_rate_new_layers_at_theirs_and_nothing_else_learns() -> None:
    network, method = adapted("joined", 1), LoRA(rank=2)
    method.prepare(network, a_task(network))
    old, new = method.groups(network, RATES)
    assert (old.learning_rate, new.learning_rate) == (RATES.old, RATES.new)
    names = {id(p): name for name, p in network.named_parameters()}
    assert {names[id(p)].split(".lora_")[0] for p in old.parameters} == {"suffix.4", "layer.10"}
    assert all(".lora_" in names[id(p)] for p in old.parameters)
    assert {id(p) for p in new.parameters} == {id(p) for p in network.graft.parameters()}
    method.release()


def test_a_graft_that_reads_on_the_way_runs_through_the_adapters_too() -> None:
    network, method = adapted("wa-cnn", 0), LoRA(rank=2)
    method.prepare(network, a_task(network))
    trained(method, network)
    whole = network.eval()(images()).detach()
    seen = network.suffix(network.prefix(images()))
    torch.testing.assert_close(network.graft_inputs(network.prefix(images()))[0], seen)
    method.finish(network)
    torch.testing.assert_close(network.eval()(images()).detach(), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inner", ["wa-cnn", "head2toe"])
def test_where_the_source_has_a_graft_that_reads_on_the_way_its_adapters_learn_too(
    inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So many that several of each stage are kept: one alone, brought to length one, has no gradient.
    monkeypatch.setattr(head2toe, "KEPT", 0.5)
    source = adapted(inner, 0)
    example = images()
    staged = stage(source.eval(), "graft.classifier", example)
    again = stage(adapted_to(staged, classes=4).eval(), "graft.classifier", example)
    for stages, classes in ((staged, 3), (again, 4)):
        network, method = adapted_to(stages, source_classes=classes), LoRA(rank=2)
        method.prepare(network, a_task(network))
        method.loss(network.train(), a_step(network)).backward()
        gradients = {name: p.grad for name, p in network.named_parameters() if "lora_" in name}
        assert {name.split(".lora_")[0].rpartition(".")[2] for name in gradients} >= {"0", "4"}
        assert all(gradient is not None for gradient in gradients.values())
        assert all(float(g.abs().sum()) > 0 for n, g in gradients.items() if "lora_B" in n and g is not None)
        trained(method, network)
        whole = network.eval()(images()).detach()
        method.finish(network)
        torch.testing.assert_close(network.eval()(images()).detach(), whole, rtol=1e-4, atol=1e-4)


def adapted_to(staged: Stages, *, source_classes: int = 3, classes: int = 3) -> AdaptedNetwork:
    """An adapted network on stages whose last one but one gives vectors, with a new classifier and nothing frozen."""
    (width,) = staged.stages[-2].output_shape
    return AdaptedNetwork(staged, small("replace"), Widths(width, source_classes, classes), cut=0, seed=1)


def test_released_without_an_end_the_network_is_the_source_again() -> None:
    network, method = adapted("retain", 1), LoRA(rank=2)
    names = list(network.state_dict())
    source = {name: value.clone() for name, value in network.staged.network.state_dict().items()}
    method.prepare(network, a_task(network))
    trained(method, network)
    method.release()
    assert list(network.state_dict()) == names
    after = network.staged.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in source.items())


def test_where_only_new_layers_train_there_is_nothing_to_adapt() -> None:
    network, method = adapted("retain", 3), LoRA()
    names = list(network.state_dict())
    method.prepare(network, a_task(network))
    assert list(network.state_dict()) == names
    (group,) = method.groups(network, RATES)
    assert group.learning_rate == RATES.new
    assert len(labels())


def test_grouped_convolutions_and_those_that_pad_by_themselves_are_left_out_but_for_single_pixels() -> None:
    layers = nn.ModuleDict({
        "linear": nn.Linear(4, 4), "plain": nn.Conv2d(4, 4, 3), "depthwise": nn.Conv2d(4, 4, 3, groups=4),
        "same": Conv2dSame(4, 4, 3), "pixels": Conv2dSame(4, 4, 1), "norm": nn.BatchNorm2d(4),
    })  # fmt: skip
    assert adaptable(layers.named_modules()) == ["linear", "plain", "pixels"]


def test_without_peft_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inarch.methods.lora.find_spec", lambda name: None)
    network = adapted("retain", 1)
    with pytest.raises(UsageError, match=r"peft.*not installed.*inarch\[adapters\]"):
        LoRA().require(network.configuration, network.staged)
    assert "inarch.methods.lora" in sys.modules
