"""Gradual unfreezing: the new layers first, then one stage more at a time, from the last to the first.

Howard, Ruder, "Universal language model fine-tuning for text classification" (ACL 2018, arXiv 1801.06146), section 3.3:
each epoch unfreezes the next lower layer, until all train.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

from inarch.methods.method import Method, ParameterGroup, Rates, Task, stage_groups
from inarch.network.adapted import AdaptedNetwork


@final
@dataclass
class Gradual(Method):
    """by: share of the steps by which every stage behind the cut trains.

    A stage is thawed every epoch as in the paper, or sooner where there are too many stages for that: the paper has
    four layers, image classifiers have twenty.
    """

    name: ClassVar[str] = "gradual"

    by: float = 0.5
    _stages: list[int] = field(default_factory=list, init=False, repr=False)
    _each: float = field(default=1.0, init=False, repr=False)

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        self._stages = sorted(network.old_stages())
        if self._stages:
            self._each = max(1.0, min(task.steps / task.epochs, self.by * task.steps / len(self._stages)))

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        # A group each: within one group the fused optimisers take no parameters that begin at different steps.
        return stage_groups(network, rates)

    def begin(self, network: AdaptedNetwork, number: int) -> None:
        if self._stages:
            network.hold(max(self._stages[0] - 1, self._stages[-1] - int(number / self._each)))
