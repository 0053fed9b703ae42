"""Several grafts of one configuration as one: every parameter stacked along a new first dimension, [members, ...].

Small grafts take less time to compute than to call, and calling one stack costs about as much as calling one graft.
Written out for the few layers that grafts are made of: `torch.func.vmap` over them was slower than one graft after the
other (docs/lab-notebook.md). Inputs are [images, channels] where all members see the same, else [members, images,
channels]; outputs are [members, images, channels].
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inarch.network.careful import JoinedBody
from inarch.network.grafts import GRAFTS
from inarch.network.grown import BODIES
from inarch.network.layers import Gate, ScaledL2Normalisation, TemperedSoftmax


@final
class _StackedLinear(nn.Module):
    """y_m = W_m x_m + b_m for every member m."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = _stack_parameters([layer.weight for layer in layers])
        self.bias = _stack_parameters([layer.bias for layer in layers])

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 3:
            return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.transpose(1, 2))
        # One product for all members: their weights lie one below the other.
        y = F.linear(x, self.weight.flatten(0, 1), self.bias.flatten())
        return y.unflatten(1, self.bias.shape).transpose(0, 1)


@final
class _StackedL2(nn.Module):
    """`ScaledL2Normalisation` with a scale a member; what all members see is normalised once."""

    def __init__(self, layers: Sequence[ScaledL2Normalisation]) -> None:
        super().__init__()
        self.scale = _stack_parameters([layer.scale for layer in layers])

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * self.scale.unsqueeze(1)


@final
class _StackedBatchNorm(nn.Module):
    """Batch normalisation with parameters and running statistics of its own for every member."""

    def __init__(self, layers: Sequence[nn.BatchNorm1d]) -> None:
        super().__init__()
        self.weight = _stack_parameters([layer.weight for layer in layers])
        self.bias = _stack_parameters([layer.bias for layer in layers])
        self._momentum, self._eps = layers[0].momentum, layers[0].eps
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, _stack([layer.get_buffer(name) for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        # Members side by side as channels: [images, members * channels].
        x = x.unsqueeze(0).expand(len(self.weight), *x.shape) if x.ndim == 2 else x
        side_by_side = x.transpose(0, 1).flatten(1)
        if self.training:
            self.get_buffer("num_batches_tracked").add_(1)
        mean, variance = self.get_buffer("running_mean").view(-1), self.get_buffer("running_var").view(-1)
        weight, bias = self.weight.flatten(), self.bias.flatten()
        y = F.batch_norm(side_by_side, mean, variance, weight, bias, self.training, self._momentum or 0.0, self._eps)
        return y.unflatten(1, self.weight.shape).transpose(0, 1)


@final
class _StackedSoftmax(nn.Module):
    """`TemperedSoftmax` with a temperature a member."""

    def __init__(self, layers: Sequence[TemperedSoftmax]) -> None:
        super().__init__()
        self.log_temperature = _stack_parameters([layer.log_temperature for layer in layers])

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x / self.log_temperature.exp().unsqueeze(1), dim=-1)


@final
class _StackedGate(nn.Module):
    """`Gate` with gates of its own for every member."""

    def __init__(self, layers: Sequence[Gate]) -> None:
        super().__init__()
        self.gate = _stack_parameters([layer.gate for layer in layers])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate.unsqueeze(1)


_STACKED: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Linear: _StackedLinear,
    ScaledL2Normalisation: _StackedL2,
    nn.BatchNorm1d: _StackedBatchNorm,
    TemperedSoftmax: _StackedSoftmax,
    Gate: _StackedGate,
}
# They compute on stacks what they compute on single members.
_AS_THEY_ARE = (nn.Identity, nn.ReLU)
_CONTAINERS = (nn.Sequential, *BODIES, JoinedBody, *GRAFTS)


def stackable(graft: nn.Module) -> bool:
    """Whether the graft is made of layers that can be stacked."""
    return all(type(module) in (*_STACKED, *_AS_THEY_ARE, *_CONTAINERS) for module in graft.modules())


def stack_modules(modules: Sequence[nn.Module]) -> nn.Module:
    """Modules of equal structure, which `stackable` accepts, as one.

    Its parameters and buffers have the modules' names. The modules' own lie in the same memory from then on: what
    changes the one changes the other. Gradients are apart: those of the stack are shared out by `share_gradients`.
    """
    first = modules[0]
    if type(first) in _STACKED:
        return _STACKED[type(first)](modules)
    if not isinstance(first, _CONTAINERS):
        return first
    whole = copy.copy(first)
    whole._modules = {
        name: stack_modules([module.get_submodule(name) for module in modules]) for name, _ in first.named_children()
    }
    return whole


def share_gradients(pairs: Sequence[tuple[nn.Parameter, Sequence[nn.Parameter]]]) -> None:
    """Adds the gradient of every stacked parameter to those of its members' parameters, and clears it."""
    for stacked, own in pairs:
        if stacked.grad is None:
            continue
        for parameter, gradient in zip(own, stacked.grad.unbind(), strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        stacked.grad = None


def _stack_parameters(parameters: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(_stack(parameters))


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors as one, in whose memory they lie afterwards."""
    whole = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, part in zip(tensors, whole, strict=True):
        tensor.data = part
    return whole
