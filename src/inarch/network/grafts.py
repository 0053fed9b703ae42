"""Grafts: what is attached to the source network.

With f the penultimate features, z the source logits (before any softmax), h the harmonising layer:

    replace   y = W h(f) + b                          the classification layer is thrown away
    retain    y = W h(z) + b                          it is kept, a new classifier stands behind it
    deepen    a_i = ReLU(h(U_i a_(i-1) + c_i)), a_0 = h(z);  y = W a_m + b      new hidden layers between the two
    joined    y = W [h(f), h(z)] + b                  the classifier sees features and logits side by side

Retain and deepen follow Shermin et al., "Enhanced transfer learning with ImageNet trained classification layer"
(PSIVT 2019, arXiv 1903.10150). A graft is a module called with (f, z); it says by `keeps_layer` and `uses_features`
what it needs. New grafts are one class and one line in `GRAFTS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Protocol, final

import torch
from torch import Tensor, nn

from inarch.errors import UsageError
from inarch.network.layers import harmoniser


@dataclass(frozen=True)
class Widths:
    """How many channels meet at a graft: penultimate features, source logits, target classes."""

    features: int
    source_classes: int
    classes: int


@dataclass(frozen=True)
class Configuration:
    """What the target network is: a graft, how it harmonises, and the sizes of its hidden layers (deepen only)."""

    graft: str
    harmonise: str
    hidden: tuple[int, ...] = ()

    def __str__(self) -> str:
        sizes = f" {'-'.join(map(str, self.hidden))}" if self.hidden else ""
        return f"{self.graft}{sizes}" + ("" if self.harmonise == "none" else f", {self.harmonise}")

    def to_json(self) -> dict[str, Any]:
        return {"graft": self.graft, "harmonise": self.harmonise, "hidden": list(self.hidden)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Configuration:
        return cls(values["graft"], values["harmonise"], tuple(values["hidden"]))


class Graft(Protocol):
    """What every graft offers beside being an `nn.Module`."""

    name: ClassVar[str]
    keeps_layer: ClassVar[bool]
    uses_features: ClassVar[bool]

    def __init__(self, configuration: Configuration, widths: Widths) -> None: ...


def pooled(features: Tensor) -> Tensor:
    """Penultimate features as vectors [images, channels]; feature maps [images, channels, h, w] are averaged."""
    return features if features.ndim == 2 else features.mean(dim=(2, 3))


@final
class Replace(nn.Module):
    """y = W h(f) + b. Without harmonising this is the traditional new classifier."""

    name = "replace"
    keeps_layer = False
    uses_features = True

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__()
        self.harmonise = harmoniser(configuration.harmonise, widths.features)
        self.classifier = nn.Linear(widths.features, widths.classes)

    def forward(self, features: Tensor, logits: Tensor | None) -> Tensor:
        return self.classifier(self.harmonise(pooled(features)))


@final
class Retain(nn.Module):
    """y = W h(z) + b."""

    name = "retain"
    keeps_layer = True
    uses_features = False

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__()
        self.harmonise = harmoniser(configuration.harmonise, widths.source_classes)
        self.classifier = nn.Linear(widths.source_classes, widths.classes)

    def forward(self, features: Tensor | None, logits: Tensor) -> Tensor:
        return self.classifier(self.harmonise(logits))


@final
class Deepen(nn.Module):
    """a_i = ReLU(h(U_i a_(i-1) + c_i)) from a_0 = h(z); y = W a_m + b, with one to three hidden layers."""

    name = "deepen"
    keeps_layer = True
    uses_features = False

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__()
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
class Joined(nn.Module):
    """y = W [h(f), h(z)] + b."""

    name = "joined"
    keeps_layer = True
    uses_features = True

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__()
        self.harmonise_features = harmoniser(configuration.harmonise, widths.features)
        self.harmonise_logits = harmoniser(configuration.harmonise, widths.source_classes)
        self.classifier = nn.Linear(widths.features + widths.source_classes, widths.classes)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        both = [self.harmonise_features(pooled(features)), self.harmonise_logits(logits)]
        return self.classifier(torch.cat(both, dim=-1))


GRAFTS: tuple[type[Replace] | type[Retain] | type[Deepen] | type[Joined], ...] = (Replace, Retain, Deepen, Joined)
GRAFT_NAMES = tuple(graft.name for graft in GRAFTS)


def graft_class(name: str) -> type[Replace] | type[Retain] | type[Deepen] | type[Joined]:
    """The graft of that name; an unknown one is a `UsageError`."""
    for graft in GRAFTS:
        if graft.name == name:
            return graft
    raise UsageError(f"There is no graft called '{name}'.", f"Choose from: {', '.join(GRAFT_NAMES)}.")


def build_graft(configuration: Configuration, widths: Widths, seed: int) -> Replace | Retain | Deepen | Joined:
    """The graft with initial weights that depend on the seed alone; no global random state is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return graft_class(configuration.graft)(configuration, widths)


def configurations(
    grafts: Sequence[str], harmonisers: Sequence[str], hidden: Sequence[tuple[int, ...]]
) -> tuple[Configuration, ...]:
    """Every combination that makes sense, in the order given; hidden sizes belong to deepen alone."""
    return tuple(
        Configuration(graft_class(graft).name, harmonise, sizes)
        for graft in grafts
        for sizes in (hidden if graft == Deepen.name else ((),))
        for harmonise in harmonisers
    )
