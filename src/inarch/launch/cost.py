"""How long a trial will take: measured speeds, corrected by the trials that are finished.

Estimates decide only where a time limit stops the work and what the user is told, never what a trial computes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, field
from typing import final

from inarch.features.store import Key, PrefixStore
from inarch.methods import make_method
from inarch.network.adapted import stored_cut
from inarch.network.grafts import graft_class
from inarch.network.layers import starts_matched
from inarch.network.stages import Stages
from inarch.training.order import view_number
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
    """Seconds of a trial from its cut.

    Frozen stages cost a forward pass for each view that is not stored yet, up to the stored cut; what lies between that
    and the trial's cut costs one every epoch, and the rest costs training. A graft that takes its initial values from
    the training images costs a pass over them, which is stored nowhere.
    """

    staged: Stages
    store: PrefixStore
    speeds: Speeds
    # Whether a trial is validated after every epoch (`Watch.every_epoch`).
    every_epoch: Callable[[Trial], bool] = lambda trial: True
    # Of finished batches: their estimates before the correction, and what they took.
    learned: list[tuple[float, float]] = field(default_factory=list)

    def seconds(self, *batch: Trial, made: set[Key] | None = None) -> float:
        """Seconds of a trial, or of several that are trained together.

        made: segments that trials before them will have made, to which they add their own.
        """
        return self.raw(*batch, made=made) * self._correction()

    def total(self, batches: Iterable[Sequence[Trial]]) -> float:
        """Seconds of batches one after the other: what the first stores the next ones read."""
        made: set[Key] = set()
        return sum(self.seconds(*batch, made=made) for batch in batches)

    def learn(self, raw: float, seconds: float) -> None:
        """Takes a finished batch into account: its raw estimate from before it ran, and what it took."""
        self.learned.append((max(1e-6, raw), seconds))

    def testing(self, trials: Sequence[Trial]) -> float:
        """Seconds of the test of trained trials: one pass for activations to be stored, and what lies behind them."""
        stages = len(self.staged.stages)
        starts = [self.store.start(stored_cut(trial.configuration, trial.cut, stages)) for trial in trials]
        passes = max((self._share(0, start) for start in starts), default=0.0)
        passes += sum(1 - self._share(0, start) for start in starts)
        return len(self.store.images.rows["test"]) * passes * self.speeds.forward

    def _correction(self) -> float:
        """What the latest batches took, as a multiple of their estimates.

        Of their sums: what took a second and what took minutes need not be wrong alike, and minutes are what counts.
        """
        if not self.learned:
            return 1.2
        raw, seconds = (sum(some) for some in zip(*self.learned[-15:], strict=True))
        return min(4.0, max(0.25, seconds / raw))

    def raw(self, *batch: Trial, made: set[Key] | None = None) -> float:
        """Seconds before the correction. What is trained together shares its stored activations, and most of its steps
        where grafts can be stacked."""
        trial = batch[0]
        starts = sum(map(self._starting, batch))
        further = sum(map(self._further, batch[1:]))
        return starts + self._passes(trial, made) + len(_seeds(trial)) * self._steps(trial) + further

    def _starting(self, trial: Trial) -> float:
        """Seconds of the passes over the training images from which a graft takes its initial values."""
        configuration = trial.configuration
        passes = graft_class(configuration.graft).starts_from_images() + starts_matched(configuration.harmonise)
        return passes * len(self.store.images.rows["train"]) * (self.speeds.view + self.speeds.forward)

    def _further(self, trial: Trial) -> float:
        """Seconds that a trial adds to those it is trained together with."""
        if not graft_class(trial.configuration.graft).stacks:
            return self._steps(trial, reads=False)
        steps = trial.settings.epochs * len(self.store.images.rows["train"]) / trial.settings.batch_size
        return STACKED_SHARE * steps * self.speeds.head

    def _steps(self, trial: Trial, *, reads: bool = True) -> float:
        """Seconds of one training from stored activations on, with its validation.

        reads: whether it computes what is not stored, up to its stored cut; else another one hands that over.
        """
        images = len(self.store.images.rows["train"])
        validation = len(self.store.images.rows["validation"])
        settings = trial.settings
        cut = stored_cut(trial.configuration, trial.cut, len(self.staged.stages))
        start = self.store.start(cut) if reads else cut
        between = self._share(start, trial.cut)
        behind = 1 - self._share(0, trial.cut)
        view = 0.0 if start else self.speeds.view
        step = view + between * self.speeds.forward + behind * self.speeds.training
        steps = settings.epochs * (images * step + images * self.speeds.head / settings.batch_size)
        validations = settings.epochs if self.every_epoch(trial) else 1
        checking = validations * validation * (between + behind) * self.speeds.forward
        return steps + checking

    def _passes(self, trial: Trial, made: set[Key] | None) -> float:
        """Seconds in which the views of a trial that are not stored yet are pushed through the network."""
        start = self.store.start(stored_cut(trial.configuration, trial.cut, len(self.staged.stages)))
        if not start:
            return 0.0
        views = range(trial.settings.distinct_views)
        wanted: list[Key] = [
            (start, "train", view_number(seed, n, trial.views)) for seed in _seeds(trial) for n in views
        ] + [(start, "validation", None)]  # fmt: skip
        missing = [key for key in wanted if (made is None or key not in made) and not self.store.holds(*key)]
        if made is not None:
            # One pass leaves a segment at every stored cut.
            made.update((cut, split, view) for _, split, view in missing for cut in self.store.keeping.cuts)
        an_image = self.speeds.view + self._share(0, max(self.store.keeping.cuts)) * self.speeds.forward
        return an_image * sum(len(self.store.images.rows[split]) for _, split, _ in missing)

    def _share(self, start: int, stop: int) -> float:
        return sum(stage.cost for stage in self.staged.stages[start:stop])


def _seeds(trial: Trial) -> tuple[int, ...]:
    """Of each training that the trial consists of."""
    return make_method(trial.method).seeds(trial.seed, trial.learning_rate > 0)


def seconds_of(work: Callable[[], object], repeats: int = 4) -> float:
    """Shortest time of a piece of work after one that warms up: what disturbs a machine only adds."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
