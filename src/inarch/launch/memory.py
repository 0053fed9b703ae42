"""How many stages a training step computes again, for it to stay within a budget of memory.

It follows from counts of bytes for the network, image and batch size and the plan's precision, so two runs of a study
agree on it; and since nothing but memory and time depends on it (network/recomputed.py), the budget is a constant.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
from torch import Tensor, nn

from inarch.features.machine import Machine
from inarch.features.plan import Plan
from inarch.launch.plan import rehearsing
from inarch.network.recomputed import kept_bytes, stages_to_recompute
from inarch.network.stages import Stages

# Bytes that a training step may keep. With them libraries (0.8 GB), kept images (0.4), stored activations (0.5), the
# backward pass and what the allocator cannot use again come to about 4 GiB (docs/lab-notebook.md).
BUDGET = 768 << 20
# What a backward pass adds to it in fp32 at that size; in bf16 half as much, and a step may keep the other half.
BACKWARD = 900 << 20
# Images that are counted, for a batch of any size. Two numbers of them, since converted weights are kept only once.
COUNTED = (2, 4)


def budget_in(precision: str) -> int:
    """Bytes that a training step may keep."""
    return BUDGET + (BACKWARD // 2 if precision == "bf16" else 0)


def within_budget(
    plan: Plan, network: nn.Module, staged: Stages, images: Tensor, device: str, *, budget: int | None = None
) -> Plan:
    """The plan with as many stages computed again as a step on `images` [batch, channels, height, width] takes.

    budget: bytes that a step may keep, those of `budget_in` where none is given. On processors alone: an accelerator
    has memory of its own, and calls cost it more than bytes. The network's weights, buffers and modes, and the random
    state, are as before afterwards.
    """
    if torch.device(device).type != "cpu":
        return plan
    machine = Machine(device, plan)
    with rehearsing(network, staged, device):
        network.to(memory_format=plan.layout)
        few, more = (kept_bytes(staged, machine.place(_as_many(images, n)), machine.autocast) for n in COUNTED)
    times = (len(images) - COUNTED[0]) / (COUNTED[1] - COUNTED[0])
    kept = [round(a + (b - a) * times) for a, b in zip(few, more, strict=True)]
    item = 2 if plan.trained == "bf16" else 4
    shapes = [tuple(images.shape[1:]), *(stage.output_shape for stage in staged.stages[:-1])]
    inputs = [len(images) * item * prod(shape) for shape in shapes]
    allowed = budget_in(plan.trained) if budget is None else budget
    return replace(plan, recomputed=stages_to_recompute(kept, inputs, allowed))


def numbers_within_budget(
    plan: Plan, network: nn.Module, staged: Stages, images: Tensor, device: str, threads: int
) -> list[int]:
    """How many trials, more than one, could train side by side: powers of two that share the threads evenly and whose
    steps keep within the budget together, without computing anything again."""
    numbers = []
    number = 2
    while threads % number == 0:
        share = budget_in(plan.trained) // number
        if within_budget(plan, network, staged, images, device, budget=share).recomputed:
            break
        numbers.append(number)
        number *= 2
    return numbers


def _as_many(images: Tensor, number: int) -> Tensor:
    """`number` images like those of a batch, however small it is."""
    return images[torch.arange(number) % len(images)]
