"""Networks that are trained in one loop: one alone, or several of one configuration as a stack.

Both give logits for all of their members, so the loop does not know which it has before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, final

import torch
from torch import Tensor

from inarch.network.adapted import AdaptedNetwork
from inarch.network.stacked import share_gradients, stack_modules, stackable

# Parameters of a graft above which a stack takes longer than its members one by one (docs/lab-notebook.md).
STACKED_AT_MOST = 100_000


class Members(Protocol):
    """numbers: which of the loop's networks they are."""

    @property
    def numbers(self) -> tuple[int, ...]: ...

    def train(self, mode: bool) -> None: ...

    def logits(self, stored: Tensor) -> Tensor:
        """Target logits [members, images, classes] from activations at the networks' `stored_cut`."""
        ...

    def share_gradients(self) -> None:
        """After a backward pass: every network's own parameters have their gradients."""
        ...


@final
class Alone:
    """One network, with or without old layers that train."""

    def __init__(self, number: int, network: AdaptedNetwork) -> None:
        self.numbers, self._network = (number,), network

    def train(self, mode: bool) -> None:
        self._network.train(mode)

    def logits(self, stored: Tensor) -> Tensor:
        return self._network.from_stored(stored).unsqueeze(0)

    def share_gradients(self) -> None:
        pass


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

    def logits(self, stored: Tensor) -> Tensor:
        return self._graft(*self._networks[0].graft_inputs(stored))

    def share_gradients(self) -> None:
        share_gradients(self._pairs)


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


def logits_of(members: Sequence[Members], stored: Tensor) -> Tensor:
    """Target logits [networks, images, classes] of all members, in the order of their numbers joined up.

    In fp32 at least: losses and probabilities are not computed in less.
    """
    parts = [some.logits(stored) for some in members]
    logits = torch.cat(parts) if len(parts) > 1 else parts[0]
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
