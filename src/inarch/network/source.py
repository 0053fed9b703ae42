"""Source networks, loaded with weights, classification layer, and what is known of their input and classes.

What can be given: `timm:NAME`, `torchvision:NAME`, `inarch:embedded` (a small network that the package carries, see
docs/embedded-network.md), `python:FILE.py:FUNCTION`, a card (card.py), or a folder with one.
Weights come from safetensors files or the hubs of the libraries and can never run code; a `python:` source runs the
file that the user named, which is announced.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from torch import nn

from inarch.errors import SourceError, UsageError
from inarch.network.card import Card, InputSpec, read_card, read_python
from inarch.network.class_names import plain
from inarch.network.libraries import (
    FORMS,
    Facts,
    adapt_weights,
    arguments_of_weights,
    build_network,
    hub_weights,
    library_facts,
    size_arguments,
    split_network,
)
from inarch.network.probe import outputs, run_images
from inarch.network.weights import (
    check_finite,
    first_convolution,
    fit_weights,
    read_weights,
    take_grey_images,
    weights_digest,
)
from inarch.plural import counted
from inarch.results.folder import LEDGER, lacks

__all__ = ["EMBEDDED", "Card", "InputSpec", "Source", "SourceOptions", "build_network", "load_source"]

EMBEDDED = "inarch:embedded"
_EMBEDDED_CARD = Path(__file__).resolve().parents[1] / "embedded" / "card.json"
_IMAGENET = InputSpec(3, 224, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@final
@dataclass(frozen=True)
class SourceOptions:
    """What a user adds to a source, or says instead of its card or library. None: as there.

    `pretrained=False` leaves the weights random: for looking at stages, never for a study.
    """

    weights: Path | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    classification_layer: str | None = None
    pretrained: bool = True

    def __post_init__(self) -> None:
        size = self.image_size
        if size is not None and (not isinstance(size, int) or size < 1):
            raise UsageError(
                f"--image-size {size} is not a number of pixels.",
                "Give the side of the square that the network sees, such as 224.",
            )


@final
@dataclass(frozen=True)
class Source:
    """A loaded source network: float32, in evaluation mode, all parameters finite.

    `name` is what to call it (never a path of the machine), `card` builds it again. `classification_layer` is the path
    of the module whose outputs are the source logits, `classes` their names. `digest` is a sha256 of all weights.
    `folder` is where its card lies, the working directory where it has none.
    """

    name: str
    card: Card
    network: nn.Module
    input: InputSpec
    classes: tuple[str, ...]
    classification_layer: str
    digest: str
    folder: Path


def announce_on_stderr(message: str) -> None:
    print(message, file=sys.stderr)


def load_source(
    text: str, options: SourceOptions = SourceOptions(), announce: Callable[[str], None] = announce_on_stderr
) -> Source:
    """Loads the source network that `text` names.

    `announce` gets a sentence before a file of the user's is run. Raises SourceError where the network, its weights or
    its card cannot be used, UsageError where `text` is of no known form; both say what to do.
    """
    try:
        name, card, folder = _find(text)
    except OSError as error:  # a folder above it that may not be entered, a name that is too long
        problem = f"'{text}' cannot be read: {error.strerror or error}."
        raise SourceError(problem, "Check the path and its permissions.") from error
    card = replace(
        card,
        arguments={**card.arguments, **options.arguments},
        classification_layer=options.classification_layer or card.classification_layer,
        classes=options.classes or card.classes,
    )
    if options.image_size is not None:
        card = replace(card, arguments={**card.arguments, **size_arguments(card.network, options.image_size)})
    if card.python is not None:
        announce(f"Running {card.python.name} (sha256 {card.python.digest}), because '{name}' is built by it.")
    network, card = _with_weights(card, folder, options, name)
    network.float().eval().requires_grad_(True)
    check_finite(network, f"'{name}'")
    facts = library_facts(card, network)
    spec = _input(card.input or facts.input or _IMAGENET, network, options, name)
    logits, executed = run_images(network, spec.example(1))
    count = logits.shape[1]
    layer = _classification_layer(network, card.classification_layer, facts, executed, count)
    known = facts.classes if facts.classes is not None and len(facts.classes) == count else plain(count)
    classes = card.classes or known
    if len(classes) != count:
        raise SourceError(
            f"'{name}' has {counted(count, 'output')} but {counted(len(classes), 'class name')}.",
            "Give as many names as outputs, in order.",
        )
    digest = weights_digest(network)
    card = replace(card, input=spec, classes=classes, classification_layer=layer, weights_digest=digest)
    return Source(name, card, network, spec, classes, layer, digest, folder)


def _find(text: str) -> tuple[str, Card, Path]:
    """What to call a source, its card, and the folder that paths in the card are relative to."""
    path = _EMBEDDED_CARD if text == EMBEDDED else Path(text)
    if path.is_dir():
        for file in (path / "card.json", path / "model" / "card.json"):
            if file.is_file():
                card = read_card(file)
                return str(card.extra.get("name") or path.resolve().name), card, file.parent
        if (path / LEDGER).exists():
            raise SourceError(*lacks(path, "model", "model/card.json"))
        raise SourceError(f"The folder {path} holds no card.json.", "Give a model folder or a run folder of Inarch.")
    if text.startswith("python:"):
        python = read_python(text, Path())
        name = f"python:{python.name}:{text.rpartition(':')[2]}"
        return name, Card(name, python=python), Path()
    if path.suffix == ".json":
        if not path.is_file():
            raise SourceError(f"There is no card '{text}'.", "Check the path.")
        card = read_card(path)
        return str(card.extra.get("name") or path.stem), card, path.parent
    if ":" not in text:
        found = "a file that is no card (.json)" if path.exists() else "no folder or file that is there"
        raise UsageError(f"'{text}' is not a source network: it is {found}.", f"Give {FORMS}.")
    split_network(text)
    return text, Card(text), Path()


def _with_weights(card: Card, folder: Path, options: SourceOptions, name: str) -> tuple[nn.Module, Card]:
    file = options.weights or (folder / card.weights if card.weights is not None else None)
    from_python = card.network.startswith("python:")
    if not options.pretrained or (file is None and from_python):
        return build_network(card, folder), card
    if file is None:
        network, arguments = hub_weights(card)
        return network, replace(card, arguments=arguments)
    state = read_weights(file)
    network = build_network(card, folder)
    grey = not from_python and take_grey_images(network, state)
    if card.adapted is None and not grey and (theirs := arguments_of_weights(card)):
        card = replace(card, arguments=theirs | dict(card.arguments))
        network = build_network(card, folder)
    fit_weights(network, adapt_weights(network, state), f"'{name}'")
    return network, replace(card, weights=file.name)


def _input(spec: InputSpec, network: nn.Module, options: SourceOptions, name: str) -> InputSpec:
    """`spec` with what the options say instead, and as many channels as the network reads."""
    first = first_convolution(network)
    channels = spec.channels if first is None else first[1].in_channels
    if channels != spec.channels and channels == 1:
        grey = tuple(sum(values) / len(values) for values in (spec.mean, spec.std))
        spec = replace(spec, channels=1, mean=(grey[0],), std=(grey[1],))
    size = options.image_size
    return replace(
        spec,
        height=size or spec.height,
        width=size or spec.width,
        mean=options.mean or spec.mean,
        std=options.std or spec.std,
        interpolation=options.interpolation or spec.interpolation,
        crop_pct=options.crop_pct or spec.crop_pct,
    ).checked(f"'{name}'")


def _classification_layer(network: nn.Module, given: str | None, facts: Facts, executed: list[str], count: int) -> str:
    """The last layer that ran and has as many outputs as there are logits; the card decides, then the library."""
    modules = dict(network.named_modules())
    if getattr(network, "num_classes", None) == 0:  # timm's word for features only
        raise SourceError(
            f"The network ({type(network).__name__}) was trained without a classification layer.",
            "A source network needs one: choose weights that were trained to classify.",
        )
    if given is not None and given not in modules:
        raise SourceError(
            f"The network ({type(network).__name__}) has no module '{given}' that could be its classification layer.",
            "Correct 'classification_layer'.",
        )
    named = (given,) if given is not None else facts.classifiers
    found = [path for path in executed if outputs(modules[path]) == count]
    preferred = [path for path in found if path in named]
    if given is None and found:
        return (preferred or found)[-1]
    if preferred:
        return preferred[-1]
    raise SourceError(
        f"The network ({type(network).__name__}) has no classification layer with {counted(count, 'output')}"
        + (f" at '{given}'." if given else ": none of its linear layers and 1x1 convolutions has as many."),
        "Name it in the card ('classification_layer'), or use a network that has one.",
    )
