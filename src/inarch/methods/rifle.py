"""RIFLE: the last layer is thrown away and started anew several times during fine-tuning.

Li, Xiong, An, Xu, Dou, "RIFLE: Backpropagation in depth for deep transfer learning through re-initializing the
fully-connected layer" (ICML 2020, arXiv 2007.03349): training is cut into periods of equal length. At the beginning of
each the last layer gets new random weights, and its rate runs through the schedule once more; all else goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import numpy as np
import torch

from inarch.methods.method import Method, ParameterGroup, Rates, Task, not_empty
from inarch.network.adapted import AdaptedNetwork
from inarch.network.grafts import build_graft


@final
@dataclass
class RIFLE(Method):
    """times: how often the last layer starts anew, once in the authors' script. Hidden layers before it (deepen) stay.

    What the last layer starts with is drawn as PyTorch draws initial weights, from a seed of each period: what it then
    says by chance is what the method sends back through the old layers.
    """

    name: ClassVar[str] = "rifle"
    acts_on_new_layers: ClassVar[bool] = True

    times: int = 1
    _task: Task | None = field(default=None, init=False, repr=False)
    _period: int = field(default=1, init=False, repr=False)

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        self._task, self._period = task, max(1, task.steps // (self.times + 1))

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        last = list(network.graft.classifier.parameters())
        others = [p for p in network.new_parameters() if all(p is not own for own in last)]
        return not_empty(
            ParameterGroup(network.old_parameters(), rates.old, rates.weight_decay),
            ParameterGroup(others, rates.new, rates.weight_decay),
            ParameterGroup(last, rates.new, rates.weight_decay, self._factor),
        )

    def begin(self, network: AdaptedNetwork, number: int) -> None:
        period = self._period_of(number)
        if number == period * self._period and period:
            assert self._task is not None
            # Mixed, as PyTorch looks at 32 bits of a seed: no period repeats the start of this trial or of another.
            seed = int(np.random.SeedSequence([self._task.seed, period]).generate_state(1)[0])
            fresh = build_graft(network.configuration, network.widths, seed)
            with torch.no_grad():
                for parameter, start in zip(
                    network.graft.classifier.parameters(), fresh.classifier.parameters(), strict=True
                ):
                    parameter.copy_(start)

    def _period_of(self, number: int) -> int:
        return min(number // self._period, self.times)

    def _factor(self, number: int) -> float:
        assert self._task is not None
        period = self._period_of(number)
        begun = period * self._period
        # What is left over by the division belongs to the last period.
        length = self._task.steps - begun if period == self.times else self._period
        return self._task.schedule(number - begun, length)
