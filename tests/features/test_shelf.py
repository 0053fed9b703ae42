"""The folder of segments: room for new ones, what is removed, what people see."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from inarch.features import shelf as shelf_module
from inarch.features.shelf import Manifest, Shelf

SIZE = 1000
# Names as addresses make them: of the pass, a hyphen, of the prefix.
NEW, MIDDLE, OLD, NEVER, DEAD, ALIVE = (f"{letter * 24}-{'1' * 24}" for letter in "abcdef")
DEAD_TOO = f"{'e' * 24}-{'2' * 24}"


def put(shelf: Shelf, name: str, *, used: float = 0.0) -> None:
    """A segment of `SIZE` bytes that was used so many seconds ago."""
    writer = shelf.writer(name)
    writer.add(memoryview(bytes(SIZE)))
    about = {"source": "toy", "stage": "conv1", "split": "train", "view": 3}
    writer.finish(Manifest((SIZE,), SIZE, "uint8", "uint8", False, 1, 64, tuple(writer.checksums), about))
    stamp = time.time() - used
    os.utime(shelf.folder / f"{name}.json", (stamp, stamp))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(tmp_path / "store")
    for age, name in enumerate((NEW, MIDDLE, OLD)):
        put(made, name, used=100.0 * age)
    return made


def disk(patch: pytest.MonkeyPatch, shelf: Shelf, size: int, total: int = 1 << 40) -> None:
    """A disk of so many bytes that holds nothing but the store."""
    patch.setattr(shelf_module, "MOST_TOTAL", total)
    patch.setattr(shelf_module, "free_space", lambda folder: size - sum(entry.size for entry in shelf.entries()))


def test_a_manifest_comes_back_as_it_was_written(shelf: Shelf) -> None:
    found = shelf.manifest(NEW)
    assert found is not None
    assert (found.row, found.images, found.size, found.about["stage"]) == ((SIZE,), 1, SIZE, "conv1")
    assert shelf.manifest(NEVER) is None


def test_entries_are_listed_most_recently_used_first_and_use_counts(shelf: Shelf) -> None:
    assert [entry.name for entry in shelf.entries()] == [NEW, MIDDLE, OLD]
    shelf.touch(OLD)
    assert [entry.name for entry in shelf.entries()] == [OLD, NEW, MIDDLE]


def test_with_room_nothing_is_removed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, shelf, 16 * SIZE)
    assert shelf.make_room(SIZE, lambda name: False, reserve=0)
    assert len(shelf.entries()) == 3


@pytest.mark.parametrize("limit", ["the share of the disk", "the most of all", "what must stay free"])
def test_the_least_recently_used_make_room_and_no_more_than_needed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    if limit == "the share of the disk":
        disk(monkeypatch, shelf, 4 * 3 * SIZE)
        assert shelf.make_room(2 * SIZE, lambda name: False, reserve=0)
    elif limit == "the most of all":
        disk(monkeypatch, shelf, 1 << 40, total=3 * SIZE)
        assert shelf.make_room(2 * SIZE, lambda name: False, reserve=0)
    else:
        disk(monkeypatch, shelf, 16 * SIZE)
        assert shelf.make_room(SIZE, lambda name: False, reserve=14 * SIZE)
    assert [entry.name for entry in shelf.entries()] == [NEW]


def test_what_this_process_reads_is_not_removed_and_too_little_room_is_said(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, shelf, 1 << 40, total=2 * SIZE)
    assert shelf.make_room(0, lambda name: name in (OLD, MIDDLE), reserve=0)
    assert [entry.name for entry in shelf.entries()] == [MIDDLE, OLD]
    assert not shelf.make_room(SIZE, lambda name: name in (OLD, MIDDLE), reserve=0)


@pytest.mark.parametrize("reserve", [0, 1 << 30])
def test_where_all_that_could_go_is_not_enough_nothing_is_removed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, reserve: int
) -> None:
    disk(monkeypatch, shelf, 16 * SIZE)
    assert not shelf.make_room(SIZE if reserve else 5 * SIZE, lambda name: False, reserve=reserve)
    assert len(shelf.entries()) == 3


def test_what_one_study_may_take_is_always_allowed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, shelf, 1 << 40, total=SIZE)
    generous = Shelf(shelf.folder, limit=4 * SIZE)
    assert generous.make_room(SIZE, lambda name: False, reserve=0)
    assert len(shelf.entries()) == 3


def test_leftovers_of_killed_processes_go_when_they_are_old_and_nobody_is_at_work(shelf: Shelf) -> None:
    leftovers = [shelf.folder / name for name in (f".{DEAD}.rows.part", f".{DEAD}.json.part", f"{DEAD_TOO}.rows")]
    for file in leftovers:
        file.write_bytes(b"half")
    shelf.make_room(0, lambda name: False, reserve=0)
    assert all(file.exists() for file in leftovers), "they may belong to a process at work"
    for file in leftovers:
        os.utime(file, (0, 0))
    with shelf.locked(DEAD.partition("-")[0], lambda: None):
        shelf.make_room(0, lambda name: False, reserve=0)
        assert all(file.exists() for file in leftovers)
    shelf.make_room(0, lambda name: False, reserve=0)
    assert not any(file.exists() for file in leftovers)
    assert len(shelf.entries()) == 3


def test_a_leftover_that_vanishes_meanwhile_keeps_no_other(shelf: Shelf) -> None:
    vanishing = shelf.folder / f".{ALIVE}.rows.part"
    vanishing.symlink_to(shelf.folder / "gone")  # it is listed, and asking for its age says that it is not there
    leftovers = [shelf.folder / f".{letter * 24}-{'3' * 24}.rows.part" for letter in "0123456789"]
    for file in leftovers:
        file.write_bytes(b"half")
    shelf.clear()
    assert not any(file.exists() for file in leftovers)


def test_clear_removes_segments_and_leftovers_but_not_what_is_being_written(shelf: Shelf) -> None:
    (shelf.folder / f".{DEAD}.rows.part").write_bytes(b"half")
    (shelf.folder / f"{DEAD_TOO}.json").write_text("a manifest whose rows were lost")
    (shelf.folder / f".{ALIVE}.rows.part").write_bytes(b"half")
    (shelf.folder / "default-limit").write_text("1")
    with shelf.locked(ALIVE.partition("-")[0], lambda: None):
        assert shelf.clear() == (3, 3 * SIZE)
    left = {file.name for file in shelf.folder.iterdir() if file.is_file()}
    assert left == {f".{ALIVE}.rows.part", "default-limit"}


def test_a_folder_that_holds_other_files_too_keeps_them(shelf: Shelf) -> None:
    others = [
        shelf.folder / name for name in ("film.mkv.part", ".draft.part", "table.rows", "notes.json", "notes.rows")
    ]
    for file in others:
        file.write_text("dear to somebody")
        os.utime(file, (0, 0))
    shelf.make_room(0, lambda name: False, reserve=0)
    assert shelf.clear() == (3, 3 * SIZE)
    assert sorted(file for file in shelf.folder.iterdir() if file.is_file()) == sorted(others)


def test_rows_that_get_their_manifest_meanwhile_are_no_leftover(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    (shelf.folder / f"{DEAD}.rows").write_bytes(bytes(SIZE))
    idle = Shelf._idle

    def finished_just_now(self: Shelf, name: str) -> object:
        put(shelf, DEAD)
        return idle(self, name)

    monkeypatch.setattr(Shelf, "_idle", finished_just_now)
    os.utime(shelf.folder / f"{DEAD}.rows", (0, 0))
    assert shelf.make_room(0, lambda name: False, reserve=0)
    assert shelf.rows(DEAD).exists()


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    nowhere = Shelf(tmp_path / "never" / "made")
    assert nowhere.entries() == []
    assert nowhere.clear() == (0, 0)
    assert not (tmp_path / "never").exists()


def test_waiting_for_another_process_can_be_ended(shelf: Shelf) -> None:
    class EnoughError(Exception):
        pass

    calls = iter(range(10))

    def tick() -> None:
        if next(calls) == 1:
            raise EnoughError

    with shelf.locked("one", lambda: None), pytest.raises(EnoughError), shelf.locked("one", tick):
        pass
