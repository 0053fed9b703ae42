"""What a graft is: the configuration that names one, the widths that meet at it, and what every graft offers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from inarch.errors import UsageError

Activations = tuple[Tensor | None, ...]
"""What a graft sees of some images: penultimate features, source logits (None where it replaces the layer), and what
it takes of earlier activations."""


@dataclass(frozen=True)
class Widths:
    """How many channels meet at a graft: penultimate features, source logits, target classes.

    earlier: shapes, without the batch, of the earlier activations that the graft reads, in their order.
    """

    features: int
    source_classes: int
    classes: int
    earlier: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Configuration:
    """What the target network is: a graft, how it harmonises, and the sizes of its hidden layers, where it has any."""

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


class Graft(nn.Module):
    """What is attached to a source network: called with what `Activations` names, it gives target logits.

    keeps_layer: whether it reads source logits. uses_features: whether it reads penultimate features. sizes: of its
    hidden layers, a tuple for each variant that is tried where the user names none; `((),)` where it has none.
    fewest, most: how many hidden layers it may have. stacks: whether several can be computed as one (`stacked.py`).
    classifier: the linear layer that its output comes from.
    body: everything before the classifier, where that is a stage of its own when the adapted network is a source again;
    it is called as the graft is.
    """

    name: ClassVar[str]
    keeps_layer: ClassVar[bool]
    uses_features: ClassVar[bool]
    sizes: ClassVar[tuple[tuple[int, ...], ...]] = ((),)
    fewest: ClassVar[int] = 0
    most: ClassVar[int] = 0
    stacks: ClassVar[bool] = True

    classifier: nn.Linear
    body: nn.Module | None

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__()
        self.body = None

    @classmethod
    def taps(cls, stages: int) -> tuple[int, ...]:
        """The cuts, ascending, whose activations it reads beside the penultimate features; of a network of `stages`."""
        return ()

    @classmethod
    def require(cls, shapes: Sequence[tuple[int, ...]]) -> None:
        """Raises `UsageError` where it makes no sense for a network whose stages give these shapes, batch left out."""
        taps = cls.taps(len(shapes))
        if taps and taps[0] < 1:
            raise UsageError(
                f"{cls.name} reads activations from before the penultimate features, and the network has only "
                f"{len(shapes)} stages: there would be nothing but pixels.",
                "Leave this graft out, or use a network with more stages (`inarch stages` lists them).",
            )
        for tap in taps:
            shape = shapes[tap - 1]
            if len(shape) == 3 and shape[0] == shape[1] != shape[2]:
                raise UsageError(
                    f"{cls.name} averages maps over the image, but in what stage {tap} gives, "
                    f"{' x '.join(map(str, shape))}, the channels seem to stand last.",
                    "Leave this graft out, or use another network.",
                )

    @classmethod
    def starts_from_images(cls) -> bool:
        """Whether its initial values follow from the training images (`start`)."""
        return cls.start is not Graft.start

    def scale_classifier(self, factor: float) -> None:
        """Multiplies the initial weights of its classifier."""
        with torch.no_grad():
            for parameter in self.classifier.parameters():
                parameter.mul_(factor)

    @staticmethod
    def take(x: Tensor) -> Tensor:
        """What it keeps of an earlier activation, as vectors [images, numbers]."""
        return as_vectors(x)

    def start(self, seen: Callable[[], Iterable[Activations]], labels: Tensor, seed: int) -> None:
        """Sets initial values that follow from the training images, before the first step.

        seen: what the graft sees of the evaluation view of the training split, in batches. labels: of its images.
        """


def pooled(features: Tensor) -> Tensor:
    """Penultimate features as vectors [images, channels]; feature maps [images, channels, h, w] are averaged."""
    return features if features.ndim == 2 else features.mean(dim=(2, 3))


def as_vectors(x: Tensor) -> Tensor:
    """Activations of any stage as vectors: maps averaged as `pooled` does, tokens [images, tokens, channels] too."""
    return x.mean(dim=1) if x.ndim == 3 else pooled(x)


def side_by_side(*parts: Tensor) -> Tensor:
    """Vectors [..., channels] joined along their channels; what all members of a stack share is repeated for each."""
    where = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*where, part.shape[-1]) for part in parts], dim=-1)


def vector_width(shape: tuple[int, ...]) -> int:
    """The width of `as_vectors` for activations of a shape without the batch."""
    return shape[1] if len(shape) == 2 else shape[0]


def fitting_sizes(graft: type[Graft], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of hidden layers that a user named, as the graft takes them; one size serves all its layers."""
    if graft.fewest > len(sizes) == 1:
        return sizes * graft.fewest
    if not graft.fewest <= len(sizes) <= graft.most:
        wanted = f"{graft.fewest}" if graft.fewest == graft.most else f"{graft.fewest} to {graft.most}"
        raise UsageError(
            f"--hidden {','.join(map(str, sizes))}: {graft.name} has {wanted} new layers, not {len(sizes)}.",
            "Give one size for all of them, or as many as there are.",
        )
    return sizes
