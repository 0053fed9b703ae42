"""The model folder: the delivered network with all that is needed to use it, in the format of a source.

`card.json` says what the network is, `model.safetensors` holds its weights, and where a `python:` file builds the
network, a copy of that file lies beside them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from inarch.features.plan import Plan
from inarch.launch.here import write_weights
from inarch.network.adapted import AdaptedNetwork, addition
from inarch.network.source import Source
from inarch.results.folder import write_text

WEIGHTS = "model.safetensors"


def write_model(
    folder: Path, source: Source, network: AdaptedNetwork, classes: Sequence[str], by_hand: Sequence[str], plan: Plan
) -> None:
    """Writes the model folder anew; the card comes last, so that its existence means that the rest is complete.

    `plan` is how the network was tested: its card says so under `arithmetic`, with the stages that were frozen.
    """
    folder.mkdir(exist_ok=True)
    (folder / "card.json").unlink(missing_ok=True)
    state: dict[str, Tensor] = {k: v.detach().cpu().contiguous() for k, v in network.source_and_graft().items()}
    write_weights(folder / WEIGHTS, state)
    card = source.card
    python = card.python
    if python is not None:
        function = card.network.rpartition(":")[2]
        write_text(folder / python.name, python.content)
        card = replace(card, network=f"python:{python.name}:{function}")
    before = list(card.adapted or [])
    extra = {key: value for key, value in card.extra.items() if key not in ("adapted", "name")}
    added = addition(network, source.classification_layer, source.classes, by_hand)
    card = replace(
        card,
        weights=WEIGHTS,
        classes=tuple(classes),
        classification_layer=None,
        weights_digest=None,
        extra=extra
        | {
            "name": f"adapted from {source.name}",
            "adapted": [*before, added],
            "arithmetic": plan.to_json() | {"frozen_stages": network.cut},
        },
    )
    write_text(folder / "card.json", json.dumps(card.to_json(), indent=2, ensure_ascii=False) + "\n")
