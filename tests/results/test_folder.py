"""The run folder: one process at a time, one study, files whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inarch.errors import RunFolderError
from inarch.results.folder import RunFolder
from inarch.results.ledger import Record

HOLDER = """
import os, sys, time
from pathlib import Path
from inarch.results.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
# Once the child speaks, it has given up what it inherited.
if sys.argv[2] == "alone" or os.fork() == 0:
    print(os.getpid(), flush=True)
time.sleep(60)
"""


def holder(path: Path, kind: str = "alone") -> tuple[subprocess.Popen[str], int]:
    """A process that holds the folder, once it does, and its id; with "fork", that of its child."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_new_folder_has_a_ledger_and_room_for_checkpoints(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "runs" / "one") as folder:
        folder.ledger.add(Record("a", "trial", {}, {}))
        assert folder.checkpoints.is_dir()
    with RunFolder(tmp_path / "runs" / "one") as folder:
        assert [r.key for r in folder.ledger.records()] == ["a"]


@pytest.mark.parametrize("name", ["notes.txt", "notes.txt/run"])
def test_a_file_in_the_place_of_the_folder_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(RunFolderError, match=r"notes\.txt is a file, and no run folder\. Choose a new or empty folder"):
        RunFolder(tmp_path / name)
    assert (tmp_path / "notes.txt").read_text() == "words"


def test_the_same_process_cannot_open_a_folder_twice(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path / "run") as folder,
        pytest.raises(RunFolderError, match=r"run is in use by another process\. Wait until"),
    ):
        RunFolder(folder.path)


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    process, _ = holder(tmp_path)
    try:
        with pytest.raises(RunFolderError, match="in use by another process"):
            RunFolder(tmp_path)
    finally:
        kill(process)
    RunFolder(tmp_path).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_a_forked_child_of_a_killed_process_does_not_hold_the_folder(tmp_path: Path) -> None:
    process, child = holder(tmp_path, "fork")
    try:
        with pytest.raises(RunFolderError, match="in use by another process"):
            RunFolder(tmp_path)
        kill(process)
        os.kill(child, 0)
        RunFolder(tmp_path).close()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_ends_leaves_the_folder_to_its_parent(tmp_path: Path) -> None:
    process, child = holder(tmp_path, "fork")
    try:
        os.kill(child, signal.SIGKILL)
        with pytest.raises(RunFolderError, match="in use by another process"):
            RunFolder(tmp_path)
    finally:
        kill(process)


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    for name in ("holiday.jpg", "notes.txt", "a", "b"):
        (tmp_path / name).touch()
    with pytest.raises(RunFolderError, match=r"not of a run \(a, b, holiday\.jpg, \.\.\.\)\. Choose a new or empty"):
        RunFolder(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "holiday.jpg", "notes.txt"]


def test_a_run_killed_before_it_had_a_ledger_can_go_on(tmp_path: Path) -> None:
    (tmp_path / "run.lock").touch()
    (tmp_path / "checkpoints").mkdir()
    RunFolder(tmp_path).close()


def test_a_folder_with_a_damaged_ledger_is_not_left_locked(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"no database" * 500)
    for _ in range(2):
        with pytest.raises(RunFolderError, match="not a ledger, or is damaged"):
            RunFolder(tmp_path)


def test_other_arguments_are_refused_naming_each_with_old_and_new_value(tmp_path: Path) -> None:
    before = {
        "seed": 0,
        "cuts": (3, 6),
        "image_size": None,
        "training": {"epochs": 8, "flip": True},
        "source": "größer",
    }
    with RunFolder(tmp_path) as folder:
        folder.require_identity(before)
        folder.ledger.add(Record("a", "trial", {}, {}))
        folder.require_identity(before)
    after = before | {"cuts": [3, 9], "image_size": 192, "training": {"epochs": 9, "flip": True}, "new": 1}
    with RunFolder(tmp_path) as folder:
        with pytest.raises(RunFolderError) as caught:
            folder.require_identity(after)
        folder.require_identity(before)
    assert caught.value.problem.endswith(
        "belongs to a run with other arguments: cuts was [3, 6], now [3, 9]; image_size was not given, now 192;"
        " training.epochs was 8, now 9; new was not given, now 1."
    )
    assert "Choose another --out, or give the same arguments" in caught.value.remedy


def test_a_folder_from_before_classifiers_began_small_goes_on_with_what_they_began_with(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.require_identity({"seed": 0})
        folder.ledger.add(Record("a", "trial", {}, {}))
        folder.require_identity({"seed": 0, "classifier_start": 1.0})
        with pytest.raises(RunFolderError, match=r"classifier_start was 1\.0, now 0\.01"):
            folder.require_identity({"seed": 0, "classifier_start": 0.01})


def test_before_its_first_trial_a_folder_takes_other_arguments_and_forgets_what_belongs_to_earlier_ones(
    tmp_path: Path,
) -> None:
    with RunFolder(tmp_path) as folder:
        for identity, environment, kept in (
            ({"epochs": 8}, {"threads": 2}, 0), ({"epochs": 8}, {"threads": 2}, 1), ({"epochs": 4}, {"threads": 2}, 0),
            ({"epochs": 4}, {"threads": 1}, 0), ({"epochs": 4}, {"threads": 1}, 1),
        ):  # fmt: skip
            assert folder.environment is None
            folder.keep_environment(environment)
            folder.require_identity(identity)
            assert len(folder.ledger.records()) == kept
            if not kept:
                folder.ledger.add(Record("r", "range-test", {}, {}))


def test_after_its_first_trial_a_folder_keeps_its_environment(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.keep_environment({"threads": 2})
        folder.ledger.add(Record("a", "trial", {}, {}))
        assert folder.environment == {"threads": 2}
        with pytest.raises(ValueError, match="its environment stays"):
            folder.keep_environment({"threads": 2})


def test_json_files_keep_their_order_and_refuse_nan(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        path = folder.write_json("results.json", {"z": 1, "a": [0.1, None], "name": "größer"})
        assert path.read_text(encoding="utf-8").startswith('{\n  "z": 1,')
        assert "größer" in path.read_text(encoding="utf-8")
        with pytest.raises(ValueError, match="JSON compliant"):
            folder.write_json("results.json", {"z": float("nan")})
        assert json.loads(path.read_text(encoding="utf-8"))["z"] == 1


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RunFolder(tmp_path) as folder:
        path = folder.write_text("results.json", "old")
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(
            RunFolderError, match=r"No space left on device\. Nothing recorded before is lost.*Free some"
        ):
            folder.write_text("results.json", "new and longer")
        assert path.read_text() == "old"
        assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_even_be_looked_for_is_refused(tmp_path: Path) -> None:
    # So does a folder above it that may not be entered, which tests that run as root cannot make.
    with pytest.raises(RunFolderError, match=r"cannot be written: .*too long"):
        RunFolder(tmp_path / ("x" * 300) / "run")
