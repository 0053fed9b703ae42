"""Splits that the user did not make: stratified by class, decided by seed and content, duplicates kept together.

scikit-learn's splitters either stratify to a share or keep groups together, and depend on the order of the items; here
both are needed and neither file names nor order may count, so each image's place comes from a hash of seed and pixels.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

PERCENT = {"test": 20, "validation": 15}
FEWEST = 3


def assign_splits(
    digests: Sequence[str], labels: Sequence[int], given: Sequence[str | None], missing: Sequence[str], seed: int
) -> list[str]:
    """The split of every image, drawing the `missing` ones ("validation", "test") from those not given to another.

    15 % go to validation and 20 % to test, of what can be drawn from, class by class, at least one image of each class;
    classes of fewer than three images stay in train. Images with the same digest move together. Those that stay in
    train whatever their turn: images that the user also has in a split of their own (a made split shares no image with
    another), and images that bear two labels (a test cannot judge them).
    """
    splits = [split or "train" for split in given]
    pool = [index for index, split in enumerate(splits) if split == "train"]
    held = {digests[index] for index, split in enumerate(splits) if split != "train"}
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index in pool:
        members[digests[index]].append(index)
    sizes = Counter(labels[index] for index in pool)
    drawable: defaultdict[int, list[str]] = defaultdict(list)
    for digest, indices in members.items():
        if digest not in held and len({labels[index] for index in indices}) == 1:
            drawable[labels[indices[0]]].append(digest)
    for label, group in drawable.items():
        if sizes[label] >= FEWEST:
            wanted = {
                split: max(1, (share * sizes[label] + 50) // 100)
                for split, share in PERCENT.items()
                if split in missing
            }
            for digest, split in _draw(sorted(group, key=lambda digest: _turn(seed, digest)), members, wanted).items():
                for index in members[digest]:
                    splits[index] = split
    return splits


def _draw(digests: Sequence[str], members: Mapping[str, Sequence[int]], wanted: Mapping[str, int]) -> dict[str, str]:
    """Fill the wanted numbers of images in turn; a group larger than the room left is passed over."""
    room, drawn = dict(wanted), {}
    for digest in digests:
        size = len(members[digest])
        split = next((split for split, left in room.items() if size <= left), None)
        if split is not None:
            room[split] -= size
            drawn[digest] = split
    return drawn


def _turn(seed: int, digest: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{digest}".encode(), digest_size=16).digest()
