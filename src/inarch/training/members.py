"""Networks that are trained in one loop: one alone, or several of one configuration as a stack.

Both give logits for all of their members, so the loop does not know which it has before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from inarch.methods import trained_state
from inarch.network.adapted import AdaptedNetwork
from inarch.network.stacked import share_gradients, stack_modules, stackable

# Parameters of a graft above which a stack takes longer than its members one by one (docs/lab-notebook.md).
STACKED_AT_MOST = 100_000


@dataclass(frozen=True)
class Outputs:
    """What members make of a batch: target logits [members, images, classes], and what the grafts of all saw for it.

    features: penultimate features. source_logits: None where the graft replaced the classification layer.
    """

    logits: Tensor
    features: Tensor
    source_logits: Tensor | None


class Members(Protocol):
    """numbers: which of the loop's networks they are."""

    @property
    def numbers(self) -> tuple[int, ...]: ...

    def train(self, mode: bool) -> None: ...

    def outputs(self, stored: Tensor) -> Outputs:
        """What the members make of activations at the networks' `stored_cut`."""
        ...

    def share_gradients(self) -> None:
        """After a backward pass: every network's own parameters have their gradients."""
        ...

    def state(self) -> list[Tensor]:
        """Weights and running statistics of all that is not frozen, in the memory in which they are trained."""
        ...


@final
class Alone:
    """One network, with or without old layers that train."""

    def __init__(self, number: int, network: AdaptedNetwork) -> None:
        self.numbers, self._network = (number,), network

    def train(self, mode: bool) -> None:
        self._network.train(mode)

    def outputs(self, stored: Tensor) -> Outputs:
        inputs = self._network.graft_inputs(stored)
        return Outputs(self._network.graft(*inputs).unsqueeze(0), *inputs[:2])

    def share_gradients(self) -> None:
        pass

    def state(self) -> list[Tensor]:
        return list(trained_state(self._network).values())


@final
class Stack:
    """Several networks of one configuration of which only the new layers train."""

    def __init__(self, numbers: Sequence[int], networks: Sequence[AdaptedNetwork]) -> None:
        self.numbers, self._networks = tuple(numbers), networks
        self._graft = stack_modules([network.graft for network in networks])
        self._pairs = [
            (parameter, [network.graft.get_parameter(name) for network in networks])
            for name, parameter in self._graft.named_parameters()
        ]

    def train(self, mode: bool) -> None:
        # What stands before the grafts is frozen and the same in all networks; the first one's is used.
        self._networks[0].train(mode)
        self._graft.train(mode)

    def outputs(self, stored: Tensor) -> Outputs:
        inputs = self._networks[0].graft_inputs(stored)
        return Outputs(self._graft(*inputs), *inputs[:2])

    def share_gradients(self) -> None:
        share_gradients(self._pairs)

    def state(self) -> list[Tensor]:
        return [value for value in self._graft.state_dict().values() if value.is_floating_point()]


def as_members(networks: Sequence[AdaptedNetwork]) -> list[Members]:
    """Small networks of one configuration as a stack where that can be, the others alone.

    Networks share the modules of their source, so of several none may train old layers: `ValueError`.
    """
    if len(networks) > 1 and any(network.old_parameters() for network in networks):
        raise ValueError("networks whose old layers train cannot be trained together: they share these layers")
    if len({network.stored_cut for network in networks}) != 1:
        raise ValueError("networks that are trained together must read the same activations")
    numbers: dict[object, list[int]] = {}
    for number, network in enumerate(networks):
        small = sum(parameter.numel() for parameter in network.new_parameters()) <= STACKED_AT_MOST
        kind = network.configuration if small and stackable(network.graft) else number
        numbers.setdefault(kind, []).append(number)
    return [
        Stack(found, [networks[n] for n in found]) if len(found) > 1 else Alone(found[0], networks[found[0]])
        for found in numbers.values()
    ]


def logits_of(outputs: Sequence[Outputs]) -> Tensor:
    """Target logits [networks, images, classes] of several members, in the order of their numbers joined up.

    In fp32 at least: losses and probabilities are not computed in less.
    """
    parts = [found.logits for found in outputs]
    logits = torch.cat(parts) if len(parts) > 1 else parts[0]
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
