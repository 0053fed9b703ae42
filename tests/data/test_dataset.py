"""A data set is what its content says, whatever its files are called and wherever they lie."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pytest
from PIL import Image

from inarch.data import SPLITS, DataSet, Pixels, PixelSize, open_dataset, pixel_digest, read_image, resize_to_cover
from inarch.data.pixels import ImageFile
from inarch.errors import DataError, UsageError

from .conftest import Folder, Picture


def by_digest(dataset: DataSet) -> dict[str, tuple[str, str]]:
    return {item.digest: (split, dataset.classes[item.label]) for split in SPLITS for item in dataset.split(split)}


def test_every_image_is_in_one_split_with_its_class_and_digest(two_classes: Path) -> None:
    dataset = open_dataset(two_classes)
    assert dataset.classes == ("apple", "pear")
    assert dataset.made == ("validation", "test")
    assert [len(dataset.split(name)) for name in SPLITS] == [12, 4, 4]
    items = [item for name in SPLITS for item in dataset.split(name)]
    assert len({item.path for item in items}) == 20
    assert sorted(item.row for item in items) == list(range(20))
    for item in items:
        assert item.path.startswith(dataset.classes[item.label] + "/")
        assert item.digest == pixel_digest(read_image(two_classes / item.path))
        assert dataset.row_digests()[item.row] == item.digest
    np.testing.assert_array_equal(dataset.counts("train"), [6, 6])
    np.testing.assert_array_equal(dataset.labels("test"), [item.label for item in dataset.test])
    np.testing.assert_array_equal(dataset.rows("test"), [item.row for item in dataset.test])
    with pytest.raises(UsageError, match=r"no split 'val'.*train, validation, test"):
        dataset.split("val")


def test_digest_splits_and_order_come_from_content_alone(two_classes: Path, tmp_path: Path) -> None:
    first = open_dataset(two_classes)
    moved = tmp_path / "moved"
    for number, file in enumerate(sorted(two_classes.rglob("*.png"), reverse=True)):
        target = moved / file.parent.name / f"{number:03}.bmp"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).save(target)
    second = open_dataset(moved)
    assert second.digest == first.digest
    assert by_digest(second) == by_digest(first)
    assert [item.digest for item in second.train] == [item.digest for item in first.train]


def test_digest_changes_with_a_pixel_a_label_a_class_name_and_a_split(two_classes: Path, tmp_path: Path) -> None:
    digests = {open_dataset(two_classes).digest, open_dataset(two_classes, seed=1).digest}
    assert len(digests) == 2
    image = read_image(two_classes / "apple/0.png").copy()
    image[0, 0, 0] ^= 1
    Image.fromarray(image).save(two_classes / "apple/0.png")
    digests.add(open_dataset(two_classes).digest)
    (two_classes / "apple/0.png").rename(two_classes / "pear/10.png")
    digests.add(open_dataset(two_classes).digest)
    (two_classes / "apple").rename(two_classes / "plum")
    digests.add(open_dataset(two_classes).digest)
    assert len(digests) == 5


def test_pixels_of_another_shape_have_another_digest(picture: Picture) -> None:
    image = picture(1)
    assert pixel_digest(image) != pixel_digest(image.reshape(image.shape[1], image.shape[0], 3))


def test_bad_files_are_set_aside_by_name_and_reason_and_the_rest_is_used(two_classes: Path, folder: Folder) -> None:
    whole = open_dataset(two_classes)
    folder({"apple/empty.jpg": "", "apple/text.png": "words", "pear/notes.txt": "words"})
    Image.new("RGB", (40, 40)).save(two_classes / "pear/large.png")
    (two_classes / "apple/folder.png").mkdir()
    dataset = open_dataset(two_classes, max_pixels=1000)
    assert [(item.path, item.reason) for item in dataset.set_aside] == [
        ("apple/empty.jpg", "empty file"),
        ("apple/folder.png", "a folder without images inside a class folder"),
        ("apple/text.png", "not an image that Pillow reads"),
        ("pear/large.png", "40 x 40 is more than 1000 pixels"),
        ("pear/notes.txt", "not an image that Pillow reads"),
    ]
    assert dataset.digest == whole.digest


def test_duplicates_are_kept_together_and_reported(two_classes: Path) -> None:
    for number in range(10):
        shutil.copy(two_classes / f"apple/{number}.png", two_classes / f"apple/copy {number}.png")
    dataset = open_dataset(two_classes)
    assert len(dataset.duplicates) == 10
    assert not any(group.across or group.conflicting for group in dataset.duplicates)
    assert not dataset.warnings
    assert dataset.duplicates[0].paths == ("apple/0.png", "apple/copy 0.png")


def test_duplicates_across_the_users_splits_and_of_two_labels_are_warned_of(folder: Folder) -> None:
    files: dict[str, int | str] = {f"{s}/{c}/{n}.png": 100 * i + 10 * j + n
                                   for i, s in enumerate(("train", "val", "test"))
                                   for j, c in enumerate("ab") for n in range(3)}  # fmt: skip
    dataset = open_dataset(folder({**files, "test/a/copy.png": 0, "train/b/copy.png": 1}))
    across, conflicting = dataset.duplicates
    assert across.paths == ("test/a/copy.png", "train/a/0.png")
    assert across.splits == ("test", "train")
    assert (across.across, across.conflicting) == (True, False)
    assert conflicting.labels == ("a", "b")
    assert (conflicting.across, conflicting.conflicting) == (False, True)
    assert dataset.warnings == (
        "1 picture stands in more than one split, for instance 'test/a/copy.png' and 'train/a/0.png'.",
        "1 picture stands in more than one class, for instance 'train/a/1.png' and 'train/b/copy.png'.",
    )


def test_a_made_validation_split_shares_no_picture_with_the_users_test(folder: Folder) -> None:
    train: dict[str, int | str] = {f"train/{c}/{n}.png": 100 * j + n for j, c in enumerate("ab") for n in range(20)}
    shared: dict[str, int | str] = {f"test/{c}/{n}.png": 100 * j + n for j, c in enumerate("ab") for n in range(12)}
    root = folder({**train, **shared})
    for seed in range(5):
        dataset = open_dataset(root, seed=seed)
        assert dataset.made == ("validation",)
        assert [len(dataset.split(name)) for name in SPLITS] == [34, 6, 24]
        assert not {item.digest for item in dataset.validation} & {item.digest for item in dataset.test}


def test_a_class_missing_from_a_split_is_warned_of(folder: Folder) -> None:
    files: dict[str, int | str] = {f"train/{c}/{n}.png": 10 * j + n for j, c in enumerate("abc") for n in range(3)}
    dataset = open_dataset(folder({**files, "val/a/1.png": 50, "test/a/1.png": 51, "test/b/1.png": 52}))
    assert dataset.missing("validation") == ("b", "c")
    assert dataset.warnings[0].startswith("The validation split lacks 2 of 3 classes: 'b', 'c'.")
    assert dataset.warnings[1].startswith("The test split lacks 1 of 3 classes: 'c'.")


def test_a_split_without_a_usable_image_is_made_and_warned_of(folder: Folder) -> None:
    files: dict[str, int | str] = {f"train/{c}/{n}.png": 10 * j + n for j, c in enumerate("ab") for n in range(5)}
    dataset = open_dataset(folder({**files, "val/a/1.png": "", "test/a/1.png": 50, "test/b/1.png": 51}))
    assert dataset.made == ("validation",)
    assert "validation split held no usable image" in dataset.warnings[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/1.png": 1}, "has one class only: 'a'"),
        (
            {"a/1.png": "", "b/1.jpg": "x"},
            "Of 2 files in .* none can be used: 'a/1.png: empty file', 'b/1.jpg: not an image that",
        ),
        ({"a/1.png": 1, "b/1.png": ""}, "1 of 2 classes has no usable training image: 'b'.*'b/1.png: empty file'"),
        ({"train/a/1.png": 1, "train/b/1.png": 2, "test/c/1.png": 3}, "1 of 3 classes .* training image: 'c'"),
        ({"a/1.png": 1, "b/1.png": 2}, "too few different images to make a validation and a test split"),
        ({f"{c}/{n}.png": ord(c) for c in "ab" for n in range(9)}, "too few different images"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(files: dict[str, int | str], message: str, folder: Folder) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(folder(files))


def test_an_empty_class_folder_is_refused_by_name(two_classes: Path) -> None:
    (two_classes / "plum").mkdir()
    with pytest.raises(DataError, match=r"1 of 3 classes has no usable training image: 'plum'.*remove the class"):
        open_dataset(two_classes)


def test_a_root_that_cannot_even_be_looked_for_is_refused(tmp_path: Path) -> None:
    # So does a folder above it that may not be entered, which tests that run as root cannot make; from Python 3.14 on
    # both are as if they were not there.
    with pytest.raises(DataError, match=r"cannot be read: .*too long|There is no folder"):
        open_dataset(tmp_path / ("x" * 300) / "images")


def test_roots_that_are_no_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no folder or manifest .*nowhere"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no images"):
        open_dataset(tmp_path)
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(DataError, match=r"notes.txt is neither a folder nor a manifest"):
        open_dataset(tmp_path / "notes.txt")
    with pytest.raises(UsageError, match="At most 0 pixels"):
        open_dataset(tmp_path, max_pixels=0)


def test_progress_counts_every_file(two_classes: Path) -> None:
    (two_classes / "apple/0.png").write_text("words")
    steps: list[tuple[int, int]] = []
    open_dataset(two_classes, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(number, 20) for number in range(1, 21)]


def test_kept_pixels_are_the_resized_images_in_memory_and_in_a_file(two_classes: Path, tmp_path: Path) -> None:
    place = tmp_path / "kept"
    place.mkdir()
    kept = [
        open_dataset(two_classes, keep=PixelSize(8, 6, "bicubic", budget=budget, folder=place))
        for budget in (10**6, 1000)
    ]
    assert [dataset.pixels is not None and dataset.pixels.on_disk for dataset in kept] == [False, True]
    assert not list(place.iterdir()), "a killed process would leave this behind"
    for dataset in kept:
        assert dataset.pixels is not None
        assert len(dataset.pixels) == 20
        for item in (*dataset.train, *dataset.validation, *dataset.test):
            expected = resize_to_cover(read_image(two_classes / item.path), 8, 6, "bicubic")
            np.testing.assert_array_equal(dataset.pixels[item.row], expected)
        dataset.pixels.close()
    assert kept[0].digest == kept[1].digest == open_dataset(two_classes).digest


def test_images_in_a_file_are_whole_whoever_reads_them_at_the_same_time(picture: Picture) -> None:
    images = [picture(n, 40 + n, 60) for n in range(30)]
    with TemporaryFile() as file:
        file.write(b"".join(image.tobytes() for image in images))
        file.flush()
        pixels = Pixels(ImageFile(file, [image.shape for image in images]))
    for kept in (pixels, Pixels(images)):
        assert [kept.size(row) for row in range(30)] == [(40 + n, 60) for n in range(30)]
        assert kept.bytes == sum(image.nbytes for image in images)
    with pixels, ThreadPoolExecutor(4) as pool:
        rows = np.random.default_rng(0).integers(0, 30, 400).tolist()
        for row, image in zip(rows, pool.map(pixels.__getitem__, rows), strict=True):
            np.testing.assert_array_equal(image, images[row])


def test_images_in_a_file_give_the_file_back_with_the_last_reference(picture: Picture) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with TemporaryFile() as file:
        pixels = Pixels(ImageFile(file, [(1, 1, 3)]))
        assert len(set(os.listdir("/proc/self/fd")) - before) == 2
    with pytest.raises(DataError, match="shorter than it was"):
        pixels[0]
    del pixels
    assert not set(os.listdir("/proc/self/fd")) - before


def test_no_file_is_decoded_twice(two_classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def count(file: Path, max_pixels: int) -> object:
        read.append(file)
        return read_image(file, max_pixels)

    monkeypatch.setattr("inarch.data.dataset.read_image", count)
    open_dataset(two_classes, keep=PixelSize(8, 8))
    assert sorted(read) == sorted(two_classes.rglob("*.png"))


def test_a_full_disk_is_named(two_classes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be kept in .*gone: No such file.*choose another folder"):
        open_dataset(two_classes, keep=PixelSize(8, 8, budget=0, folder=tmp_path / "gone"))
    if Path("/dev/full").exists():
        with pytest.MonkeyPatch.context() as patch, Path("/dev/full").open("r+b", buffering=0) as full:
            patch.setattr("tempfile.TemporaryFile", lambda dir: full)
            with pytest.raises(DataError, match="No space left on device"):
                open_dataset(two_classes, keep=PixelSize(8, 8, budget=0))


def test_sizes_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(UsageError, match="0 x 8 pixels cannot be kept"):
        PixelSize(0, 8)
    with pytest.raises(UsageError, match="no interpolation 'cubic'"):
        PixelSize(8, 8, "cubic")
