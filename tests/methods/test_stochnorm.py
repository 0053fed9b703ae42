"""StochNorm: batch or moving statistics, channel by channel."""

from __future__ import annotations

import copy

import pytest
import torch
from methods_bench import a_task, adapted
from torch import Tensor, nn

from inarch.methods.stochnorm import StochNorm


def normalisation(p: float) -> tuple[nn.BatchNorm2d, StochNorm, Tensor]:
    """The batch normalisation of the toy network's second stage in training, with hooks, and an input for it."""
    network, method = adapted("retain", 1), StochNorm(p=p)
    layer = network.suffix.get_submodule("5")
    assert isinstance(layer, nn.BatchNorm2d)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias, layer.running_mean):
            assert tensor is not None
            tensor.copy_(torch.randn(12, generator=random))
        assert layer.running_var is not None
        layer.running_var.copy_(1 + torch.rand(12, generator=random))
    method.prepare(network, a_task(network))
    network.train()
    return layer, method, torch.randn(4, 12, 5, 5, generator=random).requires_grad_(True)


def by_hand(layer: nn.BatchNorm2d, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    def shaped(value: Tensor) -> Tensor:
        return value.view(1, -1, 1, 1)

    normalised = (x - shaped(mean)) / torch.sqrt(shaped(variance) + layer.eps)
    return shaped(layer.weight) * normalised + shaped(layer.bias)


def test_every_channel_has_batch_or_moving_statistics_and_its_gradient() -> None:
    layer, _, x = normalisation(0.5)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean, variance = layer.running_mean.clone(), layer.running_var.clone()
    torch.manual_seed(3)
    found = layer(x)
    moving = by_hand(layer, x, mean, variance)
    batch = by_hand(layer, x, x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0))
    chosen = [bool(torch.allclose(found[:, c], batch[:, c], atol=1e-5)) for c in range(12)]
    assert 0 < sum(chosen) < 12
    expected = torch.where(torch.tensor(chosen).view(1, -1, 1, 1), batch, moving)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_chance_of_none_or_all_is_one_kind_of_statistics_and_the_moving_ones_move_all_the_same(p: float) -> None:
    layer, _, x = normalisation(p)
    plain = copy.deepcopy(layer)
    plain._forward_hooks.clear()
    plain._forward_pre_hooks.clear()
    usual = copy.deepcopy(plain).train(bool(p))(x)
    plain.train()(x)
    torch.testing.assert_close(layer(x), usual)
    torch.testing.assert_close(layer.running_mean, plain.running_mean)
    torch.testing.assert_close(layer.running_var, plain.running_var)


def test_the_chance_is_that_of_batch_statistics() -> None:
    layer, _, x = normalisation(0.2)
    torch.manual_seed(0)
    batch = by_hand(layer, x, x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0))
    chosen = [torch.isclose(layer(x), batch, atol=1e-4).all(dim=3).all(dim=2).all(dim=0) for _ in range(200)]
    assert float(torch.stack(chosen).float().mean()) == pytest.approx(0.2, abs=0.04)


def test_in_evaluation_and_after_its_release_the_layer_is_as_it_was() -> None:
    layer, method, x = normalisation(0.5)
    layer.eval()
    moving = layer(x)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    torch.testing.assert_close(moving, by_hand(layer, x, layer.running_mean, layer.running_var), atol=1e-5, rtol=1e-4)
    method.release()
    layer.train()
    batch = by_hand(layer, x, x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0))
    torch.testing.assert_close(layer(x), batch, atol=1e-5, rtol=1e-4)


def test_the_frozen_layer_has_no_hooks() -> None:
    network, method = adapted("retain", 1), StochNorm()
    method.prepare(network, a_task(network))
    hooked = [name for name, m in network.named_modules() if m._forward_hooks]
    assert hooked == ["suffix.5"]
