"""What a benchmark makes for itself: images of noise with a colour that tells the class, and a network with random
weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import common
from inarch.network.card import InputSpec

# The network that is measured on a GPU, and that needs no shared folder.
RANDOM = "resnet50"
# What made images are called in place of a data set.
MADE = "made"

# Training images a class decide the size of the set; validation and test take a fifth of it each.
SHARES = {"train": 1.0, "val": 0.2, "test": 0.2}


def make_images(folder: Path, *, classes: int, a_class: int, side: int) -> Path:
    """JPEG files in class folders below `train`, `val` and `test`, the same every time; finished folders are kept."""
    if (folder.parent / f"{folder.name}.complete").exists():
        return folder
    random = np.random.default_rng(0)
    colours = random.integers(40, 216, (classes, 3))
    for split, share in SHARES.items():
        for number in range(classes):
            place = folder / split / f"class-{number:04d}"
            place.mkdir(parents=True, exist_ok=True)
            for image in range(max(1, round(share * a_class))):
                make_image(random, colours[number], side).save(place / f"{image:05d}.jpg", quality=90)
    (folder.parent / f"{folder.name}.complete").touch()
    return folder


def draw_made(work: Path, images: int, seed: int) -> Path:
    """A manifest of about `images` made images of ten classes for training, drawn by `seed` from a fifth more."""
    a_class = images // 10
    folder = make_images(work / "images", classes=10, a_class=a_class * 6 // 5, side=256)
    return common.draw(folder, work / f"{MADE}-{a_class}-{seed}.csv", a_class=a_class, seed=seed)


def make_image(random: np.random.Generator, colour: np.ndarray, side: int) -> Image.Image:
    """One image: coarse noise around a colour, enlarged, so that the file is about as large as a photograph's."""
    coarse = np.clip(colour + random.normal(0, 40, (side // 4, side // 4, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def card_of(network: str, folder: Path) -> Path:
    """The card of a network in the shared folder, or of `RANDOM`, which is made below `folder`."""
    return random_resnet(folder) if network == RANDOM else common.card(network)


def random_resnet(folder: Path) -> Path:
    """A card of timm's ResNet-50 with random weights beside it."""
    card = folder / "resnet50" / "resnet50.json"
    if not card.exists():
        card.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        save_file(timm.create_model("resnet50", pretrained=False).state_dict(), card.parent / "resnet50.safetensors")
        spec = InputSpec(3, 224, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        values = {"network": "timm:resnet50", "arguments": {}, "weights": "resnet50.safetensors"}
        card.write_text(json.dumps(values | {"input": spec.to_card(), "classes": "imagenet-1k"}))
    return card
