"""The linear probe: everything old stays frozen, new layers alone are trained.

Alain, Bengio, "Understanding intermediate layers using linear classifier probes" (ICLR 2017 workshop,
arXiv 1610.01644); as a way to transfer: Kornblith, Shlens, Le, "Do better ImageNet models transfer better?" (CVPR 2019,
arXiv 1805.08974).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from inarch.errors import UsageError
from inarch.methods.method import Method, Task
from inarch.network.adapted import AdaptedNetwork


@final
@dataclass
class LinearProbe(Method):
    """Stands at the deepest cut alone: at any other the same training would be recorded under a wrong name.

    Behind a retained layer the probe is a linear classifier on source logits; with *deepen* it is not linear any more
    but still all that trains.
    """

    name: ClassVar[str] = "linear-probe"
    deepest_only: ClassVar[bool] = True

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        if network.old_parameters():
            raise UsageError(
                f"linear-probe trains new layers alone, but at cut {network.cut} old ones train as well.",
                "Give the deepest cut, or another method.",
            )
