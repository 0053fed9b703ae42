"""Names of source classes: the 1000 of ImageNet-1k from timm's own tables, or lists from files."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm.data

from inarch.errors import SourceError

IMAGENET_1K = "imagenet-1k"
# WordNet has one word for both, and no second word that would tell them apart.
_CRANES = {134: "crane (bird)", 517: "crane (machine)"}


@functools.cache
def imagenet(subset: str = IMAGENET_1K) -> tuple[str, ...]:
    """The classes of ImageNet-1k, or another subset that timm knows, in the usual order (WordNet ids sorted for 1k).

    A name is the first synonym of its class, made unique.
    """
    tables: Any = timm.data
    info = tables.ImageNetInfo(subset)
    descriptions = [info.index_to_description(i) for i in range(info.num_classes())]
    return _short(descriptions, _CRANES if subset == IMAGENET_1K else {})


def _short(descriptions: Sequence[str], given: dict[int, str]) -> tuple[str, ...]:
    firsts = [given.get(i, description.split(", ")[0]) for i, description in enumerate(descriptions)]
    count = Counter(firsts)
    names: list[str] = []
    for first, description in zip(firsts, descriptions, strict=True):
        second = description.split(", ")[1:2]
        names.append(f"{first} ({second[0]})" if count[first] > 1 and second else first)
    return numbered(names)


def numbered(names: Sequence[str]) -> tuple[str, ...]:
    """The names, made unique: the second and further of the same name with a number."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(result)


def plain(count: int) -> tuple[str, ...]:
    """Names for classes that nobody named."""
    return tuple(f"class {i}" for i in range(count))


def read_classes(value: object, folder: Path, where: str) -> tuple[str, ...]:
    """Class names from a card: `imagenet-1k`, a list of names, or a JSON or text file (one name a line) in `folder`.

    Raises SourceError that names the card (`where`) and what is wrong.
    """
    if value == IMAGENET_1K:
        return imagenet()
    if isinstance(value, str):
        path = folder / value
        try:
            text = path.read_text(encoding="utf-8")
            value = json.loads(text) if path.suffix == ".json" else text.splitlines()
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{where}: the class names '{path.name}' cannot be read: {error}.",
                f"Give '{IMAGENET_1K}', a list of names, or a JSON or text file beside the card.",
            ) from error
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name for name in value):
        raise SourceError(
            f"{where}: 'classes' is not a list of names.", f"Give '{IMAGENET_1K}' or the names in the network's order."
        )
    repeated = [name for name, times in Counter(value).items() if times > 1]
    if repeated:
        raise SourceError(
            f"{where}: the class name '{repeated[0]}' stands twice in 'classes'.", "Make the names unique."
        )
    return tuple(value)
