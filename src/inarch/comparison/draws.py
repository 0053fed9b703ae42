"""Draws of few training images: what a data set is like for somebody who has only so many labels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from inarch.features.store import Images

# Of these splits a draw takes a part: with few labels nobody has many for validation. The test split stays whole.
DRAWN = ("train", "validation")


def draw(images: Images, shots: int, seed: int) -> Images:
    """The images with `shots` of each class in training and in validation, or all where a class has fewer (0: all).

    Seed and content decide which; a draw of more images with the same seed holds that of fewer. The order of a split
    stays what it was.
    """
    if not shots:
        return images
    taken = {split: _taken(images.digests[split], images.labels[split], shots, seed) for split in DRAWN}
    return replace(
        images,
        rows=images.rows | {split: images.rows[split][places] for split, places in taken.items()},
        labels=images.labels | {split: images.labels[split][places] for split, places in taken.items()},
        digests={**images.digests} | {s: tuple(images.digests[s][i] for i in places) for s, places in taken.items()},
    )


def _taken(digests: Sequence[str], labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Places in a split, ascending: of each class those whose turn comes first."""
    of_class: defaultdict[int, list[tuple[bytes, int]]] = defaultdict(list)
    for place, (digest, label) in enumerate(zip(digests, labels.tolist(), strict=True)):
        turn = hashlib.blake2b(f"draw {seed}:{digest}".encode(), digest_size=16).digest()
        of_class[label].append((turn, place))
    places = [place for turns in of_class.values() for _, place in sorted(turns)[:shots]]
    return np.array(sorted(places), dtype=np.int64)
