"""Names of stored segments: digests of everything that their numbers depend on.

The part before the hyphen names the pass (images, their view, the machine and its arithmetic), the part behind it the
prefix up to the cut: its weights, its operations and the settings of its modules. What lies behind does not count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, fx, nn

from inarch import __version__
from inarch.features.images import Images
from inarch.features.machine import Machine
from inarch.features.shelf import FORMAT

# torchvision and timm bring layers of their own, which run where a network is cut by hand; Pillow decodes.
_LIBRARIES: Final = ("torch", "torchvision", "timm", "numpy", "pillow")


@final
class Addresses:
    """Names of the segments of one network, its images and a machine."""

    def __init__(
        self, stages: Sequence[nn.Module], images: Images, machine: Machine, source: Mapping[str, Any], chunk: int
    ) -> None:
        """stages: with the weights of the source. source: what else decides what they compute (digest of a file)."""
        self._images, self._device = images, machine.device
        self._common = {
            "format": FORMAT,
            "chunk": chunk,
            "recipe": images.recipe,
            "machine": machine.identity(),
            "source": source,
            "versions": {"inarch": __version__} | {name: version(name) for name in _LIBRARIES},
        }
        self._prefixes = [""]
        for stage in stages:
            self._prefixes.append(_digest([self._prefixes[-1], stage_digest(stage)]))
        self._splits = {split: _digest(digests) for split, digests in images.digests.items()}
        self._passes: dict[tuple[str, int | None, str | None], str] = {}

    def of_pass(self, split: str, view: int | None, precision: str | None) -> str:
        """The name of what pushes one view of a split through the network; view None is the evaluation view."""
        key = split, view, precision
        if key not in self._passes:
            # A network with another first stage shares nothing, and need not wait for this one.
            wanted = {"images": self._splits[split], "view": view, "precision": precision, "first": self._prefixes[1]}
            self._passes[key] = _digest(self._common | wanted | {"pixels": self._some_pixels(split, view)})
        return self._passes[key]

    def of_segment(self, cut: int, split: str, view: int | None, precision: str | None) -> str:
        """The name of a view of a split at a cut above 0."""
        return f"{self.of_pass(split, view, precision)}-{self._prefixes[cut]}"

    def _some_pixels(self, split: str, view: int | None) -> str:
        """A digest of the first image as the network sees it: whatever changes how views are made shows in it."""
        rows = self._images.rows[split][:1]
        return tensor_digest(self._images.seen(rows, view, self._device))


def stage_digest(stage: nn.Module) -> str:
    """A digest of weights and buffers, operations, and modules with their settings."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in (*stage.named_parameters(), *stage.named_buffers()):
        digest.update(f"{name} {tensor_digest(tensor)}\n".encode())
    for name, module in stage.named_modules():
        operations = module.code if isinstance(module, fx.GraphModule) else ""
        digest.update(f"{name} {type(module).__qualname__}({module.extra_repr()}) {operations}\n".encode())
    return digest.hexdigest()


def tensor_digest(tensor: Tensor) -> str:
    """A digest of shape, type and values, whatever the memory format."""
    values = tensor.detach().cpu().contiguous()
    digest = hashlib.blake2b(f"{values.dtype} {tuple(values.shape)}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(values.reshape(-1).view(torch.uint8).numpy()).data)
    return digest.hexdigest()


def _digest(values: Any) -> str:
    text = json.dumps(values, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
