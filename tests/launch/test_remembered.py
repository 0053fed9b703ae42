"""A plan that was measured on this machine is used again, and nothing that happens to its file ends a study."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from inarch.features.plan import Plan
from inarch.launch import remembered as module
from inarch.launch.plan import Decision
from inarch.launch.remembered import FORMAT, remembered, this_processor
from inarch.results.cache import cache_folder

SUBJECT = {"processor": "abacus", "threads": 2, "input": [3, 16, 16]}
FOUND = Decision(Plan("contiguous", "bf16", "fp32"), 1.9, 1.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def once(decision: Decision = FOUND) -> Callable[[], Decision]:
    """A measurement that may be made once."""
    left = [decision]
    return lambda: left.pop()


def never() -> Decision:
    raise AssertionError("it was measured again")


def silent(text: str) -> None:
    raise AssertionError(text)


def test_what_was_measured_once_is_known_and_another_subject_is_not() -> None:
    assert remembered(SUBJECT, once(), silent) == FOUND
    other = Decision(Plan(), None, None)
    assert remembered(SUBJECT | {"threads": 1}, once(other), silent) == other
    assert remembered(dict(reversed(SUBJECT.items())), never, silent) == FOUND
    assert remembered(SUBJECT | {"threads": 1}, never, silent) == other


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: f'{{"format": {FORMAT}, "plans": []}}',
        lambda text: text.replace(f'"format": {FORMAT}', '"format": 99'),
        lambda text: text.replace("contiguous", "sideways"),
        lambda text: text.replace("1.9", '"fast"'),
        lambda text: text.replace("1.9", "-1"),
        lambda text: text.replace('"gain"', '"pain"'),
        lambda text: "\x00\xff",
    ],
)
def test_a_damaged_file_is_measured_anew_and_whole_afterwards(cache: Path, damage: Callable[[str], str]) -> None:
    remembered(SUBJECT, once(), silent)
    file = cache / "plans.json"
    damaged = damage(file.read_text())
    assert damaged != file.read_text()
    file.write_bytes(damaged.encode("latin-1"))
    second = Decision(Plan(), 1.0, 1.0)
    assert remembered(SUBJECT, once(second), silent) == second
    assert remembered(SUBJECT, never, silent) == second
    assert json.loads(file.read_text())["format"] == FORMAT


def test_a_damaged_entry_costs_no_other(cache: Path) -> None:
    remembered(SUBJECT, once(), silent)
    remembered(SUBJECT | {"threads": 1}, once(Decision(Plan(), 1.0, 1.0)), silent)
    file = cache / "plans.json"
    file.write_text(file.read_text().replace("contiguous", "sideways"))
    remembered(SUBJECT, once(), silent)
    assert remembered(SUBJECT | {"threads": 1}, never, silent) == Decision(Plan(), 1.0, 1.0)


def test_where_nothing_can_be_kept_the_plan_is_measured_and_that_is_said(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    said: list[str] = []
    assert remembered(SUBJECT, once(), said.append) == FOUND
    assert remembered(SUBJECT, once(), said.append) == FOUND
    assert len(said) == 2
    assert "could not be kept" in said[0]
    assert cache.read_text() == "a file where the folder should be"


def test_a_full_disk_leaves_the_file_as_it_was(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered(SUBJECT, once(), silent)
    before = (cache / "plans.json").read_bytes()

    def full(stream: int) -> None:
        raise OSError(28, "No space left on device")

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("inarch.results.folder.os.fsync", full)
        assert remembered(SUBJECT | {"threads": 7}, once(), said.append) == FOUND
    assert len(said) == 1
    assert (cache / "plans.json").read_bytes() == before
    assert {file.name for file in cache.iterdir()} == {"plans.json", "plans.lock"}


def test_another_process_that_measures_too_long_is_not_waited_for(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    cache.mkdir()
    with FileLock(cache / "plans.lock"):
        assert remembered(SUBJECT, once(), silent) == FOUND


def test_who_waits_takes_the_plan_that_the_other_found(cache: Path) -> None:
    """The file is read behind the lock: what was written while waiting counts."""
    cache.mkdir()
    inside: list[Decision] = []

    def measure() -> Decision:
        assert not FileLock(cache / "plans.lock", blocking=False).is_locked
        with pytest.raises(TimeoutError), FileLock(cache / "plans.lock", timeout=0):
            pass
        inside.append(FOUND)
        return FOUND

    remembered(SUBJECT, measure, silent)
    assert inside == [FOUND]


def test_this_processor_is_named_and_the_same_every_time() -> None:
    found = this_processor("cpu")
    assert found == this_processor("cpu")
    assert found["device"] == "cpu"
    assert found["processor"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"INARCH_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"INARCH_CACHE": "", "XDG_CACHE_HOME": "/b"}, "/b/inarch"),
        ({"XDG_CACHE_HOME": ""}, "/home/somebody/.cache/inarch"),
        ({}, "/home/somebody/.cache/inarch"),
    ],
)
def test_the_cache_is_where_the_user_says_or_where_caches_are(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("INARCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/somebody"} | variables).items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_what_was_kept_by_somebody_who_did_not_wait_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    another, other = SUBJECT | {"threads": 1}, Decision(Plan(), None, None)

    def while_another_is_kept() -> Decision:
        assert remembered(another, once(other), silent) == other
        return FOUND

    assert remembered(SUBJECT, while_another_is_kept, silent) == FOUND
    assert remembered(another, never, silent) == other
    assert remembered(SUBJECT, never, silent) == FOUND


def test_a_plan_that_was_found_meanwhile_counts_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    other = Decision(Plan(), None, None)

    def while_the_same_is_kept() -> Decision:
        assert remembered(SUBJECT, once(other), silent) == other
        return FOUND

    assert remembered(SUBJECT, while_the_same_is_kept, silent) == other
    assert remembered(SUBJECT, never, silent) == other
