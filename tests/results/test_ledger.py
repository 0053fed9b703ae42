"""The ledger keeps what it was given, whatever happens to the process or the disk."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inarch.errors import RunFolderError
from inarch.results.ledger import Ledger, Record


def record(key: str, kind: str = "trial") -> Record:
    return Record(key, kind, {"cut": 3, "hidden": [512], "note": "größer"}, {"accuracy": 0.875}, {}, 1.5)


def fill_the_disk(ledger: Ledger) -> None:
    """SQLite answers to its own page limit exactly as to a disk without space."""
    connection = ledger._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")


def test_a_record_comes_back_as_it_was_also_after_reopening(tmp_path: Path) -> None:
    given = Record(
        "a", "trial", {"cut": {"index": 2, "name": "größer"}, "none": None}, {"accuracy": 1 / 3, "reason": ""},
        {"p": np.ones((2, 3), dtype=np.float32) / 7, "right": np.array([True, False]), "one": np.array(2.5)},
        12.25,
    )  # fmt: skip
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add(given)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        found = ledger.get("a")
    assert found is not None
    assert (found.key, found.kind, found.subject, found.outcome, found.seconds) == (
        given.key, given.kind, given.subject, given.outcome, given.seconds,
    )  # fmt: skip
    assert found.arrays.keys() == given.arrays.keys()
    for name, array in given.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, strict=True)


def test_records_come_in_the_order_in_which_they_were_added(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l") as ledger:
        ledger.add_all([record("z"), record("b", "range test")])
        ledger.add(record("a"))
        assert [r.key for r in ledger.records()] == ["z", "b", "a"]
        assert [r.key for r in ledger.records("trial")] == ["z", "a"]
        assert ledger.records("nothing of the kind") == []
        assert ledger.get("c") is None


def test_a_batch_is_recorded_whole_or_not_at_all(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l") as ledger:
        ledger.add(record("a"))
        with pytest.raises(ValueError, match="holds a record 'a' already"):
            ledger.add_all([record("b"), record("a")])
        assert [r.key for r in ledger.records()] == ["a"]
        ledger.add(record("b"))


def test_nan_and_objects_never_enter(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l") as ledger:
        with pytest.raises(ValueError, match="JSON compliant"):
            ledger.add(Record("a", "trial", {}, {"log_loss": float("nan")}))
        with pytest.raises(ValueError, match="allow_pickle"):
            ledger.add(Record("a", "trial", {}, {}, {"objects": np.array([{}])}))
        assert ledger.records() == []


def test_meta_values_are_kept_and_replaced(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.get_meta("threads") is None
        ledger.set_meta("threads", 2)
        ledger.set_meta("threads", {"used": [2, 1]})
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.get_meta("threads") == {"used": [2, 1]}


def test_what_begins_anew_keeps_its_meta_values_and_no_record(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.set_meta("threads", 2)
        ledger.add(Record("a", "range-test", {}, {}))
        assert (ledger.holds("range-test"), ledger.holds("trial")) == (True, False)
        ledger.begin_anew("epochs", 3)
        assert (ledger.records(), ledger.get_meta("threads"), ledger.get_meta("epochs")) == ([], 2, 3)


def test_a_full_disk_loses_nothing_that_was_recorded_before(tmp_path: Path) -> None:
    big = Record("big", "trial", {}, {}, {"p": np.random.default_rng(0).random(200_000)})
    with Ledger(tmp_path / "l") as ledger:
        ledger.add(record("a"))
        fill_the_disk(ledger)
        with pytest.raises(RunFolderError, match=r"full\. Nothing recorded before is lost\. Free some space"):
            ledger.add_all([record("b"), big])
        assert [r.key for r in ledger.records()] == ["a"]
    with Ledger(tmp_path / "l") as ledger:
        assert [r.key for r in ledger.records()] == ["a"]
        ledger.add(big)
        assert ledger.get("big") is not None


def test_a_ledger_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l") as ledger:
        ledger._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(RunFolderError, match=r"readonly database\. Nothing recorded before is lost.*writable"):
            ledger.add(record("a"))


def test_a_folder_that_is_not_there_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"missing/ledger\.sqlite cannot be read or written"):
        Ledger(tmp_path / "missing" / "ledger.sqlite")


@pytest.mark.parametrize("content", [b"certainly no database" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_file_that_is_not_a_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"is not a ledger, or is damaged.*another --out"):
        Ledger(path)
    assert path.read_bytes() == content


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(RunFolderError, match="database of another program or another version"):
        Ledger(path)
    assert path.read_bytes() == before


def test_damage_inside_the_file_is_reported_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.add_all(Record(f"k{i}", "trial", {"text": "x" * 300}, {}) for i in range(100))
    content = bytearray(path.read_bytes())
    content[4096 : len(content)] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match="is not a ledger, or is damaged"), Ledger(path) as ledger:
        ledger.records()


def test_a_killed_process_leaves_every_record_that_it_had_added(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from inarch.results.ledger import Ledger, Record\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for i in range(100000):\n"
        "    pair = [Record(f'{i}{side}', 'trial', {}, {}, {'p': np.full(5000, i)}) for side in 'ab']\n"
        "    ledger.add_all(pair)\n"
        "    print(i, flush=True)\n"
    )
    path = tmp_path / "ledger.sqlite"
    for _ in range(3):
        path.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(8)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        with Ledger(path) as ledger:
            found = ledger.records()
        expected = [f"{i}{side}" for i in range(len(found) // 2) for side in "ab"]
        assert [r.key for r in found] == expected
        # What was announced is there; the pair under way at the kill may be too.
        assert len(said) <= len(found) // 2 <= len(said) + 1
        assert all((r.arrays["p"] == int(r.key[:-1])).all() for r in found)
