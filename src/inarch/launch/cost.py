"""How long a trial will take: measured speeds, corrected by the trials that are finished.

Estimates decide only where a time limit stops the work and what the user is told, never what a trial computes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from statistics import median
from typing import final

from inarch.features.store import PrefixStore
from inarch.network.adapted import stored_cut
from inarch.network.stages import Stages
from inarch.training.fit import view_number
from inarch.training.trial import Trial

# What a further trial adds to the steps of those that it is trained together with, roughly: none to nearly all of its
# own, by the size of its graft (docs/lab-notebook.md). Finished batches correct the estimate.
STACKED_SHARE = 0.5


@dataclass(frozen=True)
class Speeds:
    """Seconds an image: reading a training view, forward through the whole network, a training step of all of it.
    head: seconds a step where only new layers train."""

    view: float
    forward: float
    training: float
    head: float

    def fastest(self, other: Speeds) -> Speeds:
        """The shorter time of each of two measurements."""
        return Speeds(*(min(pair) for pair in zip(astuple(self), astuple(other), strict=True)))


@final
@dataclass
class CostModel:
    """Seconds of a trial from its cut: frozen stages cost a forward pass (nothing where held), the rest training."""

    staged: Stages
    store: PrefixStore
    speeds: Speeds
    _ratios: list[float] = field(default_factory=list)

    def seconds(self, *batch: Trial) -> float:
        """Seconds of a trial, or of several that are trained together."""
        return self.raw(*batch) * self._correction()

    def learn(self, raw: float, seconds: float) -> None:
        """Takes a finished batch into account: its raw estimate from before it ran, and what it took."""
        self._ratios.append(seconds / max(1e-6, raw))

    def _correction(self) -> float:
        return min(4.0, max(0.25, median(self._ratios[-15:]))) if self._ratios else 1.2

    def raw(self, *batch: Trial) -> float:
        """Seconds before the correction. What is trained together shares its activations, and most of its steps."""
        trial = batch[0]
        steps = trial.settings.epochs * len(self.store.images.rows["train"]) / trial.settings.batch_size
        return self._alone(trial) + STACKED_SHARE * (len(batch) - 1) * steps * self.speeds.head

    def _alone(self, trial: Trial) -> float:
        images = len(self.store.images.rows["train"])
        validation = len(self.store.images.rows["validation"])
        epochs, batch = trial.settings.epochs, trial.settings.batch_size
        cut = stored_cut(trial.configuration, trial.cut, len(self.staged.stages))
        frozen = sum(stage.cost for stage in self.staged.stages[: trial.cut])
        # The last view: a range test or a trial that was stopped leaves some of the first ones.
        if self.store.holds(cut, view_number(trial.seed, epochs - 1)):
            prefix, view, looked_at = 0.0, 0.0, 0.0
        else:
            prefix, view, looked_at = frozen * self.speeds.forward, self.speeds.view, 1.0
        training = (1 - frozen) * self.speeds.training + self.speeds.head / batch
        checking = (1 - frozen + frozen * looked_at) * self.speeds.forward
        return epochs * (images * (view + prefix + training) + validation * checking)


def seconds_of(work: Callable[[], object], repeats: int = 4) -> float:
    """Shortest time of a piece of work after one that warms up: what disturbs a machine only adds."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
