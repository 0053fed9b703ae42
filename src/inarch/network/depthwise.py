"""Gradients of depthwise convolutions in bf16 on processors, those in fp32 for which the library has no fast bf16 code.

oneDNN computes the gradient of a depthwise convolution for its input 3 to 85 times slower in bf16 than in fp32 where
the stride is not 1, and the gradient for its weights 1.3 to 4 times slower where the kernel is larger than 3, dilated
or one of several for a channel (torch 2.15; docs/lab-notebook.md). In MobileNetV2 four such layers took 40 % of a
training step. Forward passes, quick gradients, other convolutions and other devices stay as they are. Gradients of
gradients, which no method needs, are an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# The largest kernel whose weights have a fast gradient in bf16.
SMALL_KERNEL = 3
# What autocast casts.
CASTED = {torch.float32, torch.float16, torch.bfloat16}
# Images whose gradients are computed at once: what is converted to fp32 for it stays small.
CHUNK = 8


@contextmanager
def quick_gradients() -> Iterator[None]:
    """Within it, `conv2d` under autocast to bf16 on a processor gets its slow gradients in fp32; else nothing changes.

    Also nothing where that is not so as the context begins, or no gradients are kept.
    """
    with _QuickGradients() if _trains_in_bf16() else nullcontext():
        yield


def _trains_in_bf16() -> bool:
    in_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return in_bf16 and torch.is_grad_enabled()


@final
class _QuickGradients(TorchFunctionMode):
    """Sees every call of `conv2d`, by a module or not, and leaves the network's modules alone."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d and _trains_in_bf16():
            return _conv2d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0, dilation: int | Sequence[int] = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """`torch.conv2d` with its own names, with gradients that are quick."""
    depthwise = groups > 1 and weight.shape[1] == 1
    steps, spread = _pair(stride), _pair(dilation)
    of_input = steps != [1, 1]
    of_weight = max(weight.shape[2:]) > SMALL_KERNEL or spread != [1, 1] or weight.shape[0] != groups
    usable = input.device.type == "cpu" and input.ndim == 4 and not isinstance(padding, str)
    usable = usable and {input.dtype, weight.dtype} <= CASTED
    if not (depthwise and usable and (of_input or of_weight)):
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    x, w = input.to(torch.bfloat16), weight.to(torch.bfloat16)
    b = None if bias is None else bias.to(torch.bfloat16)
    convolved: Tensor = _Depthwise.apply(x, w, b, (steps, _pair(padding), spread, groups), (of_input, of_weight))
    return convolved


def _pair(value: int | Sequence[int] | str) -> list[int]:
    """Height and width, of which one number may stand for both."""
    found = [value] if isinstance(value, int) else [int(one) for one in value]
    return found * 2 if len(found) == 1 else found


@final
class _Depthwise(torch.autograd.Function):
    """A convolution in bf16; `slow` says which gradients, for its input and its weights, are computed in fp32."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...], slow: tuple[bool, bool]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.slow = geometry, slow
        return F.conv2d(x, weight, bias, *geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        slow = tuple(want and late for want, late in zip(wanted, ctx.slow, strict=True))
        quick = tuple(want and not late for want, late in zip(wanted, ctx.slow, strict=True))
        found = _gradients(gradient, x, weight, ctx.geometry, quick) if any(quick) else (None, None)
        late = _in_fp32(gradient, x, weight, ctx.geometry, slow) if any(slow) else (None, None)
        of_input, of_weight = (a if a is not None else b for a, b in zip(found, late, strict=True))
        # Not by the library, which for a bias computes the gradient for the weights too.
        of_bias = gradient.sum((0, 2, 3), dtype=torch.float32).to(gradient.dtype) if ctx.needs_input_grad[2] else None
        return of_input, of_weight, of_bias, None, None


def _in_fp32(
    gradient: Tensor, x: Tensor, weight: Tensor, geometry: tuple[Any, ...], wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The wanted gradients computed in fp32, some images at a time, in the types of what they belong to."""
    exact = weight.float()
    of_input = torch.empty_like(x) if wanted[0] else None
    of_weight = torch.zeros_like(exact) if wanted[1] else None
    for start in range(0, len(x), CHUNK):
        here = slice(start, start + CHUNK)
        # For its own gradient the input's values do not matter, only its shape and strides.
        values = x[here].float() if wanted[1] else torch.empty_like(x[here], dtype=torch.float32)
        a, b = _gradients(gradient[here].float(), values, exact, geometry, wanted)
        if of_input is not None and a is not None:
            of_input[here] = a
        if of_weight is not None and b is not None:
            of_weight += b
    return of_input, None if of_weight is None else of_weight.to(weight.dtype)


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, geometry: tuple[Any, ...], wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Those for input and weights that are wanted, in the precision of what is given."""
    stride, padding, dilation, groups = geometry
    of_input, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [*wanted, False]
    )
    return of_input, of_weight
