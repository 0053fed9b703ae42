"""Training in two phases: first the new layers alone, then everything behind the cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from inarch.methods.method import ParameterGroup, Rates, Task, not_empty
from inarch.network.adapted import AdaptedNetwork


@final
@dataclass(frozen=True)
class ProbeFirst:
    """The first `probe` steps train new layers alone, at their rate; the others everything, at the old layers' rate
    (new layers at their own where that is lower).

    Each phase has the loop's schedule for itself. Where no old layer trains there is one phase, plain training.
    """

    probe: int
    task: Task

    @classmethod
    def of(cls, network: AdaptedNetwork, task: Task, share: float) -> ProbeFirst:
        """With a share of all steps for the first phase."""
        some_for_both = min(round(share * task.steps), task.steps - 1)
        return cls(some_for_both if network.old_parameters() else task.steps, task)

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        # What was new is no longer new in the second phase, and learns like everything else; not faster than it bears.
        ratio = min(rates.old / rates.new, 1.0)

        def old(step: int) -> float:
            return 0.0 if step < self.probe else self.task.schedule(step - self.probe, self.task.steps - self.probe)

        def new(step: int) -> float:
            return self.task.schedule(step, self.probe) if step < self.probe else ratio * old(step)

        return not_empty(
            ParameterGroup(network.old_parameters(), rates.old, rates.weight_decay, old),
            ParameterGroup(network.new_parameters(), rates.new, rates.weight_decay, new),
        )

    def begin(self, network: AdaptedNetwork, number: int) -> None:
        """Before step `number`: lets the old layers rest, or ends their rest."""
        if self.probe < self.task.steps:
            network.hold(len(network.staged.stages) if number < self.probe else network.cut)
