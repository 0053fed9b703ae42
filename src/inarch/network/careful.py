"""Grafts that keep the classification layer and mean to lose nothing by it where labels are plenty.

    sharpened   y = W h(softmax(z / T)) + b                   source probabilities at a learned temperature T
    residual    y = W f + b + g * (V h(z) + c)                a linear classifier on the features, and what logits add
    deepen-joined
                y = W h(u([h(f), h(z)])) + b                  da-cnn's new layers, which see logits beside the features

with f the penultimate features, z the source logits, h the harmonising layer, u(x) = ReLU(V x + d) new units as in
`grown.py`. All are this project's own; temperatures are those of Guo et al., "On calibration of modern neural networks"
(ICML 2017, arXiv 1706.04599), gates that start at zero those of Bachlechner et al., "ReZero is all you need" (UAI 2021,
arXiv 2003.04887).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import final

import torch
from torch import Tensor, nn

from inarch.network.graft import Activations, Configuration, Graft, Widths, pooled
from inarch.network.grown import new_layers
from inarch.network.layers import Gate, TemperedSoftmax, harmoniser
from inarch.network.linear_start import linear_discriminant


@final
class Sharpened(Graft):
    """y = W h(softmax(z / T)) + b with one temperature T, which starts at 1: below it sharpens, above it softens."""

    name = "sharpened"
    keeps_layer = True
    uses_features = False

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__(configuration, widths)
        self.probabilities = TemperedSoftmax()
        self.harmonise = harmoniser(configuration.harmonise, widths.source_classes)
        self.classifier = nn.Linear(widths.source_classes, widths.classes)

    def forward(self, features: Tensor | None, logits: Tensor) -> Tensor:
        return self.classifier(self.harmonise(self.probabilities(logits)))


@final
class Residual(Graft):
    """y = W f + b + g * (V h(z) + c) with one gate g for each target class, all 0 at first.

    W and b start at the linear discriminant of the training features (`linear_start.py`), a closed form: before its
    first step the network is a linear probe, and source logits come in as far as gates open. Only logits are
    harmonised.
    """

    name = "residual"
    keeps_layer = True
    uses_features = True

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__(configuration, widths)
        self.classifier = nn.Linear(widths.features, widths.classes)
        self.harmonise = harmoniser(configuration.harmonise, widths.source_classes)
        self.more = nn.Linear(widths.source_classes, widths.classes)
        self.gate = Gate(widths.classes)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        return self.classifier(pooled(features)) + self.gate(self.more(self.harmonise(logits)))

    def start(self, seen: Callable[[], Iterable[Activations]], labels: Tensor, seed: int) -> None:
        features = torch.cat([pooled(some[0]).float() for some in seen() if some[0] is not None])
        found = linear_discriminant(features.cpu().numpy(), labels.cpu().numpy(), self.classifier.out_features)
        if found is not None:
            with torch.no_grad():
                for parameter, value in zip((self.classifier.weight, self.classifier.bias), found, strict=True):
                    parameter.copy_(torch.from_numpy(value))


@final
class JoinedBody(nn.Module):
    """h(u([h(f), h(z)])), or several such layers u one after the other."""

    def __init__(self, kind: str, widths: Widths, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.harmonise_features = harmoniser(kind, widths.features)
        self.harmonise_logits = harmoniser(kind, widths.source_classes)
        self.new = new_layers(kind, (widths.features + widths.source_classes, *sizes))

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        both = [self.harmonise_features(pooled(features)), self.harmonise_logits(logits)]
        return self.new(torch.cat(both, dim=-1))


@final
class DeepenJoined(Graft):
    """y = W h(u([h(f), h(z)])) + b, with one to three new layers u."""

    name = "deepen-joined"
    keeps_layer = True
    uses_features = True
    sizes = ((2048,),)
    fewest, most = 1, 3

    body: JoinedBody

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__(configuration, widths)
        self.body = JoinedBody(configuration.harmonise, widths, configuration.hidden)
        self.classifier = nn.Linear(configuration.hidden[-1], widths.classes)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        return self.classifier(self.body(features, logits))
