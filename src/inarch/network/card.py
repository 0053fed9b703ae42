"""Cards: small JSON files that say all that is needed to build a source network again.

`network` (timm:NAME, torchvision:NAME or python:FILE.py:FUNCTION), `arguments`, `weights`, `input`, `classes`, and
optionally `name` and `classification_layer`; further keys are kept. Paths in a card are relative to the card.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from inarch.errors import SourceError, UsageError
from inarch.network.class_names import IMAGENET_1K, imagenet, read_classes

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos", "random")
_KNOWN = frozenset(
    ("network", "arguments", "weights", "input", "classes", "classification_layer", "weights_digest", "python_digest")
)


@final
@dataclass(frozen=True)
class InputSpec:
    """What a network wants as input: images [channels, height, width], scaled to 0..1, then (x - mean) / std.

    `crop_pct` is the side of the central crop as a share of the resized image (0 to 1).
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    crop_pct: float = 0.875

    def to_card(self) -> dict[str, Any]:
        """As it stands in a card under `input`."""
        return {
            "size": [self.channels, self.height, self.width],
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "crop_pct": self.crop_pct,
        }

    @staticmethod
    def from_card(value: Any, where: str) -> InputSpec:
        """From a card's `input`. Raises SourceError that names the card (`where`) and the field."""
        try:
            channels, height, width = (int(size) for size in value["size"])
            mean, std = (tuple(float(v) for v in value[key]) for key in ("mean", "std"))
            interpolation, crop = str(value.get("interpolation", "bilinear")), float(value.get("crop_pct", 0.875))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(
                f"{where}: 'input' cannot be read ({type(error).__name__}: {error}).",
                'It looks like {"size": [3, 224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], '
                '"interpolation": "bilinear", "crop_pct": 0.875}.',
            ) from error
        return InputSpec(channels, height, width, mean, std, interpolation, crop).checked(where)

    def checked(self, where: str) -> InputSpec:
        """Itself; SourceError where a value cannot be meant."""
        wrong = [
            (min(self.height, self.width) < 1, "'size' has a side below 1"),
            (self.channels not in (1, 3), f"'size' has {self.channels} channels, and images are grey (1) or RGB (3)"),
            (len(self.mean) != self.channels, f"'mean' has {len(self.mean)} values for {self.channels} channel(s)"),
            (len(self.std) != self.channels, f"'std' has {len(self.std)} values for {self.channels} channel(s)"),
            (not all(value > 0 for value in self.std), f"'std' {list(self.std)} is not positive"),
            (not 0 < self.crop_pct <= 1, f"'crop_pct' {self.crop_pct} is not between 0 and 1"),
            (self.interpolation not in _INTERPOLATIONS, f"'interpolation' is '{self.interpolation}'"),
        ]
        for found, problem in wrong:
            if found:
                raise SourceError(f"{where}: in its input, {problem}.", "Correct 'input' in the card, or the option.")
        return self

    def example(self, count: int = 2) -> Tensor:
        """The same noise every time, as a batch [count, channels, height, width] of normalised images."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, self.channels, self.height, self.width, generator=generator)


@final
@dataclass(frozen=True)
class PythonFile:
    """The file that a `python:` source runs: its name, content and sha256, so that a copy can go with a model."""

    name: str
    content: str
    digest: str


@final
@dataclass(frozen=True)
class Card:
    """What a card says, None where it is silent. `weights` is relative to the card; None means those of the hub."""

    network: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    input: InputSpec | None = None
    classes: tuple[str, ...] | None = None
    classification_layer: str | None = None
    weights_digest: str | None = None
    python: PythonFile | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def adapted(self) -> list[Mapping[str, Any]] | None:
        """What Inarch added to the network, oldest first, where the card is of a network that it adapted."""
        value: list[Mapping[str, Any]] | None = self.extra.get("adapted")
        return value

    def to_json(self) -> dict[str, Any]:
        """As it stands in a file; `python.content` does not: it goes into the file that `network` names."""
        known: dict[str, Any] = {
            "network": self.network,
            "arguments": dict(self.arguments),
            "weights": self.weights,
            "input": None if self.input is None else self.input.to_card(),
            "classes": IMAGENET_1K if self.classes == imagenet() else self.classes and list(self.classes),
            "classification_layer": self.classification_layer,
            "weights_digest": self.weights_digest,
            "python_digest": None if self.python is None else self.python.digest,
        }
        return {key: value for key, value in known.items() if value is not None} | dict(self.extra)


def read_card(path: Path) -> Card:
    """The card in a JSON file. Raises SourceError that names the card and what is wrong with it."""
    where = f"The card '{path.name}'"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{where} cannot be read: {error}.", "Give a JSON file as described in the README."
        ) from error
    if not isinstance(data, dict) or not isinstance(data.get("network"), str):
        raise SourceError(
            f"{where} does not say which network it is for.", 'It needs "network": "timm:NAME" or another source.'
        )
    for key, kind in (("arguments", dict), ("weights", str), ("classification_layer", str)):
        if data.get(key) is not None and not isinstance(data[key], kind):
            raise SourceError(
                f"{where}: '{key}' is {json.dumps(data[key])[:80]}.", f"It must be a JSON {kind.__name__}."
            )
    classes = data.get("classes")
    python = _python_of(data["network"], path.parent, data.get("python_digest"), where)
    return Card(
        network=data["network"] if python is None else f"python:{python.name}:{data['network'].rpartition(':')[2]}",
        arguments=data.get("arguments") or {},
        weights=data.get("weights"),
        input=None if data.get("input") is None else InputSpec.from_card(data["input"], where),
        classes=None if classes is None else read_classes(classes, path.parent, where),
        classification_layer=data.get("classification_layer"),
        weights_digest=data.get("weights_digest"),
        python=python,
        extra={key: value for key, value in data.items() if key not in _KNOWN},
    )


def _python_of(network: str, folder: Path, digest: str | None, where: str) -> PythonFile | None:
    if not network.startswith("python:"):
        return None
    file = read_python(network, folder)
    if digest is not None and digest != file.digest:
        raise SourceError(
            f"{where}: the file '{file.name}' is not the one it was written for (sha256 {file.digest[:12]} instead of "
            f"{digest[:12]}).",
            "Put the original file back; if the change is meant, remove 'python_digest' from the card.",
        )
    return file


def read_python(network: str, folder: Path) -> PythonFile:
    """The file of `python:FILE.py:FUNCTION`, relative to `folder`. Raises SourceError where there is none."""
    file, _, function = network.removeprefix("python:").rpartition(":")
    if not file or not function.isidentifier():
        raise UsageError(
            f"'{network}' is not of the form python:FILE.py:FUNCTION.", "Name the file and a function in it."
        )
    path = folder / file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"The Python file '{file}' of '{network}' cannot be read: {error.strerror or error}.", "Check the path."
        ) from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"The Python file '{file}' is not UTF-8 ({error.reason}).", "Save it as UTF-8.") from error
    return PythonFile(path.name, text, hashlib.sha256(content).hexdigest())
