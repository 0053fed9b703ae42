"""What a pre-training run is: network, images, optimiser, schedule. Everything that decides its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import timm
import torch
from torch import nn

from formulas import EDITION, source_classes

# Half of the range of pixels, so that networks see -1 to 1.
MEAN = STD = (0.5, 0.5, 0.5)


@final
@dataclass(frozen=True)
class Recipe:
    """The network is ResNet-18 at half its width or less: it traces, trains fast on processors, and fits in 4 MB.

    steps: of `batch_size` images each. size: of images, in pixels. passes: how often an image is seen; passes beyond
    the first zoom, shift and relight it. block: batches whose images are mixed in one pass. precision: bf16 or fp32.
    rate: the highest, after `warm_up` steps; from there it falls to 0 along a cosine.
    """

    steps: int
    channels: tuple[int, int, int, int] = (32, 64, 128, 160)
    size: int = 64
    batch_size: int = 128
    passes: int = 1
    block: int = 16
    rate: float = 0.1
    warm_up: int = 400
    momentum: float = 0.9
    weight_decay: float = 5e-5
    label_smoothing: float = 0.1
    precision: str = "bf16"
    seed: int = 0
    edition: int = EDITION

    def __post_init__(self) -> None:
        if self.steps < 1 or self.passes < 1 or self.block < 1 or self.batch_size < 2 or self.size < 32:
            raise ValueError("steps, passes and block are at least 1, batch_size at least 2, size at least 32")
        if self.precision not in ("bf16", "fp32"):
            raise ValueError(f"precision is bf16 or fp32, not {self.precision}")

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    @staticmethod
    def from_json(value: dict[str, Any]) -> Recipe:
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}
        return Recipe(**given)

    def network(self) -> nn.Module:
        """The network with initial weights that follow from the seed."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            network: nn.Module = timm.create_model("resnet18", pretrained=False, **self._arguments())
        return network

    def _arguments(self) -> dict[str, Any]:
        return {"num_classes": len(source_classes()), "channels": list(self.channels)}

    def card(self, weights: str, classes: str) -> dict[str, Any]:
        """The card of a source network, with the names of the files beside it."""
        return {
            "name": "inarch:embedded",
            "network": "timm:resnet18",
            "arguments": self._arguments(),
            "weights": weights,
            "input": {
                "size": [3, self.size, self.size],
                "mean": list(MEAN),
                "std": list(STD),
                "interpolation": "bilinear",
                "crop_pct": 1.0,
            },
            "classes": classes,
            "licence": "Apache-2.0",
            "origin": "pretraining/pretrain.py of this project: images that formulas make, no photographs",
        }


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def write_json(file: Path, value: Any) -> None:
    """Written beside and renamed, so that a kill leaves the old file or the new one."""
    beside = file.with_name(f".{file.name}.part")
    beside.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(file)
