"""Grafts that grow a network by new units and throw its classification layer away.

Wang, Ramanan, Hebert, "Growing a brain: Fine-tuning by increasing model capacity" (CVPR 2017, arXiv 1907.07844), the
developmental networks of section 3. With f what the paper calls FC7, g FC6, e the layer before that, h the harmonising
layer, and new units u(x) = ReLU(V x + d), each with weights of its own:

    da-cnn    y = W h(u(h(f))) + b                       depth augmented: a new layer before the new classifier
    wa-cnn    y = W [h(f), h(u(g))] + b                  width augmented: new units beside those of FC7
    dwa-cnn   y = W h(u([h(f), h(u(g))])) + b            both
    wwa-cnn   y = W [h(f), h(u([h(g), h(u(e))]))] + b    both of the last two layers widened

The paper's networks end in fully connected layers, convolutional ones in pooled maps. Here f are the penultimate
features, whatever layer they come from, and g and e are the activations one and two stages earlier, where the network
can be cut (`inarch stages`); maps are averaged over the image, tokens over the tokens. AlexNet and VGG have the paper's
own FC6 and FC7 that way. Old units get no inputs from new ones, so the source network's activations stay what they are.

What harmonises is the paper's normalisation where it is `l2` or `l2-10`: each block L2-normalised, with a learned scale
for each channel that starts at 20 or 10 (the paper: between the two). In the paper new layers learn ten times as
fast as old ones; here the ratio is searched. Default sizes are among those that the paper has for an FC7 of 4096 units.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

from torch import Tensor, nn

from inarch.network.graft import Configuration, Graft, Widths, pooled, side_by_side, vector_width
from inarch.network.layers import harmoniser


def new_layer(kind: str, before: int, units: int) -> nn.Sequential:
    """h(ReLU(V x + d)): from [..., before] to [..., units]."""
    return nn.Sequential(nn.Linear(before, units), nn.ReLU(), harmoniser(kind, units))


def new_layers(kind: str, sizes: Sequence[int]) -> nn.Sequential:
    """`new_layer` from each size to the next, one after the other."""
    return nn.Sequential(*(new_layer(kind, before, after) for before, after in pairwise(sizes)))


@final
class Widened(nn.Module):
    """[h(old), h(ReLU(V seen + d))]: old units [..., channels] beside new ones that see another layer."""

    def __init__(self, kind: str, old: int, seen: int, units: int) -> None:
        super().__init__()
        self.harmonise = harmoniser(kind, old)
        self.new = new_layer(kind, seen, units)

    def forward(self, old: Tensor, seen: Tensor) -> Tensor:
        return side_by_side(self.harmonise(old), self.new(seen))


@final
class DeepBody(nn.Module):
    """h(u(h(f))), or several such layers one after the other."""

    def __init__(self, kind: str, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.harmonise = harmoniser(kind, sizes[0])
        self.new = new_layers(kind, sizes)

    def forward(self, features: Tensor, logits: Tensor | None) -> Tensor:
        return self.new(self.harmonise(pooled(features)))


@final
class WideBody(nn.Module):
    """[h(f), h(u(g))], and a new layer behind it where `depth` is its size and not 0."""

    def __init__(self, kind: str, widths: Widths, width: int, depth: int = 0) -> None:
        super().__init__()
        self.widened = Widened(kind, widths.features, vector_width(widths.earlier[-1]), width)
        self.new = new_layer(kind, widths.features + width, depth) if depth else nn.Identity()

    def forward(self, features: Tensor, logits: Tensor | None, before: Tensor) -> Tensor:
        return self.new(self.widened(pooled(features), before))


@final
class TwiceWideBody(nn.Module):
    """[h(f), h(u([h(g), h(u(e))]))]."""

    def __init__(self, kind: str, widths: Widths, sizes: tuple[int, ...]) -> None:
        super().__init__()
        first, second = sizes
        earliest, before = map(vector_width, widths.earlier)
        self.before = Widened(kind, before, earliest, first)
        self.last = Widened(kind, widths.features, before + first, second)

    def forward(self, features: Tensor, logits: Tensor | None, earliest: Tensor, before: Tensor) -> Tensor:
        return self.last(pooled(features), self.before(before, earliest))


BODIES = (Widened, DeepBody, WideBody, TwiceWideBody)


@final
class DACNN(Graft):
    """y = W h(u(h(f))) + b; with more than one size, so many new layers (the paper's recursive augmentation)."""

    name = "da-cnn"
    keeps_layer = False
    uses_features = True
    sizes = ((2048,),)
    fewest, most = 1, 3

    body: DeepBody

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__(configuration, widths)
        self.body = DeepBody(configuration.harmonise, (widths.features, *configuration.hidden))
        self.classifier = nn.Linear(configuration.hidden[-1], widths.classes)

    def forward(self, features: Tensor, logits: Tensor | None) -> Tensor:
        return self.classifier(self.body(features, logits))


class _Wide(Graft):
    """New units that see FC6 stand beside those of FC7."""

    keeps_layer = False
    uses_features = True

    body: WideBody

    @classmethod
    def taps(cls, stages: int) -> tuple[int, ...]:
        return (stages - 2,)

    def forward(self, features: Tensor, logits: Tensor | None, before: Tensor) -> Tensor:
        return self.classifier(self.body(features, logits, before))


@final
class WACNN(_Wide):
    """y = W [h(f), h(u(g))] + b; its size is the number of new units."""

    name = "wa-cnn"
    sizes = ((1024,),)
    fewest = most = 1

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__(configuration, widths)
        (width,) = configuration.hidden
        self.body = WideBody(configuration.harmonise, widths, width)
        self.classifier = nn.Linear(widths.features + width, widths.classes)


@final
class DWACNN(_Wide):
    """y = W h(u([h(f), h(u(g))])) + b; its sizes are the new units beside the old ones and those of the new layer."""

    name = "dwa-cnn"
    sizes = ((1024, 2048),)
    fewest = most = 2

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__(configuration, widths)
        width, depth = configuration.hidden
        self.body = WideBody(configuration.harmonise, widths, width, depth)
        self.classifier = nn.Linear(depth, widths.classes)


@final
class WWACNN(Graft):
    """y = W [h(f), h(u([h(g), h(u(e))]))] + b; its sizes are the new units of the layer before the last, and of it."""

    name = "wwa-cnn"
    keeps_layer = False
    uses_features = True
    sizes = ((1024, 1024),)
    fewest = most = 2

    body: TwiceWideBody

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__(configuration, widths)
        self.body = TwiceWideBody(configuration.harmonise, widths, configuration.hidden)
        self.classifier = nn.Linear(widths.features + configuration.hidden[-1], widths.classes)

    @classmethod
    def taps(cls, stages: int) -> tuple[int, ...]:
        return (stages - 3, stages - 2)

    def forward(self, features: Tensor, logits: Tensor | None, earliest: Tensor, before: Tensor) -> Tensor:
        return self.classifier(self.body(features, logits, earliest, before))
