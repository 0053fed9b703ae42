"""Folders become classes and splits; what cannot be followed is set aside and named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inarch.data.layout import list_folder
from inarch.data.values import Listing
from inarch.errors import DataError

from .conftest import Folder


def placed(listing: Listing) -> set[tuple[str, str, str | None]]:
    return {(candidate.path, candidate.label, candidate.split) for candidate in listing.candidates}


def aside(listing: Listing) -> dict[str, str]:
    return {item.path: item.reason for item in listing.set_aside}


def test_folders_are_classes_without_splits(two_classes: Path) -> None:
    listing = list_folder(two_classes)
    assert (listing.classes, listing.splits) == (("apple", "pear"), ())
    assert ("apple/3.png", "apple", None) in placed(listing)
    assert len(listing.candidates) == 20
    assert not listing.set_aside
    assert not listing.warnings


@pytest.mark.parametrize("train", ["train", "Training", "TRAIN"])
@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
@pytest.mark.parametrize("test", ["test", "Testing"])
def test_split_folders_are_known_by_all_their_names(train: str, validation: str, test: str, folder: Folder) -> None:
    root = folder({f"{split}/{name}/1.png": 1 for split in (train, validation, test) for name in "ab"})
    listing = list_folder(root)
    assert (listing.classes, listing.splits) == (("a", "b"), ("train", "validation", "test"))
    assert (f"{test}/b/1.png", "b", "test") in placed(listing)


def test_nested_folders_are_classes_called_by_their_path(folder: Folder) -> None:
    listing = list_folder(folder({"train/fruit/apple/1.png": 1, "train/fruit/pear/1.png": 2, "train/milk/1.png": 3}))
    assert listing.classes == ("fruit/apple", "fruit/pear", "milk")
    assert not listing.warnings


def test_a_folder_of_images_and_folders_is_a_class_beside_them_and_warned_of(folder: Folder) -> None:
    listing = list_folder(folder({"fruit/1.png": 1, "fruit/apple/1.png": 2, "milk/1.png": 3}))
    assert listing.classes == ("fruit", "fruit/apple", "milk")
    assert "'fruit' holds images and folders" in listing.warnings[0]


def test_hidden_files_and_litter_are_ignored(folder: Folder) -> None:
    listing = list_folder(
        folder(
            {
                "a/1.png": 1,
                "a/._1.png": "x",
                "a/.DS_Store": "x",
                "a/Thumbs.db": "x",
                "b/1.png": 2,
                ".cache/1.png": 3,
                "b/.ipynb_checkpoints/1.png": 4,
                "__MACOSX/a/1.png": 5,
            }
        )
    )
    assert [candidate.path for candidate in listing.candidates] == ["a/1.png", "b/1.png"]
    assert not listing.set_aside


def test_files_that_are_no_images_are_set_aside_where_classes_are(folder: Folder) -> None:
    listing = list_folder(folder({"a/1.png": 1, "a/labels.csv": "x", "b/1.png": 2, "b/notes": "x", "README.md": "x"}))
    assert aside(listing) == dict.fromkeys(("a/labels.csv", "b/notes"), "not an image that Pillow reads")


def test_images_outside_every_class_folder_are_set_aside(folder: Folder) -> None:
    listing = list_folder(folder({"a/1.png": 1, "b/1.png": 2, "stray.png": 3}))
    assert aside(listing) == {"stray.png": "lies outside every class folder"}


def test_links_are_followed_once(folder: Folder, tmp_path: Path) -> None:
    root = folder({"a/1.png": 1, "b/1.png": 2})
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (root / "a" / "1.png").rename(elsewhere / "1.png")
    (root / "a" / "2.png").symlink_to(elsewhere / "1.png")
    (root / "c").symlink_to(elsewhere)
    (root / "d").symlink_to(elsewhere)
    (root / "0b").symlink_to(root / "b")
    (elsewhere / "deep" / "1.png").symlink_to(root / "b" / "1.png")
    listing = list_folder(root)
    assert {candidate.path for candidate in listing.candidates} == {"a/2.png", "b/1.png", "c/1.png", "c/deep/1.png"}
    assert aside(listing) == dict.fromkeys(("0b", "d"), "a link to a folder that is read already")


def test_loops_and_dangling_links_are_set_aside(folder: Folder) -> None:
    root = folder({"a/1.png": 1, "b/1.png": 2})
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "here").symlink_to(".")
    (root / "b" / "gone.png").symlink_to("nowhere.png")
    (root / "b" / "self.png").symlink_to("self.png")
    listing = list_folder(root)
    assert len(listing.candidates) == 2
    assert aside(listing) == {
        "a/up": "a link that loops back to a folder above it",
        "a/here": "a link that loops back to a folder above it",
        "b/gone.png": "a link to nothing",
        "b/self.png": "a link that loops",
    }


def test_pipes_are_set_aside(folder: Folder) -> None:
    root = folder({"a/1.png": 1, "b/1.png": 2})
    os.mkfifo(root / "a" / "pipe.png")
    assert aside(list_folder(root)) == {"a/pipe.png": "not a regular file"}


def test_a_folder_that_may_not_be_read_is_set_aside(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not bind the superuser, so the refusal of the system is played.
    root, scandir = folder({"a/1.png": 1, "b/1.png": 2}), os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused = "b"
    listing = list_folder(root)
    assert aside(listing) == {"b": "folder that cannot be read: permission denied"}
    assert listing.classes == ("a", "b")
    refused = root.name
    with pytest.raises(DataError, match="cannot be read: permission denied"):
        list_folder(root)


def test_odd_names_survive(folder: Folder) -> None:
    names = ["café [bold]", "日本", "with, comma", "a\nb"]
    root = folder({f"{name}/🍎 1.png": number for number, name in enumerate(names)})
    bad = os.fsdecode(b"\xff.png")
    (root / "日本" / "🍎 1.png").rename(root / "日本" / bad)
    listing = list_folder(root)
    assert set(listing.classes) == set(names)
    paths = {candidate.path for candidate in listing.candidates}
    assert "日本/\\xff.png" in paths
    assert all(path.encode() for path in paths)


def test_a_class_written_in_two_unicode_forms_is_one_class(folder: Folder) -> None:
    listing = list_folder(folder({"train/caf\u00e9/1.png": 1, "train/b/1.png": 2, "test/cafe\u0301/1.png": 3}))
    assert listing.classes == ("b", "caf\u00e9")


def test_an_empty_folder_is_a_class_that_lacks_images(folder: Folder) -> None:
    root = folder({"a/1.png": 1, "b/1.png": 2})
    (root / "c").mkdir()
    assert list_folder(root).classes == ("a", "b", "c")


def test_a_class_may_be_called_like_a_split(folder: Folder) -> None:
    listing = list_folder(folder({"train/1.png": 1, "bus/1.png": 2}))
    assert (listing.classes, listing.splits) == (("bus", "train"), ())
    assert "'train' is called like a split" in listing.warnings[0]


def test_valid_and_invalid_are_classes_where_nothing_is_called_train(folder: Folder) -> None:
    assert list_folder(folder({"valid/1.png": 1, "invalid/1.png": 2})).classes == ("invalid", "valid")


def test_a_folder_beside_the_splits_is_not_read_and_warned_of(folder: Folder) -> None:
    listing = list_folder(folder({"train/a/1.png": 1, "train/b/1.png": 2, "raw/x/1.png": 3}))
    assert listing.classes == ("a", "b")
    assert "'raw' stands beside the split folders" in listing.warnings[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.txt": "x"}, "holds no images"),
        ({"1.png": 1}, r"holds images \('1.png'\) but no class folders"),
        ({"val/a/1.png": 1, "test/a/1.png": 1}, "no folder with training images"),
        ({"train/a/1.png": 1, "training/a/1.png": 1}, "'train', 'training' all stand for the train split"),
        ({"train/1.png": 1, "test/1.png": 1}, "'test', 'train' holds files but no class folders"),
        ({"set/train/a/1.png": 1, "set/test/a/1.png": 1}, r"single folder 'set'.*Give .*data/set"),
    ],
)
def test_folders_that_cannot_be_meant_are_refused(files: dict[str, int | str], message: str, folder: Folder) -> None:
    with pytest.raises(DataError, match=message):
        list_folder(folder(files))
