"""The source network as it was before it was adapted, beside the adapted one: the tensors in which the two differ.

A study trains the source network's own layers, and one graft leaves the classification layer out. What an image looks
like in source classes is a question to the untouched network: what changed is therefore kept in a file of its own, and
what stayed frozen is taken from the adapted network. A digest says whether both together are the source again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from inarch.errors import SourceError
from inarch.network.adapted import AdaptedNetwork, build
from inarch.network.card import Card
from inarch.network.libraries import build_network
from inarch.network.source import Source
from inarch.network.weights import fit_weights, read_weights, take_grey_images, weights_digest

ORIGINAL = "original.safetensors"
DIGEST = "source_digest"
_AGAIN = (
    "Give a run folder or model folder of Inarch. One that an older version wrote is mended by the same inarch fit "
    "command, which trains nothing again."
)


def changed_weights(adapted: AdaptedNetwork, original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What an adapted network no longer holds of its source's weights `original`, under their names there."""
    held = {id(value) for value in adapted.state_dict(keep_vars=True).values()}
    now = adapted.staged.network.state_dict(keep_vars=True)
    return {
        name: value.detach().cpu().contiguous()
        for name, value in original.items()
        if id(now[name]) not in held or not torch.equal(now[name].detach().cpu(), value.cpu())
    }


def original_network(source: Source) -> tuple[nn.Module, tuple[str, ...]]:
    """The network that an adapted `source` was made from, in evaluation mode, and the names of its classes.

    Raises `SourceError` where `source` is not adapted, or its folder lacks the original weights or holds others.
    """
    if not isinstance(source.network, AdaptedNetwork) or not source.card.adapted:
        raise SourceError(
            f"'{source.name}' was not adapted: it has no other source classes than its own.",
            "Leave out --source-classes.",
        )
    if DIGEST not in source.card.extra or not (source.folder / ORIGINAL).is_file():
        raise SourceError(
            f"The folder of '{source.name}' does not hold the weights that it had before it was adapted ({ORIGINAL}).",
            _AGAIN,
        )
    state = dict(source.network.staged.network.state_dict()) | read_weights(source.folder / ORIGINAL)
    network = _build(source.card, source.folder)
    take_grey_images(network, state)
    fit_weights(network, state, f"'{source.name}' before it was adapted")
    if weights_digest(network) != source.card.extra[DIGEST]:
        raise SourceError(
            f"{ORIGINAL} in the folder of '{source.name}' is not of the network that this model was adapted from.",
            _AGAIN,
        )
    return network.float().eval(), tuple(source.card.adapted[-1]["source_classes"])


def _build(card: Card, folder: Path) -> nn.Module:
    assert card.adapted
    before = card.adapted[:-1]
    extra = {key: value for key, value in card.extra.items() if key != "adapted"}
    if before:
        return build(replace(card, extra=extra | {"adapted": before}), folder)
    return build_network(Card(card.network, card.arguments, python=card.python, input=card.input, extra=extra), folder)
