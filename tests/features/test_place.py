"""Where the store lies, and how much it may take."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from inarch.errors import UsageError
from inarch.features import place
from inarch.features.place import GIB, bytes_of, default_limit, readable, store_folder


def test_the_store_lies_where_the_user_says_else_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_folder(tmp_path / "mine") == tmp_path / "mine"
    monkeypatch.setenv("INARCH_CACHE", str(tmp_path / "cache"))
    assert store_folder() == tmp_path / "cache" / "store"


def test_no_test_and_no_child_of_one_sees_the_cache_of_the_user() -> None:
    assert not store_folder().is_relative_to(Path.home() / ".cache")
    with multiprocessing.get_context("forkserver").Pool(1) as children:
        assert children.apply(store_folder) == store_folder()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("200MB", 200_000_000),
        ("4GB", 4_000_000_000),
        ("512MiB", 512 << 20),
        ("1.5GiB", 3 * GIB // 2),
        ("10 kB", 10_000),
        ("0", 0),
        ("8B", 8),
    ],
)
def test_sizes_are_read_in_decimal_and_binary_units(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "much", "200 apples", "-1GB", "GB", "1e9", "iB", "9" * 400])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a size\. Try 200MB, 4GB"):
        bytes_of(text)


@pytest.mark.parametrize("text", ["4", "1.5", " 200 "])
def test_a_number_without_a_unit_is_refused_but_for_zero(text: str) -> None:
    with pytest.raises(
        UsageError, match=rf"{text.strip()} has no unit\. Try {text.strip()}GB, or {text.strip()}B for bytes\."
    ):
        bytes_of(text)


def test_sizes_are_written_as_they_can_be_given() -> None:
    assert [readable(size) for size in (0, 999, 1000, 200_000_000, 4_096_000_000, 5 * 10**12)] == [
        "0 B", "999 B", "1.0 kB", "200.0 MB", "4.1 GB", "5000.0 GB",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("free", "memory", "limit"),
    [
        (74 * GIB, 23 * GIB, 8 * GIB),
        (1000 * GIB, 1000 * GIB, 8 * GIB),
        (74 * GIB, 12 * GIB, 4 * GIB),
        (10 * GIB, 64 * GIB, 2 * GIB),
        (0, 64 * GIB, GIB // 2),
    ],
)
def test_the_default_limit_is_a_power_of_two_within_disk_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, memory: int, limit: int
) -> None:
    monkeypatch.setattr(place, "free_space", lambda folder: free)
    monkeypatch.setattr(place, "all_memory", lambda: memory)
    assert default_limit(tmp_path / "store") == limit


def test_the_default_limit_is_remembered_when_the_disk_has_filled_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "all_memory", lambda: 64 * GIB)
    monkeypatch.setattr(place, "free_space", lambda folder: 64 * GIB)
    first = default_limit(tmp_path / "store")
    monkeypatch.setattr(place, "free_space", lambda folder: 3 * GIB)
    assert default_limit(tmp_path / "store") == first == 8 * GIB
    assert default_limit(tmp_path / "other") == GIB // 2


def test_the_disk_of_a_folder_that_cannot_even_be_looked_for_is_that_of_the_one_above(tmp_path: Path) -> None:
    assert place.free_space(tmp_path / ("x" * 300) / "store") > 0
