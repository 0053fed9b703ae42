"""Networks by name from timm and torchvision, or by function from a Python file, built here; weights from the hubs.

`build_network` builds without weights, from what a card says; `library_facts` is what the libraries know beside that:
input, class names, the name of the classification layer.
"""

from __future__ import annotations

import difflib
import re
import sys
import types
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import huggingface_hub.constants
import timm
import timm.data
import torchvision
from torch import Tensor, nn
from torchvision.models import DenseNet
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from inarch.errors import SourceError, UsageError
from inarch.network.card import Card, InputSpec, PythonFile, read_python
from inarch.network.class_names import imagenet, numbered

FORMS = (
    "timm:NAME, torchvision:NAME, inarch:embedded, python:FILE.py:FUNCTION, a card (CARD.json) or a folder with a "
    "card.json"
)
# As DenseNets' published weights name them: norm.1 where the network has norm1 (torchvision's own loading renames too).
_OLD_NAME = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")
_GIVE_WEIGHTS = "Pass its weights with --weights FILE.safetensors, or a card that names them (--source CARD.json)."


@final
@dataclass(frozen=True)
class Facts:
    """What a library knows of a network; None and () where it does not."""

    input: InputSpec | None = None
    classes: tuple[str, ...] | None = None
    classifiers: tuple[str, ...] = ()


def split_network(network: str) -> tuple[str, str]:
    """Kind (timm, torchvision, python) and name.

    Raises UsageError that lists the forms, SourceError with near names for a name that the library does not know.
    """
    kind, _, name = network.partition(":")
    if kind not in {"timm", "torchvision", "python"} or not name:
        raise UsageError(f"'{network}' is not a source network.", f"Give {FORMS}.")
    if kind == "timm" and not timm.is_model(name):
        _unknown(network, name.partition(".")[0], timm.list_models())
    if kind == "torchvision" and name not in _torchvision_names():
        _unknown(network, name, _torchvision_names())
    if kind == "timm" and "." in name and name not in timm.list_pretrained(f"{name.partition('.')[0]}.*"):
        _unknown(network, name, timm.list_pretrained(f"{name.partition('.')[0]}.*"))
    return kind, name


def _torchvision_names() -> list[str]:
    return list(torchvision.models.list_models(module=torchvision.models))


def _unknown(network: str, name: str, known: list[str]) -> None:
    kind = network.partition(":")[0]
    near = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"Near names: {', '.join(f'{kind}:{n}' for n in near)}." if near else f"See {kind}'s list of models."
    raise SourceError(f"{kind} has no network '{name}'.", hint)


def build_network(card: Card, folder: Path) -> nn.Module:
    """The network of a card without its weights; paths in the card are relative to `folder`.

    Raises SourceError where it cannot be built, UsageError where the card's `network` is of no known form.
    """
    if card.adapted is not None:
        from inarch.network import adapted  # it needs this module

        network: nn.Module = adapted.build(card, folder)
        return network
    kind, name = split_network(card.network)
    if kind == "python":
        return _call(card.python or read_python(card.network, folder), name.rpartition(":")[2], card)
    with _building(card):
        if kind == "timm":
            return timm.create_model(name, pretrained=False, **card.arguments)
        arguments = {key: tuple(v) if isinstance(v, list) else v for key, v in card.arguments.items()}
        network = torchvision.models.get_model(name, weights=None, **arguments)
        return network


@contextmanager
def _building(card: Card) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # how GoogLeNet and Inception will be initialised in some future release
            yield
    except Exception as error:
        raise SourceError(
            f"'{card.network}' cannot be built with the arguments {dict(card.arguments)}: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}.",
            "Correct 'arguments' in the card, or the image size.",
        ) from error


def _call(file: PythonFile, function: str, card: Card) -> nn.Module:
    """What a function of a Python file returns. The text that was read (and announced by its digest) is what runs."""
    name = f"inarch_source_{file.digest[:16]}"
    module = types.ModuleType(name)
    module.__file__ = file.name
    sys.modules[name] = module  # dataclasses and pickle look here
    try:
        exec(compile(file.content, file.name, "exec"), module.__dict__)
    except Exception as error:
        raise SourceError(f"'{file.name}' fails: {type(error).__name__}: {error}.", "Correct the file.") from error
    if not callable(getattr(module, function, None)):
        near = difflib.get_close_matches(function, [n for n in vars(module) if not n.startswith("_")], 3)
        raise SourceError(
            f"'{file.name}' has no function '{function}'.",
            f"Near names: {', '.join(near)}." if near else "Correct the name.",
        )
    try:
        network = getattr(module, function)(**card.arguments)
    except Exception as error:
        raise SourceError(
            f"The function '{function}' of '{file.name}' fails: {type(error).__name__}: {error}.",
            "Correct it, or 'arguments' in the card.",
        ) from error
    if not isinstance(network, nn.Module):
        raise SourceError(
            f"The function '{function}' of '{file.name}' returns {type(network).__name__}, not a network.",
            "It must return a torch.nn.Module.",
        )
    return network


def size_arguments(network: str, size: int) -> dict[str, Any]:
    """Arguments that build a network of fixed input size for images of `size` x `size`; none where any size will do."""
    kind, name = split_network(network)
    if kind == "timm":
        configuration = timm.get_pretrained_cfg(name)
        return {"img_size": size} if configuration is not None and configuration.fixed_input_size else {}
    if kind == "torchvision" and name.startswith("vit_"):
        return {"image_size": size}
    if kind == "torchvision" and name.startswith("maxvit"):
        return {"input_size": [size, size]}
    return {}


def hub_weights(card: Card) -> tuple[nn.Module, dict[str, Any]]:
    """The network with the weights of its library's hub, and the arguments that build it again without.

    Raises SourceError that says what to pass instead where the hub cannot be reached or has no weights.
    """
    kind, name = split_network(card.network)
    arguments = dict(card.arguments)
    load = _load_timm if kind == "timm" else _load_torchvision
    try:
        return load(name, arguments)
    except SourceError:
        raise
    except (OSError, urllib.error.URLError) as error:
        raise SourceError(
            f"The pre-trained weights of '{card.network}' are not on this machine and their hub cannot be reached "
            f"({type(error).__name__}).",
            _GIVE_WEIGHTS,
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise SourceError(
            f"'{card.network}' with the arguments {arguments} cannot be had with pre-trained weights: {reason}.",
            _GIVE_WEIGHTS,
        ) from error


def _load_timm(name: str, arguments: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    configuration = timm.get_pretrained_cfg(name)
    if configuration is None or not (configuration.hf_hub_id or configuration.url):
        raise SourceError(f"timm has no pre-trained weights for '{name}'.", _GIVE_WEIGHTS)
    _same_classes(name, arguments, configuration.num_classes)
    with _no_retries():
        return timm.create_model(name, pretrained=True, **arguments), arguments


def _same_classes(name: str, arguments: Mapping[str, Any], count: int) -> None:
    if arguments.get("num_classes", count) != count:
        raise SourceError(
            f"The pre-trained weights of '{name}' are for {count} classes, not for {arguments['num_classes']}.",
            "Leave 'num_classes' out: the classification layer is kept as it was trained.",
        )


@contextmanager
def _no_retries() -> Iterator[None]:
    """Where the hub does not answer at once, only its cache is asked: its own retries take most of a minute."""
    constants: Any = huggingface_hub.constants
    before = constants.HF_HUB_OFFLINE
    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _load_torchvision(name: str, arguments: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    _same_classes(name, arguments, len(weights.meta["categories"]))
    arguments = arguments_of_weights(Card(f"torchvision:{name}", arguments)) | arguments
    # The hash is that of what is downloaded; what lies in the cache may be anything, and must not run.
    state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    network = build_network(Card(f"torchvision:{name}", arguments), Path())
    network.load_state_dict(adapt_weights(network, state))
    return network, arguments


def arguments_of_weights(card: Card) -> dict[str, Any]:
    """Arguments without which a network takes its library's weights and gives other logits than they were trained for.

    torchvision sets them itself wherever it loads its own weights. Weights for another number of classes are somebody
    else's, who need not have trained them so.
    """
    known = {"torchvision:googlenet", "torchvision:inception_v3"}
    if card.network in known and card.arguments.get("num_classes", 1000) == 1000:
        return {"transform_input": True, "init_weights": False}
    return {}


def adapt_weights(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights brought to the form of `network` by its own library, where they do not fit as they are.

    Position embeddings are resized to another image size, older names changed; what still does not fit stays.
    """
    own = network.state_dict()
    if own.keys() == state.keys() and all(own[name].shape == state[name].shape for name in own):
        return state
    adapt = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    try:
        if isinstance(network, DenseNet):
            return {_OLD_NAME.sub(r"\1\2", name): value for name, value in state.items()}
        if isinstance(network, VisionTransformer):
            return dict(interpolate_embeddings(network.image_size, network.patch_size, dict(state)))
        return dict(adapt(dict(state), network)) if adapt is not None else state
    except Exception:
        return state  # the caller says what does not fit


def library_facts(card: Card, network: nn.Module) -> Facts:
    """What the library of a card's network knows of it."""
    kind, name = split_network(card.network)
    if card.adapted is not None or kind == "python":
        return Facts()
    return _timm_facts(network) if kind == "timm" else _torchvision_facts(name)


def _timm_facts(network: nn.Module) -> Facts:
    tables: Any = timm.data
    data = tables.resolve_model_data_config(network)
    channels, height, width = data["input_size"]
    wanted = InputSpec(
        channels, height, width, tuple(data["mean"]), tuple(data["std"]), data["interpolation"], data["crop_pct"]
    )
    configuration: dict[str, Any] = getattr(network, "pretrained_cfg", {})
    subset = tables.infer_imagenet_subset(network)
    classes = configuration.get("label_names") or (imagenet(subset) if subset else None)
    layer = configuration.get("classifier") or ()
    return Facts(wanted, classes and tuple(classes), (layer,) if isinstance(layer, str) else tuple(layer))


def _torchvision_facts(name: str) -> Facts:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    side, resized = preset.crop_size[0], preset.resize_size[0]
    wanted = InputSpec(
        3, side, side, tuple(preset.mean), tuple(preset.std), preset.interpolation.value, min(1.0, side / resized)
    )
    categories = weights.meta["categories"]
    return Facts(wanted, imagenet() if len(categories) == len(imagenet()) else numbered(categories))
