"""LP-FT: a linear probe first, then fine-tuning from its solution.

Kumar, Raghunathan, Jones, Ma, Liang, "Fine-tuning can distort pretrained features and underperform out-of-distribution"
(ICLR 2022, arXiv 2202.10054): a random head sends large, meaningless gradients into the pre-trained layers; a head that
already fits does not. Fine-tuning has one rate for everything, that of old layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

from inarch.methods.method import Method, ParameterGroup, Rates, Task
from inarch.methods.phases import ProbeFirst
from inarch.network.adapted import AdaptedNetwork


@final
@dataclass
class LPFT(Method):
    """probe: share of the steps in which new layers train alone. Half: the paper gives both parts equal epochs."""

    name: ClassVar[str] = "lp-ft"

    probe: float = 0.5
    _phases: ProbeFirst = field(init=False, repr=False)

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        self._phases = ProbeFirst.of(network, task, self.probe)

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        return self._phases.groups(network, rates)

    def begin(self, network: AdaptedNetwork, number: int) -> None:
        self._phases.begin(network, number)
