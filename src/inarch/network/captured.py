"""Passes of a training step that a GPU plays back: captured once, started with one call each (CUDA graphs).

Where batches are small a GPU waits for the calls: a step of ResNet-50 on 32 images is some thousand of them. A capture
keeps the calls of a forward pass and those of its backward pass, with the memory that they work on, and the GPU goes
through them by itself. They are the same calls, so nothing changes by it: not the output, the gradients, the buffers,
nor the random state.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.autograd.graph import set_warn_on_accumulate_grad_stream_mismatch

from inarch.network.randomness import own_randomness

# Passes before the capture, in which libraries prepare what they need.
WARM_UP = 1

Passes = Callable[[Tensor], Tensor]


class _Segment(nn.Module):
    """A module around a segment: capturing replaces the forward method of what it is given."""

    def __init__(self, segment: nn.Module) -> None:
        super().__init__()
        self.segment = segment

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.segment(x)
        return found


def captured(segment: nn.Module, example: Tensor) -> Passes:
    """Forward and backward passes of a segment on a GPU, in the modes that it is in, for inputs like the example.

    Its output lies in memory that the next call writes again, and so do gradients: one backward pass follows each
    call, before the next one. Neither weights nor buffers may move in memory, nor parameters begin or end to train.

    `RuntimeError` where the segment does what cannot be captured (it looks at a value, say) or memory is too little:
    once captured, what is left must be enough for a pass that is not.
    """
    passes = _Segment(segment)
    passes.training = segment.training  # its own mode alone: stages that rest keep theirs
    buffers = [(buffer, buffer.clone()) for buffer in segment.buffers()]
    torch.cuda.empty_cache()  # what is cached would be counted as taken
    # Gradients reach weights from another stream than that of the capture, which is as it should be.
    set_warn_on_accumulate_grad_stream_mismatch(False)
    before = _free(example)
    try:
        with own_randomness(), _same_autocast_without_cache(), _no_garbage_collected():
            _require_no_waiting(passes, example)
            torch.cuda.make_graphed_callables(
                passes, (example.detach().clone(),), num_warmup_iters=WARM_UP, allow_unused_input=True
            )
    except RuntimeError:
        _forget_capture(example)
        raise
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
    torch.cuda.empty_cache()
    after = _free(example)
    if after < before - after:
        raise RuntimeError("captured passes leave too little memory")
    return passes


def _require_no_waiting(passes: nn.Module, example: Tensor) -> None:
    """Runs them once; `RuntimeError` where they wait for a value of the GPU, at which a capture would break off."""
    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own: that it does not see every way to wait
            torch.cuda.set_sync_debug_mode("error")
        found = passes(example)
        torch.autograd.grad(found.sum(), [p for p in passes.parameters() if p.requires_grad], allow_unused=True)
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _forget_capture(example: Tensor) -> None:
    """Lets a GPU give random numbers again: after a capture that broke off it behaves as if that went on."""
    generator = torch.cuda.default_generators[example.device.index or 0]
    generator.graphsafe_set_state(generator.clone_state())


def _free(example: Tensor) -> int:
    """Bytes of the GPU's memory that nobody has."""
    return torch.cuda.mem_get_info(example.device)[0]


def _same_autocast_without_cache() -> torch.autocast:
    """The precision of where this is called; converted weights must be made again whenever passes are played."""
    return torch.autocast(
        "cuda",
        dtype=torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """An older capture must not be freed in the midst of a new one, which would end it."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@final
class Tape:
    """Captured passes of the segment that was last asked for, kept for the next trial that trains the same one."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._passes: Passes | None = None
        # What the key names by its place in memory.
        self._segment: nn.Module | None = None

    def passes(self, name: Hashable, segment: nn.Module, example: Tensor) -> Passes:
        """Passes of a segment in training; of the segment itself where capturing them is not possible or in vain.

        name: tells segments apart that share all weights.
        """
        if not any(parameter.requires_grad for parameter in segment.parameters()):
            return segment
        tensors = [*segment.parameters(), *segment.buffers()]
        key = (
            name,
            tuple((id(tensor), tensor.data_ptr(), tensor.requires_grad) for tensor in tensors),
            tuple(module.training for module in segment.modules()),
            (example.shape, example.stride(), example.dtype),
        )
        if key != self._key:
            self._key = self._passes = self._segment = None  # its memory is free before more is taken
            found: Passes = segment
            with suppress(RuntimeError):
                found = captured(segment, example)
            self._key, self._passes, self._segment = key, found, segment
        assert self._passes is not None
        return self._passes


@final
@dataclass
class Played:
    """A segment whose training steps on so many images are played back from a tape; all else runs as it is."""

    segment: nn.Module
    name: Hashable
    tape: Tape
    images: int
    _passes: Passes | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if not (self.segment.training and torch.is_grad_enabled() and len(x) == self.images):
            found: Tensor = self.segment(x)
            return found
        if self._passes is None:
            self._passes = self.tape.passes(self.name, self.segment, x)
        return self._passes(x)
