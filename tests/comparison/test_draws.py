"""Draws of few images: as many of each class as asked for, decided by seed and content."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from inarch.comparison.draws import draw
from inarch.features.store import Images


def some_images(order: np.ndarray | None = None) -> Images:
    """40 training, 12 validation and 9 test images of three classes, the third a rare one."""
    counts = {"train": (20, 17, 3), "validation": (6, 5, 1), "test": (3, 3, 3)}
    labels, digests, rows, first = {}, {}, {}, 0
    for split, each in counts.items():
        of_split = np.repeat(np.arange(3), each)
        names = np.array(
            [hashlib.blake2b(f"{split} {i}".encode(), digest_size=16).hexdigest() for i in range(sum(each))]
        )
        numbers = first + np.arange(sum(each))
        places = np.arange(sum(each)) if order is None or split != "train" else order
        labels[split], rows[split] = of_split[places], numbers[places]
        digests[split] = tuple(names[places].tolist())
        first += sum(each)
    return Images(None, rows, labels, 3, digests, {})  # type: ignore[arg-type]


def test_a_draw_has_so_many_of_each_class_or_all_that_there_are_and_the_whole_test_split() -> None:
    images = some_images()
    found = draw(images, 5, seed=1)
    assert np.bincount(found.labels["train"]).tolist() == [5, 5, 3]
    assert np.bincount(found.labels["validation"]).tolist() == [5, 5, 1]
    assert found.rows["test"] is images.rows["test"]
    for split in ("train", "validation"):
        of_row = dict(
            zip(
                images.rows[split].tolist(),
                zip(images.labels[split].tolist(), images.digests[split], strict=True),
                strict=True,
            )
        )
        for row, label, digest in zip(
            found.rows[split].tolist(), found.labels[split].tolist(), found.digests[split], strict=True
        ):
            assert of_row[row] == (label, digest)


def test_seeds_draw_differently_and_a_larger_draw_holds_the_smaller_one() -> None:
    images = some_images()
    small, large, other = (set(draw(images, n, s).rows["train"].tolist()) for n, s in ((4, 1), (9, 1), (4, 2)))
    assert small < large
    assert small != other


def test_content_alone_decides_and_the_order_of_the_split_stays() -> None:
    order = np.random.default_rng(3).permutation(40)
    one, two = draw(some_images(), 5, 1), draw(some_images(order), 5, 1)
    assert set(one.digests["train"]) == set(two.digests["train"])
    kept = [d for d in some_images(order).digests["train"] if d in two.digests["train"]]
    assert list(two.digests["train"]) == kept


@pytest.mark.parametrize("seed", [0, 7])
def test_no_number_takes_everything(seed: int) -> None:
    images = some_images()
    assert draw(images, 0, seed) is images
