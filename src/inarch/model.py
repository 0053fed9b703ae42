"""The model folder: the delivered network with all that is needed to use it, in the format of a source.

`card.json` says what the network is, `model.safetensors` holds its weights, and where a `python:` file builds the
network, a copy of that file lies beside them. What only predictions ask for: `original.safetensors`, the weights that
the source had and the model has not (network/original.py), and `known.json`, how the validation images look to it
(results/unknown.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from torch import Tensor

from inarch.features.plan import Plan
from inarch.network.adapted import AdaptedNetwork, addition
from inarch.network.original import DIGEST, ORIGINAL, changed_weights
from inarch.network.source import Source
from inarch.network.weights import write_weights
from inarch.results.folder import write_text
from inarch.results.unknown import KNOWN, Known

WEIGHTS = "model.safetensors"


@final
@dataclass(frozen=True)
class Delivered:
    """What a study delivers: the adapted network, the names of its classes, the stages that were named by hand.

    `plan` is how it was tested: the card says so under `arithmetic`, with the stages that were frozen. `known` is how
    the validation images look to it, `source_weights` what it was before.
    """

    network: AdaptedNetwork
    classes: Sequence[str]
    by_hand: Sequence[str]
    plan: Plan
    known: Known
    source_weights: Mapping[str, Tensor]


def write_model(folder: Path, source: Source, delivered: Delivered) -> None:
    """Writes the model folder anew; the card comes last, so that its existence means that the rest is complete."""
    network = delivered.network
    folder.mkdir(exist_ok=True)
    for name in ("card.json", ORIGINAL, KNOWN):
        (folder / name).unlink(missing_ok=True)
    state: dict[str, Tensor] = {k: v.detach().cpu().contiguous() for k, v in network.source_and_graft().items()}
    write_weights(folder / WEIGHTS, state)
    write_weights(folder / ORIGINAL, changed_weights(network, delivered.source_weights))
    delivered.known.write(folder)
    card = source.card
    python = card.python
    if python is not None:
        function = card.network.rpartition(":")[2]
        write_text(folder / python.name, python.content)
        card = replace(card, network=f"python:{python.name}:{function}")
    before = list(card.adapted or [])
    extra = {key: value for key, value in card.extra.items() if key not in ("adapted", "name")}
    added = addition(network, source.classification_layer, source.classes, delivered.by_hand)
    card = replace(
        card,
        weights=WEIGHTS,
        classes=tuple(delivered.classes),
        classification_layer=None,
        weights_digest=None,
        extra=extra
        | {
            "name": f"adapted from {source.name}",
            "adapted": [*before, added],
            DIGEST: source.digest,
            "arithmetic": delivered.plan.to_json() | {"frozen_stages": network.cut},
        },
    )
    write_text(folder / "card.json", json.dumps(card.to_json(), indent=2, ensure_ascii=False) + "\n")
