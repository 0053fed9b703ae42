"""Depthwise convolutions in bf16 have right gradients, the slow ones from fp32, and nothing else is touched."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from inarch.features.machine import Machine
from inarch.features.plan import Plan
from inarch.network import depthwise
from inarch.network.depthwise import CHUNK, quick_gradients
from inarch.network.recomputed import computed_again

# More than one chunk, and not a whole number of them.
IMAGES = CHUNK + 3
# Two roundings to bf16, whose step is 2 ** -8, with something left for sums in another order.
ROUNDING = 0.02


def bf16() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def layer(**options: object) -> nn.Conv2d:
    torch.manual_seed(1)
    values = {"in_channels": 6, "out_channels": 6, "kernel_size": 3, "padding": 1, "groups": 6} | options
    return nn.Conv2d(**values).to(memory_format=torch.channels_last)  # type: ignore[arg-type]


def gradients(module: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients of its weighted sum for input and parameters."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = module(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    found = torch.autograd.grad((y.float() * weights).sum(), [x, *module.parameters()])
    return y.detach(), list(found)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """What was slow at each call that went another way than PyTorch's own."""
    seen: list[tuple[bool, bool]] = []
    way = depthwise._Depthwise.apply

    def noted(*args: object) -> object:
        seen.append(args[-1])  # type: ignore[arg-type]
        return way(*args)

    monkeypatch.setattr(depthwise._Depthwise, "apply", noted)
    return seen


@pytest.fixture
def precisions(monkeypatch: pytest.MonkeyPatch) -> dict[torch.dtype, list[bool]]:
    """By precision, which of the gradients for input and weights the library was asked for."""
    seen: dict[torch.dtype, list[bool]] = {}
    way = depthwise._gradients

    def noted(gradient: Tensor, *rest: object) -> object:
        seen[gradient.dtype] = list(rest[-1])  # type: ignore[call-overload]
        return way(gradient, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(depthwise, "_gradients", noted)
    return seen


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("options", "slow"),
    [
        ({"stride": 2}, (True, False)),
        ({"stride": (1, 2), "bias": False}, (True, False)),
        ({"kernel_size": 5, "padding": 2}, (False, True)),
        ({"kernel_size": 5, "stride": 2}, (True, True)),
        ({"dilation": 2, "padding": 2, "bias": False}, (False, True)),
        ({"out_channels": 12}, (False, True)),
    ],
)
def test_gradients_are_those_of_exact_arithmetic(
    options: dict[str, object], slow: tuple[bool, bool], memory_format: torch.memory_format,
    calls: list[tuple[bool, bool]], precisions: dict[torch.dtype, list[bool]],
) -> None:  # fmt: skip
    convolution = layer(**options)
    x = torch.randn(IMAGES, 6, 9, 9).to(memory_format=memory_format)
    exact_layer = copy.deepcopy(convolution).double()
    # The same numbers for all: those that bf16 can hold.
    with torch.no_grad():
        for value in convolution.parameters():
            value.copy_(value.bfloat16())
    x = x.bfloat16().float()
    exact_layer.load_state_dict(convolution.state_dict())
    exact, exact_gradients = gradients(exact_layer, x.double())
    with bf16(), quick_gradients():
        output, found = gradients(convolution, x)
    with bf16():
        native, _ = gradients(convolution, x)
    assert calls == [slow]
    assert precisions[torch.float32] == list(slow)
    assert precisions.get(torch.bfloat16, [False, False]) == [not late for late in slow]
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, native)
    assert (output.double() - exact).abs().max() <= ROUNDING * exact.abs().max()
    for one, reference in zip(found, exact_gradients, strict=True):
        assert one.dtype == torch.float32
        assert one.shape == reference.shape
        assert (one.double() - reference).abs().max() <= ROUNDING * reference.abs().max()


@pytest.mark.parametrize(
    "options", [{}, {"groups": 1, "stride": 2}, {"groups": 3, "stride": 2}, {"padding": "same", "kernel_size": 5}]
)
def test_other_convolutions_go_pytorchs_own_way(options: dict[str, object], calls: list[tuple[bool, bool]]) -> None:
    with bf16(), quick_gradients():
        gradients(layer(**options), torch.randn(2, 6, 9, 9))
    assert calls == []


def test_nothing_is_changed_in_fp32_and_where_no_gradients_are_kept(calls: list[tuple[bool, bool]]) -> None:
    convolution, x = layer(stride=2), torch.randn(2, 6, 9, 9)
    with quick_gradients():
        gradients(convolution, x)
    with bf16(), torch.no_grad(), quick_gradients():
        convolution(x)
    with bf16(), quick_gradients(), torch.no_grad():
        convolution(x)
    assert calls == []


@pytest.mark.parametrize(("stride", "slow"), [([2], [(True, False)]), ([1], []), (2, [(True, False)])])
def test_one_number_stands_for_height_and_width(
    stride: int | list[int], slow: list[tuple[bool, bool]], calls: list[tuple[bool, bool]]
) -> None:
    x, weight = torch.randn(2, 6, 9, 9), torch.randn(6, 1, 3, 3, requires_grad=True)
    with bf16(), quick_gradients():
        torch.conv2d(x, weight, stride=stride, padding=[1], groups=6).float().sum().backward()
    assert calls == slow
    assert weight.grad is not None


def test_a_region_that_a_network_keeps_out_of_bf16_stays_out_of_it(calls: list[tuple[bool, bool]]) -> None:
    convolution, x = layer(stride=2), torch.randn(2, 6, 9, 9)
    with bf16(), quick_gradients():
        with torch.autocast("cpu", enabled=False):
            assert convolution(x).dtype == torch.float32
        exact = convolution.double()(x.double())
    assert exact.dtype == torch.float64
    assert calls == []


def test_only_the_gradients_that_are_wanted_are_computed() -> None:
    convolution, x = layer(stride=2, kernel_size=5), torch.randn(IMAGES, 6, 9, 9)
    convolution.weight.requires_grad_(False)
    with bf16(), quick_gradients():
        convolution(x).float().sum().backward()
    assert convolution.weight.grad is None
    assert convolution.bias is not None
    assert convolution.bias.grad is not None
    convolution.weight.requires_grad_(True)
    with bf16(), quick_gradients():
        convolution(x).float().sum().backward()
    assert convolution.weight.grad is not None
    assert x.grad is None


def test_a_machine_that_trains_in_bf16_uses_it_and_so_does_what_is_computed_again(
    calls: list[tuple[bool, bool]],
) -> None:
    stage = nn.Sequential(layer(stride=2), nn.BatchNorm2d(6), nn.ReLU(), layer(kernel_size=5))
    x = torch.randn(IMAGES, 6, 9, 9)
    machine = Machine(plan=Plan(trained="bf16"))
    found = []
    for module in (stage, lambda x: computed_again(stage, x)):
        stage.zero_grad()
        stage[1].reset_running_stats()
        with machine.autocast():
            output = module(x.clone().requires_grad_())
        output.float().square().sum().backward()
        found.append([parameter.grad.clone() for parameter in stage.parameters() if parameter.grad is not None])
    assert len(calls) == 6  # twice two, and two again
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert len(found[0]) == 6
