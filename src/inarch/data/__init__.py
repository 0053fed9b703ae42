"""Labelled images: what lies in a folder or manifest, what is wrong with it, splits, pixels and views."""

from __future__ import annotations

from inarch.data.augmentation import AUGMENTATIONS, Augmentation
from inarch.data.check import describe, summary
from inarch.data.dataset import open_dataset, pixel_digest
from inarch.data.geometry import Geometry
from inarch.data.images import MAX_PIXELS, centre_crop, image_suffixes, read_image, resize_to_cover
from inarch.data.pixels import Pixels, PixelSize
from inarch.data.values import SPLITS, DataSet, Duplicate, Item, SetAside
from inarch.data.views import Views, evaluation_batch

__all__ = [
    "AUGMENTATIONS",
    "MAX_PIXELS",
    "SPLITS",
    "Augmentation",
    "DataSet",
    "Duplicate",
    "Geometry",
    "Item",
    "PixelSize",
    "Pixels",
    "SetAside",
    "Views",
    "centre_crop",
    "describe",
    "evaluation_batch",
    "image_suffixes",
    "open_dataset",
    "pixel_digest",
    "read_image",
    "resize_to_cover",
    "summary",
]
