"""Which cuts are worth storing: a cost model in bytes and shares of a forward pass, and a greedy choice within a limit.

What is stored decides by a rounding what later cuts are computed from (a batch of 32 does not round like a chunk of
64), so the choice follows from sizes and the limit alone: no speed is measured, no free memory is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from inarch.network.stages import Stage

# Reading so many bytes is held to take as long as the forward pass of one image through the whole network. On two cores
# that pass took between 0.6 ms (MobileNetV1 0.25 at 128 pixels) and 11 ms (MobileNetV2 at 224); reading goes at some
# gigabytes a second from the file cache and at some hundred megabytes a second from a disk.
BYTES_A_FORWARD = 4 << 20
# Making the view of an image, as a share of its forward pass: about 0.25 for MobileNetV2 at 224 pixels.
VIEW = 0.25
# Trials of a study at one cut, and at the last two, where only new layers train and every configuration is probed.
TRIALS, PROBES = 4, 16
# Bytes of a number as the evaluation views are stored, which are not rounded.
EVALUATION_BYTES = 4
# Bytes that a segment takes beside its rows: its manifest, and what a file system rounds up to.
OVERHEAD = 8192


@dataclass(frozen=True)
class Demand:
    """What the trials of a study read.

    training, evaluated: images of the training split, and of all splits that are evaluated. views: of the training
    split, of all seeds together. epochs: passes of a trial. item: bytes of a stored number.
    """

    training: int
    evaluated: int
    views: int
    epochs: int
    item: int


def stored_bytes(stage: Stage, demand: Demand) -> int:
    """Bytes of all segments behind a stage, for a whole study."""
    training = demand.training * demand.views * demand.item
    rows = prod(stage.output_shape) * (training + demand.evaluated * EVALUATION_BYTES)
    # A checksum of at most twelve digits for every chunk is less than a byte a row.
    return rows + (demand.views + 2) * OVERHEAD + demand.training * demand.views + demand.evaluated


def cuts_to_store(stages: Sequence[Stage], demand: Demand, limit: int) -> tuple[int, ...]:
    """Cuts whose activations are stored, ascending; together they take at most `limit` bytes."""
    chosen: frozenset[int] = frozenset()
    left = limit
    while True:
        now = _cost(stages, demand, chosen)
        gains = {
            stage.index: (now - _cost(stages, demand, chosen | {stage.index})) / max(1, size)
            for stage in stages
            if stage.index not in chosen and (size := stored_bytes(stage, demand)) <= left
        }
        best = max(gains, key=lambda cut: (gains[cut], cut), default=None)
        if best is None or gains[best] <= 0:
            return tuple(sorted(chosen))
        chosen |= {best}
        left -= stored_bytes(stages[best - 1], demand)


def _cost(stages: Sequence[Stage], demand: Demand, stored: frozenset[int]) -> float:
    """What a study's prefixes cost, in forward passes of an image for each training image."""
    reading = [0.0, *(prod(stage.output_shape) * demand.item / BYTES_A_FORWARD for stage in stages)]
    total, start, behind_start = 0.0, 0, 0.0
    for stage in stages:
        behind_start += stage.cost
        if stage.index in stored:
            start, behind_start = stage.index, 0.0
        trials = PROBES if stage.index >= len(stages) - 1 else TRIALS
        total += trials * demand.epochs * (behind_start + (reading[start] if start else VIEW))
    if stored:
        through = sum(stage.cost for stage in stages[: max(stored)])
        # Written once, and read once to be checked: more than happens, since who wrote a segment need not check it and
        # confirmation seeds have few cuts. But which cuts are stored belongs to a run, so the formula stays.
        total += demand.views * (VIEW + through + 2 * sum(reading[cut] for cut in stored))
    return total
