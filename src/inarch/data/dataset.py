"""From a folder or a manifest to a data set: list, decode every file once, split, check, in that order."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inarch.data.images import MAX_PIXELS, quiet_pillow, read_image, resize_to_cover
from inarch.data.layout import list_folder
from inarch.data.manifest import MANIFEST_SUFFIXES, list_manifest
from inarch.data.pixels import Pixels, PixelSize, PixelWriter
from inarch.data.splits import FEWEST, assign_splits
from inarch.data.values import SPLITS, Candidate, DataSet, Duplicate, Item, Listing, SetAside, some
from inarch.errors import DataError, UsageError
from inarch.plural import counted

Progress = Callable[[int, int], None]

_MOST_WORKERS = 8


@dataclass(frozen=True)
class _Image:
    """A usable image: what was said about it, and the digest of its pixels."""

    candidate: Candidate
    digest: str
    row: int


def open_dataset(
    root: Path,
    *,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    keep: PixelSize | None = None,
    progress: Progress | None = None,
) -> DataSet:
    """Read a folder of class folders, or a CSV or Parquet manifest; make the splits that are missing.

    Every file is decoded once. `seed` decides (with the pixels) the splits that are made; files of more than
    `max_pixels` pixels are set aside; with `keep` the images are kept, resized to cover that size (without, `pixels` is
    None); `progress` is called with the number of files done and of all files.

    Files that cannot be used are set aside and never an error. Raises `DataError` if the root cannot be read, holds no
    usable image or a single class, or if a class has no usable training image.
    """
    if max_pixels < 1:
        raise UsageError(f"At most {max_pixels} pixels leaves no image.", "Give a number of pixels of 1 or more.")
    try:
        listing = _list(root)
    except OSError as error:  # a folder above it that may not be entered, a name that is too long
        problem = f"{root} cannot be read: {error.strerror or error}."
        raise DataError(problem, "Check the path and its permissions.") from error
    if len(listing.classes) < 2:
        raise DataError(
            f"{root} has one class only: {some(listing.classes)}.",
            "A classifier needs two classes or more: add another.",
        )
    images, bad, pixels = _read_all(listing.candidates, max_pixels, keep, progress)
    try:
        if not images:
            reasons = some([f"{item.path}: {item.reason}" for item in bad], 3)
            raise DataError(
                f"Of {counted(len(bad), 'file')} in {root} none can be used: {reasons}.",
                "Give images that Pillow reads.",
            )
        return _assemble(root, listing, images, bad, pixels, seed)
    except BaseException:
        if pixels is not None:
            pixels.close()
        raise


def _list(root: Path) -> Listing:
    if root.is_dir():
        return list_folder(root)
    if not root.exists():
        raise DataError(f"There is no folder or manifest {root}.", "Check the spelling and where it is mounted.")
    if root.suffix.lower() not in MANIFEST_SUFFIXES:
        raise DataError(
            f"{root} is neither a folder nor a manifest.",
            f"Give a folder of class folders, or a manifest ending in {', '.join(MANIFEST_SUFFIXES)}.",
        )
    return list_manifest(root)


def _read_all(
    candidates: Sequence[Candidate], max_pixels: int, keep: PixelSize | None, progress: Progress | None
) -> tuple[list[_Image], list[SetAside], Pixels | None]:
    """Decode all files in parallel; the result is in the order of the paths, whatever the order of listing was."""
    ordered = sorted(candidates, key=lambda candidate: (candidate.path, candidate.label, candidate.split or ""))
    images: list[_Image] = []
    bad: list[SetAside] = []
    writer = PixelWriter(keep) if keep else None
    try:
        for number, (candidate, result) in enumerate(_decoded(ordered, max_pixels, keep), start=1):
            if isinstance(result, DataError):
                bad.append(SetAside(candidate.path, result.problem))
            else:
                digest, image = result
                images.append(_Image(candidate, digest, len(images)))
                if writer and image is not None:
                    writer.add(image)
            if progress:
                progress(number, len(ordered))
    except BaseException:
        if writer:
            writer.discard()
        raise
    return images, bad, writer.finish() if writer else None


_Decoded = tuple[str, NDArray[np.uint8] | None] | DataError


def _decoded(
    candidates: Sequence[Candidate], max_pixels: int, keep: PixelSize | None
) -> Iterator[tuple[Candidate, _Decoded]]:
    """Results in order, with a bounded number of images in flight."""

    def decode(candidate: Candidate) -> _Decoded:
        try:
            image = read_image(candidate.file, max_pixels)
        except DataError as error:
            return error
        digest = pixel_digest(image)
        return digest, resize_to_cover(image, keep.height, keep.width, keep.interpolation) if keep else None

    workers = min(_MOST_WORKERS, os.cpu_count() or 1)
    waiting: deque[tuple[Candidate, Future[_Decoded]]] = deque()
    with quiet_pillow(max_pixels), ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for candidate in candidates:
                waiting.append((candidate, pool.submit(decode, candidate)))
                if len(waiting) >= 4 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def pixel_digest(image: NDArray[np.uint8]) -> str:
    """BLAKE2b (16 bytes, hexadecimal) of shape and pixels of uint8 [height, width, 3]."""
    state = hashlib.blake2b(np.array(image.shape, dtype="<i8").tobytes(), digest_size=16)
    state.update(np.ascontiguousarray(image).data)
    return state.hexdigest()


def _assemble(
    root: Path, listing: Listing, images: Sequence[_Image], bad: Sequence[SetAside], pixels: Pixels | None, seed: int
) -> DataSet:
    classes = listing.classes
    index = {name: number for number, name in enumerate(classes)}
    labels = [index[image.candidate.label] for image in images]
    usable = {image.candidate.split or "train" for image in images}
    missing = tuple(name for name in SPLITS[1:] if name not in usable)
    splits = assign_splits(
        [image.digest for image in images], labels, [image.candidate.split for image in images], missing, seed
    )
    set_aside = tuple(sorted([*listing.set_aside, *bad], key=lambda item: item.path))
    _refuse_classes_without_training(
        root, classes, {n for n, s in zip(labels, splits, strict=True) if s == "train"}, bad
    )
    _refuse_empty_splits(root, missing, splits)
    items = sorted(
        (image.digest, label, image.candidate.path, image.row, split)
        for image, label, split in zip(images, labels, splits, strict=True)
    )
    by_split = {
        name: tuple(Item(path, label, digest, row) for digest, label, path, row, split in items if split == name)
        for name in SPLITS
    }
    duplicates = _duplicates(by_split, classes)
    dataset = DataSet(
        classes=classes,
        train=by_split["train"],
        validation=by_split["validation"],
        test=by_split["test"],
        made=missing,
        set_aside=set_aside,
        duplicates=duplicates,
        warnings=(),
        digest=_content_digest(classes, by_split),
        pixels=pixels,
    )
    emptied = [name for name in missing if name in listing.splits]
    return _with_warnings(dataset, listing.warnings, emptied)


def _with_warnings(dataset: DataSet, listed: Sequence[str], emptied: Sequence[str]) -> DataSet:
    warnings = list(listed)
    warnings += [
        f"The {name} split held no usable image, so one was made from the training images." for name in emptied
    ]
    for name in SPLITS[1:]:
        absent = dataset.missing(name)
        if absent:
            warnings.append(
                f"The {name} split lacks {len(absent)} of {len(dataset.classes)} classes: {some(absent)}. "
                "Averages over classes are over those present."
            )
    across = [group for group in dataset.duplicates if group.across]
    if across:
        shown = " and ".join(f"'{path}'" for path in across[0].paths[:2])
        warnings.append(
            f"{counted(len(across), 'picture stands', 'pictures stand')} in more than one split, for instance {shown}."
        )
    conflicting = [group for group in dataset.duplicates if group.conflicting]
    if conflicting:
        shown = " and ".join(f"'{path}'" for path in conflicting[0].paths[:2])
        warnings.append(
            f"{counted(len(conflicting), 'picture stands', 'pictures stand')} in more than one class, "
            f"for instance {shown}."
        )
    values = {name: getattr(dataset, name) for name in dataset.__dataclass_fields__}
    return DataSet(**{**values, "warnings": tuple(warnings)})


def _refuse_classes_without_training(
    root: Path, classes: Sequence[str], trained: set[int], bad: Sequence[SetAside]
) -> None:
    empty = [name for number, name in enumerate(classes) if number not in trained]
    if empty:
        reasons = f" Set aside: {some([f'{item.path}: {item.reason}' for item in bad], 3)}." if bad else ""
        raise DataError(
            f"In {root} {len(empty)} of {len(classes)} classes {'has' if len(empty) == 1 else 'have'} no usable "
            f"training image: {some(empty)}.{reasons}",
            "Add training images to each class, or remove the class.",
        )


def _refuse_empty_splits(root: Path, made: Sequence[str], splits: Sequence[str]) -> None:
    empty = [name for name in made if name not in splits]
    if empty:
        raise DataError(
            f"{root} has too few different images to make a {' and a '.join(empty)} split.",
            f"Give classes of at least {FEWEST} different images, or make the splits yourself.",
        )


def _duplicates(by_split: dict[str, tuple[Item, ...]], classes: Sequence[str]) -> tuple[Duplicate, ...]:
    groups: defaultdict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for split, items in by_split.items():
        for item in items:
            groups[item.digest].append((item.path, split, classes[item.label]))
    found = []
    for group in groups.values():
        if len(group) > 1:
            paths, splits, labels = zip(*sorted(group), strict=True)
            found.append(Duplicate(paths, splits, labels))
    return tuple(sorted(found, key=lambda group: group.paths))


def _content_digest(classes: Sequence[str], by_split: dict[str, tuple[Item, ...]]) -> str:
    content = [classes, sorted((item.digest, item.label, split) for split, items in by_split.items() for item in items)]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()
