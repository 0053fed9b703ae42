"""A toy network and toy images, small enough to train in a test: made on the fly, the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

SIDE = 16
SOURCE_CLASSES = 6

NETWORK = """
from torch import nn

def toy(num_classes: int = 6) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, num_classes),
    )
"""


def toy_network(text: str = NETWORK) -> nn.Module:
    """The toy network, or a deeper one, with weights that depend on nothing."""
    scope: dict[str, object] = {}
    exec(text, scope)  # the same text that a `python:` source runs
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = scope["toy"]()  # type: ignore[operator]
    return network


DEEPER = """
from torch import nn

def toy(num_classes: int = 6) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(8, 10, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(10, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, num_classes),
    )
"""


def write_source(folder: Path) -> Path:
    """Writes network, weights and card of the toy source; returns the card."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.py").write_text(NETWORK)
    save_file(toy_network().state_dict(), folder / "toy.safetensors")
    card = {
        "network": "python:toy.py:toy",
        "arguments": {},
        "weights": "toy.safetensors",
        "input": {
            "size": [3, SIDE, SIDE], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "crop_pct": 1.0,
        },
        "classes": [f"source {i}" for i in range(SOURCE_CLASSES)],
    }  # fmt: skip
    (folder / "toy.json").write_text(json.dumps(card))
    return folder / "toy.json"


def write_images(folder: Path, *, a_class: int = 30, classes: tuple[str, ...] = ("red", "green", "blue")) -> Path:
    """Writes class folders of noisy images, each class with a colour channel of its own."""
    random = np.random.default_rng(7)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(a_class):
            pixels = random.integers(0, 160, (SIDE + 4, SIDE + 4, 3))
            pixels[..., number % 3] += 70
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def linked(source: Path, target: Path, each: int) -> Path:
    """The first `each` images of every folder of a data set, as links."""
    for folder in sorted(path for path in source.rglob("*") if path.is_dir()):
        images = sorted(folder.glob("*.jpg"))[:each]
        if images:
            place = target / folder.relative_to(source)
            place.mkdir(parents=True)
            for image in images:
                (place / image.name).symlink_to(image)
    return target
