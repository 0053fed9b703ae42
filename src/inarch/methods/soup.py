"""Greedy model soup: the mean of the weights of several fine-tunings that began alike, of those that go well together.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time" (ICML 2022, arXiv 2203.05482), recipe 1: the fine-tuned networks are sorted by their accuracy on
held-out images, the best is the soup, and each of the others stays in it if the accuracy of the mean does not fall.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from inarch.methods.method import Method


@final
@dataclass
class Soup(Method):
    """members: fine-tunings that a trial consists of, each as plain fine-tuning, as many as a study has seeds.

    They begin with the same weights, those of new layers included, since only what began alike can be averaged, and
    differ in the order of images, their views and dropout; the paper varies learning rates and more, which here every
    method has tuned already. The first is what plain fine-tuning with the trial's seed is. Held out is the validation
    split. Running statistics of batch normalisation are averaged like weights. Where no old layer trains this is plain
    fine-tuning: with frozen features the members of a linear classifier would hardly differ.
    """

    name: ClassVar[str] = "soup"
    same_passes: ClassVar[bool] = True

    members: int = 3

    def seeds(self, seed: int, old_layers_train: bool) -> tuple[int, ...]:
        if not old_layers_train:
            return (seed,)
        # Mixed, so that no member has the views of another trial's seed; PyTorch looks at 32 bits of a seed.
        further = (np.random.SeedSequence([seed, n]).generate_state(1)[0] for n in range(1, self.members))
        return (seed, *map(int, further))

    def taken(self, trainings: int, accuracy: Callable[[Sequence[int]], float]) -> Sequence[int]:
        alone = [accuracy([member]) for member in range(trainings)]
        best_first = sorted(range(trainings), key=lambda member: -alone[member])
        soup, reached = best_first[:1], alone[best_first[0]]
        for member in best_first[1:]:
            found = accuracy([*soup, member])
            if found >= reached:
                soup, reached = [*soup, member], found
        return soup
