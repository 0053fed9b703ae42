"""Made splits are stratified, decided by seed and content alone, and never divide exact duplicates."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inarch.data.splits import assign_splits

BOTH = ("validation", "test")


def digest(name: object) -> str:
    return hashlib.blake2b(str(name).encode(), digest_size=16).hexdigest()


def counted(splits: list[str], labels: list[int], label: int) -> dict[str, int]:
    return dict(Counter(split for split, other in zip(splits, labels, strict=True) if other == label))


@pytest.mark.parametrize(
    ("images", "validation", "test"),
    [(1, 0, 0), (2, 0, 0), (3, 1, 1), (4, 1, 1), (7, 1, 1), (10, 2, 2), (20, 3, 4), (100, 15, 20), (1000, 150, 200)],
)
def test_every_class_gives_fifteen_and_twenty_per_cent_and_small_ones_stay(
    images: int, validation: int, test: int
) -> None:
    labels = [0] * images + [1] * 40
    splits = assign_splits([digest(n) for n in range(images + 40)], labels, [None] * (images + 40), BOTH, 0)
    found = counted(splits, labels, 0)
    assert (found.get("validation", 0), found.get("test", 0)) == (validation, test)
    assert counted(splits, labels, 1) == {"train": 26, "validation": 6, "test": 8}


@pytest.mark.parametrize(("missing", "given_split", "count"), [("validation", "test", 15), ("test", "validation", 20)])
def test_a_single_missing_split_is_drawn_from_the_training_images(missing: str, given_split: str, count: int) -> None:
    given_splits = ["train"] * 100 + [given_split] * 50
    splits = assign_splits([digest(n) for n in range(150)], [0] * 150, given_splits, (missing,), 0)
    assert splits[100:] == [given_split] * 50
    assert Counter(splits[:100]) == {"train": 100 - count, missing: count}


def test_nothing_moves_when_no_split_is_missing() -> None:
    given_splits = ["train", "validation", "test"] * 5
    assert assign_splits([digest(n) for n in range(15)], [0] * 15, given_splits, (), 0) == given_splits


def test_seed_and_content_decide_and_order_does_not() -> None:
    digests, labels = [digest(n) for n in range(60)], [n % 3 for n in range(60)]
    first = dict(zip(digests, assign_splits(digests, labels, [None] * 60, BOTH, 7), strict=True))
    order = random.Random(0).sample(range(60), 60)
    again = assign_splits([digests[n] for n in order], [labels[n] for n in order], [None] * 60, BOTH, 7)
    assert dict(zip([digests[n] for n in order], again, strict=True)) == first
    other = dict(zip(digests, assign_splits(digests, labels, [None] * 60, BOTH, 8), strict=True))
    assert other != first


@settings(max_examples=150, deadline=None)
@given(
    images=st.lists(
        st.tuples(st.integers(0, 25), st.integers(0, 3), st.sampled_from(["train", "validation", "test"])), max_size=60
    ),
    missing=st.sampled_from([("validation",), ("test",), BOTH]),
    seed=st.integers(0, 5),
)
def test_duplicates_never_stand_on_two_sides_of_a_made_split(
    images: list[tuple[int, int, str]], missing: tuple[str, ...], seed: int
) -> None:
    digests, labels = [digest(number) for number, _, _ in images], [label for _, label, _ in images]
    given_splits: list[str | None] = ["train" if split in missing else split for _, _, split in images]
    splits = assign_splits(digests, labels, given_splits, missing, seed)
    for split in missing:
        inside = {d for d, s in zip(digests, splits, strict=True) if s == split}
        outside = {d for d, s in zip(digests, splits, strict=True) if s != split}
        assert not inside & outside
    for before, after in zip(given_splits, splits, strict=True):
        assert after == before or (before == "train" and after in missing)
    for label in set(labels):
        if "train" in [s for s, other in zip(given_splits, labels, strict=True) if other == label]:
            assert counted(splits, labels, label).get("train", 0) >= 1


def test_pictures_of_two_labels_stay_in_train() -> None:
    digests, labels = [digest("same")] * 2 + [digest(n) for n in range(40)], [0, 1] + [0, 1] * 20
    for seed in range(20):
        assert assign_splits(digests, labels, [None] * 42, BOTH, seed)[:2] == ["train", "train"]
