"""Stages whose inner activations a training step computes again in its backward pass instead of keeping them.

Chen, Xu, Zhang, Guestrin, "Training deep nets with sublinear memory cost" (2016, arXiv 1604.06174). The first stages of
a convolutional network hold most of what a step keeps and little of its arithmetic (MobileNetV2 at 224 pixels: five of
twenty stages keep 62 % of the bytes and take 30 % of a forward pass), so an integer says it all: the first so many
stages. Nothing changes by it, bit for bit: not the output, the gradients, the buffers, nor the random state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from inarch.network.depthwise import quick_gradients
from inarch.network.stages import Stages


def computed_again(stage: nn.Module, x: Tensor) -> Tensor:
    """What the stage makes of x; the backward pass computes what it needs of it from x.

    Dropout is repeated from its random state, and batch normalisation with the statistics that it had, its moving
    ones moved once.
    """
    before = [
        (module, name, value.clone())
        for module in stage.modules() for name, value in module._buffers.items() if value is not None
    ]  # fmt: skip

    @contextmanager
    def as_before() -> Iterator[None]:
        now = [(module, name, module.get_buffer(name)) for module, name, _ in before]
        for module, name, value in before:
            module._buffers[name] = value
        try:
            with quick_gradients():
                yield
        finally:
            # Put back, not copied back: autograd refuses buffers that were written since the forward pass.
            for module, name, value in now:
                module._buffers[name] = value

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        # Both, whoever calls: what is computed again must keep what the first time kept.
        return quick_gradients(), as_before()

    # To the end, not only as far as needed: that would leave hooks of methods half-way through a layer.
    with set_checkpoint_early_stop(False):
        return checkpoint(stage, x, use_reentrant=False, context_fn=contexts)


def through(parts: Sequence[nn.Module], x: Tensor) -> Tensor:
    """What the parts make of x one after the other; all but the last are `computed_again`."""
    *again, rest = parts
    for part in again:
        x = computed_again(part, x)
    return rest(x)


def kept_bytes(staged: Stages, images: Tensor, autocast: Callable[[], AbstractContextManager[object]]) -> list[int]:
    """Bytes that a training step on `images` keeps for its backward pass at each stage, its input counted in.

    Counted, not measured, so the same everywhere. Runs the network in training mode, which moves the statistics of its
    normalisations.
    """
    own = {value.untyped_storage().data_ptr() for value in staged.network.state_dict().values()}
    found = []
    x = images.detach()
    for index in range(len(staged.stages)):
        # By storage: what several operations keep lies there once. Sizes alone, and detached: what holds a value that
        # an operation made holds the operation, which holds this hook, and nothing of it would ever be freed.
        kept: dict[int, int] = {}

        def keep(value: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = value.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return value.detach()

        segment = staged.segment(index, index + 1).train()
        with torch.enable_grad(), autocast(), saved_tensors_hooks(keep, lambda value: value):
            x = segment(x.requires_grad_(x.is_floating_point()))
        found.append(sum(kept.values()))
        x = x.detach()
    return found


def stages_to_recompute(kept: Sequence[int], inputs: Sequence[int], budget: int) -> int:
    """The least number of first stages to compute again for a step to keep at most `budget` bytes.

    kept, inputs: bytes that each stage keeps, and those of its input, which is kept in any case. Where no number of
    stages is enough, the one that leaves least. While a stage is computed again, its own bytes come on top of what the
    stages before it keep.
    """
    peaks = []
    for number in range(len(kept)):
        held = [*inputs[:number], *kept[number:]]
        again = [sum(inputs[:k]) + kept[k] for k in range(number)]
        peaks.append(max([sum(held), *again]))
    enough = (number for number, peak in enumerate(peaks) if peak <= budget)
    return next(enough, peaks.index(min(peaks)))
