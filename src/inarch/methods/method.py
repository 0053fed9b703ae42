"""What a method is: the hooks that the training loop calls, and what it hands to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from inarch.network.adapted import AdaptedNetwork
from inarch.network.grafts import Configuration
from inarch.network.stages import Stages


@dataclass(frozen=True)
class Rates:
    """Learning rates of a trial, and the weight decay of all that trains."""

    old: float
    new: float
    weight_decay: float


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that learn at one rate.

    factor: of the rate at each step (from 0); None follows the loop's schedule over all steps.
    """

    parameters: list[nn.Parameter]
    learning_rate: float
    weight_decay: float
    factor: Callable[[int], float] | None = None


@dataclass(frozen=True)
class Task:
    """What a trial is about, as far as a method may ask.

    seed: of the trial. epochs, steps: of the whole training. classes: of the target. labels [images]: of the training
    split. schedule: the loop's factor on rates at a step of so many. autocast: the context of forward passes behind the
    stored cut. evaluation: activations at the stored cut of the evaluation view of the training split, in its order, in
    batches. batches: stored activations and labels of an epoch as the loop takes them, its view included, but never
    mixed. tick: to be called now and then by what takes long before the first step; raises where time is up.
    """

    seed: int
    epochs: int
    steps: int
    classes: int
    labels: Tensor
    schedule: Callable[[int, int], float]
    autocast: Callable[[], AbstractContextManager[object]]
    evaluation: Callable[[], Iterator[Tensor]]
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]
    tick: Callable[[], None]


@dataclass(frozen=True)
class Mixture:
    """How the images of a batch were mixed (mixup), each with another one of it.

    share: of the image itself, from 0 to 1; the rest is its partner's. partners [images]: their places in the batch.
    """

    share: float
    partners: Tensor

    def of(self, values: Tensor) -> Tensor:
        """What stands for each image [images, ...], mixed."""
        return self.share * values + (1 - self.share) * values[self.partners]


def over_labels(loss: Callable[[Tensor], Tensor], labels: Tensor, mixture: Mixture | None) -> Tensor:
    """A loss that is linear in the target, of labels [images]; of mixed images that of both labels, by their shares."""
    if mixture is None:
        return loss(labels)
    return mixture.share * loss(labels) + (1 - mixture.share) * loss(labels[mixture.partners])


@dataclass(frozen=True)
class Step:
    """One step of one trial, from 0: what went into its loss.

    supervised: the loss so far, a number. labels [images]: the images' own, also where they are mixed. logits [images,
    classes]: of the target. features: what the graft saw as penultimate features, [images, channels] or [images,
    channels, height, width]; they depend on no parameter where no stage before them trains. source_logits [images,
    source classes]: None where the graft replaced the classification layer. stored: activations at the stored cut,
    mixed as `mixture` says (None: not at all). another_view: those of the same images in the view of the next epoch (of
    the first, in the last), never mixed.
    """

    number: int
    epoch: int
    supervised: Tensor
    labels: Tensor
    logits: Tensor
    features: Tensor
    source_logits: Tensor | None
    stored: Tensor
    another_view: Callable[[], Tensor]
    mixture: Mixture | None = None

    def over_labels(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """A loss that is linear in the target, of the labels of this step; see the function of this name."""
        return over_labels(loss, self.labels, self.mixture)


class Method:
    """A way to train; each hook does what plain fine-tuning does unless a method says otherwise.

    A new instance serves one trial, so hooks may keep state. Settings are dataclass fields. What is frozen stays
    frozen: a method acts on what trains behind the cut, and where only new layers train most methods are plain
    fine-tuning, because there is nothing for them to act on.

    together: whether its trials may be computed as a stack (`training/members.py`), where no member's graft is called.
    deepest_only: whether it trains new layers alone, so that it stands at the deepest cut and at no other.
    acts_on_new_layers: whether it differs from plain fine-tuning also where only new layers train.
    bears_mixing: whether its loss has a meaning for images that are mixed and have two labels each (mixup).
    same_passes: whether every step runs the network once, with the modules, and with what trains, of the first; then a
    GPU may play its passes back (network/captured.py).
    strength_of: the settings, weights of what it adds to the supervised loss, that its strength multiplies.
    """

    name: ClassVar[str]
    together: ClassVar[bool] = True
    deepest_only: ClassVar[bool] = False
    acts_on_new_layers: ClassVar[bool] = False
    bears_mixing: ClassVar[bool] = True
    same_passes: ClassVar[bool] = False
    strength_of: ClassVar[tuple[str, ...]] = ()

    def scaled(self, strength: float) -> Self:
        """The method with all that `strength_of` names that many times as large."""
        if strength == 1.0:
            return self
        if not self.strength_of:
            raise ValueError(f"{self.name} has no strength")
        return replace(self, **{name: strength * getattr(self, name) for name in self.strength_of})  # type: ignore[type-var]

    def require(self, configuration: Configuration, staged: Stages) -> None:
        """Raises `UsageError` where the method makes no sense for the graft or the source network."""

    def seeds(self, seed: int, old_layers_train: bool) -> tuple[int, ...]:
        """Of each training that a trial of that seed consists of: what decides its order, views and dropout.

        All begin with the same weights, those of the trial's seed, and each goes through the hooks from `prepare` to
        `release`. Where no old layer trains there may be one alone: such trials may be computed as a stack.
        """
        return (seed,)

    def taken(self, trainings: int, accuracy: Callable[[Sequence[int]], float]) -> Sequence[int]:
        """Of several trainings, by number, those whose mean of weights is what the trial leaves.

        accuracy: on the validation split, of the mean of some of them. Asked only where there are several.
        """
        return (0,)

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        """Sees the network before its first step, with the weights of the source."""

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        """Which parameters learn, and how fast; asked once, after `prepare`."""
        return old_and_new(network, rates)

    def begin(self, network: AdaptedNetwork, number: int) -> None:
        """Comes before the forward pass of every step."""

    def loss(self, network: AdaptedNetwork, step: Step) -> Tensor:
        """What is minimised."""
        return step.supervised

    def finish(self, network: AdaptedNetwork) -> None:
        """Sees the trained network, before it is validated for the last time."""

    def release(self) -> None:
        """Comes last, however training ended: takes away what hangs on modules, which all trials share."""


def old_and_new(network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
    """One group for what trains of the source network, one for the new layers; empty groups are left out."""
    return not_empty(
        ParameterGroup(network.old_parameters(), rates.old, rates.weight_decay),
        ParameterGroup(network.new_parameters(), rates.new, rates.weight_decay),
    )


def stage_groups(network: AdaptedNetwork, rates: Rates, factor: float = 1.0) -> list[ParameterGroup]:
    """One group a stage, each slower by `factor` than the one behind it, the last at the old layers' rate; then new."""
    stages = network.old_stages()
    old = [
        ParameterGroup(parameters, rates.old / factor ** (max(stages) - index), rates.weight_decay)
        for index, parameters in stages.items()
    ]
    return not_empty(*old, ParameterGroup(network.new_parameters(), rates.new, rates.weight_decay))


def not_empty(*groups: ParameterGroup) -> list[ParameterGroup]:
    """Those groups that have parameters."""
    return [group for group in groups if group.parameters]


def plus_decay(penalty: Tensor, network: AdaptedNetwork, strength: float) -> Tensor:
    """The penalty and strength / 2 |w|^2 over the weights of the new layers, biases and harmonising scales left out."""
    for parameter in (p for p in network.new_parameters() if p.ndim >= 2):
        penalty = penalty + strength / 2 * torch.sum(parameter**2)
    return penalty


def trained_state(network: AdaptedNetwork) -> dict[str, Tensor]:
    """Weights and running statistics of all that is not frozen, by name, in the network's own memory.

    Counts of batches are left out: they are no matter of averaging.
    """
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("prefix.")}
    for name in _frozen_behind(network):
        state.pop(name, None)
    return {name: value for name, value in state.items() if value.is_floating_point()}


def _frozen_behind(network: AdaptedNetwork) -> list[str]:
    """Names of weights and statistics of the stages between the stored cut and the cut, by their parts of the network.

    Asked of the cut and not of what rests now, which may train later.
    """
    last = len(network.staged.stages) - 1
    stop = min(network.cut, last)
    between = network.staged.segment(network.stored_cut, stop).state_dict() if stop > network.stored_cut else {}
    layer = network.layer.state_dict() if network.layer is not None and network.cut > last else {}
    return [*(f"suffix.{name}" for name in between), *(f"layer.{name}" for name in layer)]
