"""What one run of a network tells: its logits, the module that refuses an image size, the classification layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from inarch.errors import SourceError


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module has the mode that it had."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def run_images(network: nn.Module, images: Tensor) -> tuple[Tensor, list[str]]:
    """Logits [N, classes] of `images` [N, C, H, W] in evaluation mode, and paths of the leaf modules as they ran.

    Raises SourceError that names the module and the size where the network cannot process such images.
    """
    entered, executed, handles = list[str](), list[str](), []
    for path, module in network.named_modules():

        def enter(_module: nn.Module, _arguments: Any, path: str = path) -> None:
            entered.append(path)

        def leave(module: nn.Module, _arguments: Any, _result: Any, path: str = path) -> None:
            entered.remove(path)
            if not any(True for _ in module.children()):
                executed.append(path)

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with evaluating(network):
            logits = network(images)
    except Exception as error:
        where = f"its module '{entered[-1]}'" if entered and entered[-1] else "its forward function"
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        channels, height, width = images.shape[1:]
        raise SourceError(
            f"The network ({type(network).__name__}) cannot process images of {height} x {width} pixels and {channels} "
            f"channel(s): {where} says: {reason}.",
            "Give a size that it accepts, larger ones first: --image-size, or 'input' in its card.",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        found = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise SourceError(
            f"The network ({type(network).__name__}) does not return logits of shape [images, classes] but {found}.",
            "A source network is an image classifier: wrap it in a module that returns its logits.",
        )
    return logits, executed


def outputs(layer: nn.Module) -> int | None:
    """Number of outputs of a layer that can be a classification layer (linear or 1x1 convolution), else None."""
    if isinstance(layer, nn.Linear):
        return layer.out_features
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1:
        return layer.out_channels
    return None


def inputs(layer: nn.Module) -> int | None:
    """Number of features, or of channels, that a linear layer or a convolution takes, else None."""
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return layer.in_channels if isinstance(layer, nn.Conv2d) else None
