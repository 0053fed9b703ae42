"""Weights from safetensors files: nothing in them can run, and they fit or the error says where they do not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inarch.errors import RunFolderError, SourceError

_NAMED = 3
_COUNTER = "num_batches_tracked"  # old weights lack it, and it changes no output


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, floating-point ones as float32.

    Raises SourceError where there is no such file or it is anything else (a pickle for instance: nothing in it runs).
    """
    try:
        with path.open("rb") as file:
            start = file.read(10)
        state = load_file(path)
    except OSError as error:
        raise SourceError(
            f"The weights '{path.name}' cannot be read: {error.strerror or error}.", "Check the path."
        ) from error
    except SafetensorError as error:
        pickled = start.startswith((b"\x80", b"PK")) or path.suffix in {".pth", ".pt", ".bin", ".pkl", ".ckpt"}
        kind = "a pickle, which could run code when it is loaded, " if pickled else ""
        raise SourceError(
            f"The weights '{path.name}' are {kind}not a safetensors file ({error}). Nothing in the file was run.",
            "Convert them where you trust them: safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
            "'weights.safetensors').",
        ) from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def fit_weights(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Puts `state` into `network`, all of it. Raises SourceError that names the first keys and shapes that differ."""
    own = network.state_dict()
    missing = [name for name in own if name not in state and not name.endswith(_COUNTER)]
    unexpected = sorted((name for name in state if name not in own), key=lambda n: (n.endswith(_COUNTER), n))
    differing = [name for name in own if name in state and own[name].shape != state[name].shape]
    if not (missing or unexpected or differing):
        # Into what the network gave, which also says of which version each module is: some of torchvision ask for it.
        own.update(state)
        network.load_state_dict(own, strict=False)
        return
    layers = {name.rpartition(".")[0] for name in differing}
    only_outputs = all(own[name].shape[1:] == state[name].shape[1:] for name in differing)
    if not (missing or unexpected) and len(layers) == 1 and only_outputs:
        theirs, ours = state[differing[0]].shape[0], own[differing[0]].shape[0]
        raise SourceError(
            f"{where}: the weights are for another number of classes: '{differing[0]}' is "
            f"{list(state[differing[0]].shape)} instead of {list(own[differing[0]].shape)}.",
            f'Build the network for {theirs} instead of {ours}: "arguments": {{"num_classes": {theirs}}} in a card.',
        )
    parts = [_first("missing in the weights", missing), _first("not known to the network", unexpected)]
    shapes = [f"{name} is {list(state[name].shape)} instead of {list(own[name].shape)}" for name in differing]
    parts.append(_first("of another shape", shapes))
    raise SourceError(
        f"{where}: the weights do not fit the network ({type(network).__name__}): {'; '.join(p for p in parts if p)}.",
        "Check the name of the network and its arguments against where the weights come from.",
    )


def _first(problem: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{problem}: {', '.join(names[:_NAMED])}{more}"


def copy_of_weights(network: nn.Module) -> dict[str, Tensor]:
    """All that `load_state_dict` takes, copied; with the versions of modules, which some of torchvision ask for."""
    state: dict[str, Tensor] = network.state_dict()
    for name in list(state):
        state[name] = state[name].clone()
    return state


def write_weights(path: Path, state: dict[str, Tensor]) -> None:
    """Writes safetensors beside and renames: the file is whole or not there. Tied weights are written once a name."""
    beside = path.with_name(f".{path.name}.part")
    try:
        save_file(_each_by_itself(state), beside)
        beside.chmod(0o644)  # safetensors makes it unreadable for others
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:  # safetensors wraps a full disk in an error of its own
        beside.unlink(missing_ok=True)
        raise RunFolderError(
            f"Weights could not be written to {path.name} in {path.parent}: {error}.",
            "Make room or choose another --out; nothing recorded before is lost, the same command goes on from there.",
        ) from error


def _each_by_itself(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same values, none of them on the memory of another, which safetensors refuses."""
    known: set[int] = set()
    found = {}
    for name, value in state.items():
        place = value.untyped_storage().data_ptr()
        found[name] = value.clone() if place in known else value
        known.add(place)
    return found


def saved_weights(path: Path) -> dict[str, Tensor] | None:
    """What `write_weights` wrote; None where the file is not there, or a power cut left a part of it."""
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Path and module of the convolution that reads the images, None where the network begins otherwise."""
    convolutions = ((path, m) for path, m in network.named_modules() if isinstance(m, nn.Conv2d))
    return next(convolutions, None)


def take_grey_images(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Narrows the first convolution to one channel where that of `state` has one; whether it has."""
    found = first_convolution(network)
    weight = None if found is None else state.get(f"{found[0]}.weight")
    grey = weight is not None and weight.dim() == 4 and weight.shape[1] == 1
    if grey:
        narrow_first_convolution(network)
    return grey


def narrow_first_convolution(network: nn.Module) -> None:
    """Lets the convolution that reads the images take those of one channel, with its weights for the first of them."""
    found = first_convolution(network)
    if found is not None and found[1].in_channels > 1 and found[1].groups == 1:
        found[1].in_channels = 1
        found[1].weight = nn.Parameter(found[1].weight[:, :1].detach().clone())


def check_finite(network: nn.Module, where: str) -> None:
    """Raises SourceError that names the first parameter or buffer with a value that is not a number or infinite."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise SourceError(
                f"{where}: the weights are damaged: '{name}' has {count} value(s) that are not finite numbers.",
                "Get the weights again from where they come from.",
            )


def weights_digest(network: nn.Module) -> str:
    """sha256 over names, types, shapes and bytes of all parameters and buffers, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {data.dtype} {list(data.shape)}\n".encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().tobytes() if data.numel() else b"")
    return digest.hexdigest()
