"""Grafts: what is attached to the source network.

With f the penultimate features, z the source logits (before any softmax), h the harmonising layer:

    replace   y = W h(f) + b                          the classification layer is thrown away
    retain    y = W h(z) + b                          it is kept, a new classifier stands behind it
    deepen    a_i = ReLU(h(U_i a_(i-1) + c_i)), a_0 = h(z);  y = W a_m + b      new hidden layers between the two
    joined    y = W [h(f), h(z)] + b                  the classifier sees features and logits side by side

Retain and deepen follow Shermin et al., "Enhanced transfer learning with ImageNet trained classification layer" (PSIVT
2019, arXiv 1903.10150). Others have files of their own: `grown.py` (da-cnn, wa-cnn, dwa-cnn, wwa-cnn), `head2toe.py`
and `careful.py` (sharpened, residual, deepen-joined). A new graft is a final class of `Graft`, a line in `GRAFTS` and
one in `inarch.catalogue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from inarch.errors import UsageError
from inarch.network.careful import DeepenJoined, Residual, Sharpened
from inarch.network.graft import Configuration, Graft, Widths, fitting_sizes, pooled
from inarch.network.grown import DACNN, DWACNN, WACNN, WWACNN
from inarch.network.head2toe import Head2Toe
from inarch.network.layers import harmoniser
from inarch.network.randomness import own_randomness

__all__ = [
    "DEFAULT_GRAFTS", "GRAFTS", "GRAFT_NAMES", "Configuration", "Deepen", "Graft", "Joined", "Replace", "Retain",
    "Widths", "build_graft", "configurations", "graft_class", "pooled",
]  # fmt: skip


@final
class Replace(Graft):
    """y = W h(f) + b. Without harmonising this is the traditional new classifier."""

    name = "replace"
    keeps_layer = False
    uses_features = True

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__(configuration, widths)
        self.harmonise = harmoniser(configuration.harmonise, widths.features)
        self.classifier = nn.Linear(widths.features, widths.classes)

    def forward(self, features: Tensor, logits: Tensor | None) -> Tensor:
        return self.classifier(self.harmonise(pooled(features)))


@final
class Retain(Graft):
    """y = W h(z) + b.

    Where nothing before the classification layer trains this is the classification-layer features of Shermin, Murshed,
    Teng, Lu, "Transfer learning using classification layer features of CNN" (arXiv 1811.07459): one layer on source
    logits, at the deepest cut with the classification layer frozen, at the cut before it with the layer trained along.
    """

    name = "retain"
    keeps_layer = True
    uses_features = False

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__(configuration, widths)
        self.harmonise = harmoniser(configuration.harmonise, widths.source_classes)
        self.classifier = nn.Linear(widths.source_classes, widths.classes)

    def forward(self, features: Tensor | None, logits: Tensor) -> Tensor:
        return self.classifier(self.harmonise(logits))


@final
class Deepen(Graft):
    """a_i = ReLU(h(U_i a_(i-1) + c_i)) from a_0 = h(z); y = W a_m + b, with one to three hidden layers."""

    name = "deepen"
    keeps_layer = True
    uses_features = False
    sizes = ((512,),)
    fewest, most = 1, 3

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__(configuration, widths)
        sizes = (widths.source_classes, *configuration.hidden)
        self.harmonise = harmoniser(configuration.harmonise, widths.source_classes)
        self.hidden = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(before, after), harmoniser(configuration.harmonise, after), nn.ReLU())
                for before, after in pairwise(sizes)
            )
        )
        self.classifier = nn.Linear(sizes[-1], widths.classes)

    def forward(self, features: Tensor | None, logits: Tensor) -> Tensor:
        return self.classifier(self.hidden(self.harmonise(logits)))


@final
class Joined(Graft):
    """y = W [h(f), h(z)] + b."""

    name = "joined"
    keeps_layer = True
    uses_features = True

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__(configuration, widths)
        self.harmonise_features = harmoniser(configuration.harmonise, widths.features)
        self.harmonise_logits = harmoniser(configuration.harmonise, widths.source_classes)
        self.classifier = nn.Linear(widths.features + widths.source_classes, widths.classes)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        both = [self.harmonise_features(pooled(features)), self.harmonise_logits(logits)]
        return self.classifier(torch.cat(both, dim=-1))


GRAFTS: tuple[type[Graft], ...] = (
    Replace, Retain, Deepen, Joined, DACNN, WACNN, DWACNN, WWACNN, Head2Toe, Sharpened, Residual, DeepenJoined,
)  # fmt: skip
GRAFT_NAMES = tuple(graft.name for graft in GRAFTS)
# What `fit` tries where the user names no graft.
DEFAULT_GRAFTS = tuple(graft.name for graft in (Replace, Retain, Deepen, Joined))


def graft_class(name: str) -> type[Graft]:
    """The graft of that name; an unknown one is a `UsageError`."""
    for graft in GRAFTS:
        if graft.name == name:
            return graft
    raise UsageError(f"There is no graft called '{name}'.", f"Choose from: {', '.join(GRAFT_NAMES)}.")


def build_graft(configuration: Configuration, widths: Widths, seed: int) -> Graft:
    """The graft with initial weights that depend on the seed alone; no global random state is touched."""
    with own_randomness(seed):
        return graft_class(configuration.graft)(configuration, widths)


def configurations(
    grafts: Sequence[str], harmonisers: Sequence[str], hidden: Sequence[tuple[int, ...]]
) -> tuple[Configuration, ...]:
    """Every combination that makes sense, in the order given; hidden sizes belong to grafts with hidden layers alone.

    hidden: a tuple a variant; where there is none, each graft has its own (`Graft.sizes`).
    """
    return tuple(
        Configuration(graft.name, harmonise, sizes)
        for graft in map(graft_class, grafts)
        for sizes in _variants(graft, hidden)
        for harmonise in harmonisers
    )


def _variants(graft: type[Graft], hidden: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
    if not graft.most or not hidden:
        return graft.sizes
    return list(dict.fromkeys(fitting_sizes(graft, sizes) for sizes in hidden))
