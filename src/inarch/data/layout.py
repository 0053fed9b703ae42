"""Folders of class folders: which files are images of which class and split. Nothing is decoded here.

The layout of torchvision's `ImageFolder`, with splits above it or not, and class folders at any depth.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inarch.data.images import NOT_AN_IMAGE, looks_like_image
from inarch.data.values import SPLIT_NAMES, SPLITS, Candidate, Listing, SetAside, printable, some
from inarch.errors import DataError

_LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "lost+found"})

Parts = tuple[str, ...]


@dataclass
class _Tree:
    """Every folder by its path below the root, with its files; and what could not be followed."""

    folders: dict[Parts, list[Path]] = field(default_factory=dict)
    set_aside: list[SetAside] = field(default_factory=list)

    def leave(self, parts: Parts, reason: str) -> None:
        self.set_aside.append(SetAside(_name(parts), reason))


def list_folder(root: Path) -> Listing:
    """What a folder of class folders names, with or without train, validation and test folders above them.

    Raises `DataError` if the root cannot be read or its folders cannot be meant as classes.
    """
    tree = _walk(root)
    tops = sorted({parts[0] for parts in tree.folders if parts})
    given = _split_folders(root, tree, tops)
    read = {parts: files for parts, files in tree.folders.items() if not (given and parts) or parts[0] in given}
    candidates: list[Candidate] = []
    classes: set[str] = set()
    holders: set[Parts] = set()
    parents = {parts[:-1] for parts in tree.folders}
    for parts, files in sorted(read.items()):
        names = parts[1:] if given else parts
        images = [file for file in files if looks_like_image(file)]
        if not names:
            for file in images:
                tree.leave((*parts, file.name), "lies outside every class folder")
        elif images or parts not in parents:
            if images:
                holders.add(parts)
            elif parts[:-1] in holders:
                tree.leave(parts, "a folder without images inside a class folder")
                continue
            label = unicodedata.normalize("NFC", _name(names))
            classes.add(label)
            split = given[parts[0]] if given else None
            candidates += [Candidate(_name((*parts, file.name)), file, label, split) for file in images]
            for file in sorted(set(files) - set(images)):
                tree.leave((*parts, file.name), NOT_AN_IMAGE)
    beside = [printable(top) for top in tops if given and top not in given]
    found = Listing(
        tuple(candidates),
        tuple(sorted(classes)),
        tuple(split for split in SPLITS if split in given.values()),
        tuple(tree.set_aside),
        (
            *(f"Folder '{top}' stands beside the split folders and is not read." for top in beside),
            *_odd_classes(candidates, sorted(classes)),
        ),
    )
    _refuse_nothing(root, found)
    return found


def _name(parts: Sequence[str]) -> str:
    return printable("/".join(parts))


def _walk(root: Path) -> _Tree:
    """Every folder below the root, each once: real ones first, so that links to them are known to be second ways."""
    tree, links = _Tree(), deque[tuple[Parts, Path]]()
    waiting = deque[tuple[Parts, Path]]([((), root)])
    seen: set[tuple[int, int]] = set()
    while waiting or links:
        parts, folder = waiting.popleft() if waiting else links.popleft()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                tree.leave(parts, "a link to a folder that is read already")
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if not parts:
                raise DataError(f"The folder {root} cannot be read: {_reason(error)}.", "Allow reading it.") from None
            entries = []
            tree.leave(parts, f"folder that cannot be read: {_reason(error)}")
        files = tree.folders.setdefault(parts, [])
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _LITTER:
                continue
            _sort_entry(entry, (*parts, entry.name), tree, files, waiting, links)
    return tree


def _sort_entry(
    entry: os.DirEntry[str],
    parts: Parts,
    tree: _Tree,
    files: list[Path],
    folders: deque[tuple[Parts, Path]],
    links: deque[tuple[Parts, Path]],
) -> None:
    path = Path(entry.path)
    try:
        if entry.is_dir(follow_symlinks=False):
            folders.append((parts, path))
        elif entry.is_symlink() and not path.exists():
            path.stat()
        elif entry.is_dir():
            if path.parent.resolve().is_relative_to(path.resolve()):
                tree.leave(parts, "a link that loops back to a folder above it")
            else:
                links.append((parts, path))
        elif entry.is_file():
            files.append(path)
        else:
            tree.leave(parts, "not a regular file")
    except FileNotFoundError:
        tree.leave(parts, "a link to nothing")
    except OSError as error:
        loop = error.errno == errno.ELOOP
        tree.leave(parts, "a link that loops" if loop else _reason(error))


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _split_folders(root: Path, tree: _Tree, tops: Sequence[str]) -> Mapping[str, str]:
    """Folders of the root that stand for splits, and for which; empty if the root holds class folders.

    Classes may be called "train" (beside "bus") or "valid" (beside "invalid"), so names alone do not decide.
    """
    named = {top: SPLIT_NAMES[top.lower()] for top in tops if top.lower() in SPLIT_NAMES}
    holders = {parts[0] for parts in tree.folders if len(parts) > 1}
    only_splits = len(named) == len(tops)
    if not named or not (only_splits or any(named[top] == "train" and top in holders for top in named)):
        return {}
    for split in SPLITS:
        same = [top for top in named if named[top] == split]
        if len(same) > 1:
            raise DataError(
                f"In {root} the folders {some(same)} all stand for the {split} split.", "Join them into one folder."
            )
    if "train" not in named.values():
        raise DataError(
            f"{root} holds {some(tops)} but no folder with training images.",
            "Add a folder 'train' with one folder for each class.",
        )
    flat = [top for top in named if top not in holders and tree.folders[top,]]
    if flat:
        raise DataError(
            f"In {root} the folder {some(flat)} holds files but no class folders.",
            "Put the images of each class into a folder of its own, or give a CSV manifest.",
        )
    return named


def _odd_classes(candidates: Sequence[Candidate], classes: Sequence[str]) -> list[str]:
    """Warnings about classes that may not be meant as such."""
    filled = {candidate.label for candidate in candidates}
    odd = []
    for name in classes:
        below = [other for other in classes if other.startswith(f"{name}/")]
        if name in filled and below:
            odd.append(f"Folder '{name}' holds images and folders: it is a class of its own beside {some(below)}.")
    split_like = [name for name in classes if {part.lower() for part in name.split("/")} & SPLIT_NAMES.keys()]
    if split_like:
        odd.append(f"Class {some(split_like)} is called like a split, but is read as a class.")
    return odd


def _refuse_nothing(root: Path, found: Listing) -> None:
    """Errors that say what a data set looks like, where none was found."""
    form = "one folder for each class with its images in it, or a CSV or Parquet manifest"
    if not found.candidates:
        outside = [item.path for item in found.set_aside if item.reason.startswith("lies outside")]
        if outside:
            raise DataError(f"{root} holds images ({some(outside, 3)}) but no class folders.", f"Give {form}.")
        named = f" Set aside: {some([f'{item.path}: {item.reason}' for item in found.set_aside])}."
        raise DataError(f"{root} holds no images.{named if found.set_aside else ''}", f"Give {form}.")
    parts = [name.split("/") for name in found.classes]
    wrapped = all(len(names) > 2 and names[0] == parts[0][0] for names in parts)
    if wrapped and not found.splits and any(names[1].lower() in ("train", "training") for names in parts):
        raise DataError(
            f"{root} holds a single folder '{parts[0][0]}', and the split folders lie in that.",
            f"Give {root / parts[0][0]}.",
        )
