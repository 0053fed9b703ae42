"""Learning rates over the steps of a trial: linear warm-up, then a cosine (Loshchilov and Hutter, 2017)."""

from __future__ import annotations

import math


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """The factor on every rate at `step` (from 0) of `steps`; `warmup` is the share of steps with a rising rate."""
    rising = round(steps * warmup)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def default_epochs(training_images: int, batch_size: int) -> int:
    """Epochs for about 800 steps, at least 8 and at most 30, so that small data sets are seen often enough."""
    return min(30, max(8, round(800 / max(1, training_images / batch_size))))
