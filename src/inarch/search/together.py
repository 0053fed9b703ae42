"""Which trials are trained together in one batched computation.

A pure function of the trials of a round: a study that is killed, resumed or cut short by its time limit forms the same
batches, because a batch is recorded, or left out, as a whole. So a round whose trials are batched must not depend, in
its trials or their order, on how far the study has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from inarch.methods import method_class
from inarch.network.adapted import stored_cut
from inarch.search.space import Space
from inarch.training.trial import Trial

# A study has about so many trials at one cut where only new layers train; more would delay the first record.
LARGEST = 16

Batch = tuple[Trial, ...]
"""Trials that are run together: usually one."""


def batches(space: Space, trials: Iterable[Trial]) -> list[Batch]:
    """The trials in batches, in the order of each batch's first trial.

    Together are trials that read the same activations in the same order (stored cut, seed, settings), in which only new
    layers train and whose method can be stacked, at most `LARGEST` of them; every other trial is a batch of its own.
    Trials with different seeds are not stacked: their activations have to be computed for each seed, and that takes
    most of their time.
    """
    trials = list(trials)
    found: dict[object, list[Trial]] = {}
    for trial in trials:
        cut = stored_cut(trial.configuration, trial.cut, space.stages)
        stacked = trial.cut == space.deepest(trial.configuration) and method_class(trial.method).together
        found.setdefault((cut, trial.seed, trial.settings) if stacked else trial.key, []).append(trial)
    order = {trial.key: place for place, trial in enumerate(trials)}
    parts = [tuple(group[i : i + LARGEST]) for group in found.values() for i in range(0, len(group), LARGEST)]
    return sorted(parts, key=lambda batch: order[batch[0].key])


def with_companions(trials: Sequence[Trial], batches_to_come: Iterable[Batch]) -> list[Batch]:
    """The batches in which these trials will run: those of `batches_to_come` that hold them, else each by itself."""
    found: dict[Batch, None] = {}
    batch_of = {trial.key: batch for batch in batches_to_come for trial in batch}
    for trial in trials:
        found[batch_of.get(trial.key, (trial,))] = None
    return list(found)
