"""WiSE-FT: the mean of the weights before and after fine-tuning.

Wortsman et al., "Robust fine-tuning of zero-shot models" (CVPR 2022, arXiv 2109.01903), equation 1:
w = (1 - alpha) w_start + alpha w_end. The paper starts from a zero-shot head. A new head has none, so the start is what
a linear probe leaves, as in LP-FT (arXiv 2202.10054); any head allows that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from inarch.methods.method import Method, ParameterGroup, Rates, Task, trained_state
from inarch.methods.phases import ProbeFirst
from inarch.network.adapted import AdaptedNetwork


@final
@dataclass
class WiSEFT(Method):
    """alpha: how far from the start (0) to the end (1); the paper recommends a half where nothing else is known.

    probe: share of the steps in which new layers train alone. Running statistics of batch normalisation are averaged
    like weights. Where no old layer trains this is the linear probe.
    """

    name: ClassVar[str] = "wise-ft"

    alpha: float = 0.5
    probe: float = 0.5
    _phases: ProbeFirst = field(init=False, repr=False)
    _start: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        self._phases = ProbeFirst.of(network, task, self.probe)

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        return self._phases.groups(network, rates)

    def begin(self, network: AdaptedNetwork, number: int) -> None:
        self._phases.begin(network, number)
        if number == self._phases.probe:
            self._start = {name: value.detach().clone() for name, value in trained_state(network).items()}

    def finish(self, network: AdaptedNetwork) -> None:
        with torch.no_grad():
            for name, value in trained_state(network).items():
                if name in self._start:
                    value.lerp_(self._start[name], 1 - self.alpha)
        self._start = {}
