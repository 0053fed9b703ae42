"""Learning without forgetting: the source logits of the trained network stay near those of the original one.

Li, Hoiem, "Learning without forgetting" (ECCV 2016, arXiv 1606.09282), equations 2 to 4: lambda_o times the
cross-entropy between the probabilities of the original network and of the trained one, both softened by a temperature:
with probabilities y, y_i^(1/T) / sum_j y_j^(1/T), which is the softmax of logits / T.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import Tensor
from torch.nn import functional as F

from inarch.methods.method import Method, ParameterGroup, Rates, Step, Task, not_empty, old_and_new
from inarch.methods.source_copy import SourceLogits, Teacher
from inarch.network.adapted import AdaptedNetwork


@final
@dataclass
class LwF(Method):
    """weight: lambda_o; temperature: T. Both as in the paper, whose warm-up of the new layers alone is left out.

    The original network sees the same view of every image. Where no old layer trains nothing can be forgotten, and this
    is plain fine-tuning.
    """

    name: ClassVar[str] = "lwf"
    strength_of: ClassVar[tuple[str, ...]] = ("weight",)

    weight: float = 1.0
    temperature: float = 2.0
    _student: SourceLogits | None = field(default=None, init=False, repr=False)
    _teacher: Teacher | None = field(default=None, init=False, repr=False)

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        if network.old_parameters():
            self._student, self._teacher = SourceLogits(network, task), Teacher(network, task)

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        head = self._student.parameters() if self._student else []
        return [*old_and_new(network, rates), *not_empty(ParameterGroup(head, rates.old, rates.weight_decay))]

    def loss(self, network: AdaptedNetwork, step: Step) -> Tensor:
        if self._student is None or self._teacher is None:
            return step.supervised
        student, teacher = self._student.of(step), self._teacher.logits(step.stored)
        kept = F.cross_entropy(student / self.temperature, (teacher / self.temperature).softmax(dim=1))
        return step.supervised + self.weight * kept

    def finish(self, network: AdaptedNetwork) -> None:
        self._student = self._teacher = None
