"""The file that holds every record of a run folder, as soon as the record exists.

One SQLite file with a rollback journal: a record (or a batch of records that were trained together) is one transaction,
so a process that is killed leaves all of it or nothing. Journal files beside it are SQLite's own, and mended by it.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from inarch.errors import RunFolderError

FORMAT: Final = 1
_TABLES: Final = (
    "CREATE TABLE record (position INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,"
    " subject TEXT NOT NULL, outcome TEXT NOT NULL, arrays BLOB NOT NULL, seconds REAL NOT NULL)",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    f"PRAGMA user_version = {FORMAT}",
)
_COLUMNS: Final = "key, kind, subject, outcome, arrays, seconds"


@dataclass(frozen=True, eq=False)
class Record:
    """What came out of one trial.

    `key` is unique in a ledger, `kind` groups records. `subject` says what was done and `outcome` what came out: both
    JSON without NaN. `arrays` holds what is too big for JSON (no object arrays), `seconds` the time it took.
    """

    key: str
    kind: str
    subject: dict[str, Any]
    outcome: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    seconds: float = 0.0


@final
class Ledger:
    """All records of a run folder, in the order in which they were added; made if it is not there.

    Raises `RunFolderError` for a file that is not a ledger, is damaged, or cannot be written (a full disk): what was
    recorded before is still there. Adding a key twice is a defect of the caller: `ValueError`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _explained(path):
            # Transactions are begun by hand: one for each call that writes.
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=30.0)
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        with _explained(self.path):
            # A record must outlive a power cut, not only the process.
            self._connection.execute("PRAGMA synchronous = FULL")
            found = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
            holds = int(self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        if found == 0 and holds == 0:
            with self._writing():
                for statement in _TABLES:
                    self._connection.execute(statement)
        elif found != FORMAT:
            raise RunFolderError(
                f"{self.path} is a database of another program or another version of Inarch (format {found}, this"
                f" version reads {FORMAT}).",
                "Choose another --out, or the version of Inarch that wrote it.",
            )

    def add(self, record: Record) -> None:
        """Record one outcome, durably when this returns."""
        self.add_all([record])

    def add_all(self, records: Iterable[Record]) -> None:
        """Record several outcomes in one transaction: all of them or, on any error, none."""
        rows = [_row(record) for record in records]
        with self._writing():
            for row in rows:
                if self._connection.execute("SELECT 1 FROM record WHERE key = ?", row[:1]).fetchone():
                    raise ValueError(f"the ledger holds a record {row[0]!r} already")
                self._connection.execute(f"INSERT INTO record ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row)

    def get(self, key: str) -> Record | None:
        """Return the record of that key, None if there is none."""
        rows = self._read(f"SELECT {_COLUMNS} FROM record WHERE key = ?", (key,))
        return _record(rows[0]) if rows else None

    def records(self, kind: str | None = None) -> list[Record]:
        """Return all records, or those of one kind, in the order in which they were added."""
        where, values = ("", ()) if kind is None else (" WHERE kind = ?", (kind,))
        return [_record(row) for row in self._read(f"SELECT {_COLUMNS} FROM record{where} ORDER BY position", values)]

    def holds(self, kind: str) -> bool:
        """Whether there is a record of that kind."""
        return bool(self._read("SELECT 1 FROM record WHERE kind = ? LIMIT 1", (kind,)))

    def get_meta(self, key: str) -> Any:
        """Return the JSON value kept under that key, None if there is none."""
        rows = self._read("SELECT value FROM meta WHERE key = ?", (key,))
        return json.loads(rows[0][0]) if rows else None

    def set_meta(self, key: str, value: Any) -> None:
        """Keep a JSON value under that key, in place of an earlier one."""
        text = _json(value)
        with self._writing():
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, text))

    def begin_anew(self, key: str, value: Any) -> None:
        """Keep a JSON value as `set_meta` does and remove every record, in one transaction."""
        text = _json(value)
        with self._writing():
            self._connection.execute("DELETE FROM record")
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, text))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._connection.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, query: str, values: tuple[str, ...]) -> list[Any]:
        with _explained(self.path):
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with _explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors, a full disk among them.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _row(record: Record) -> tuple[str, str, str, str, bytes, float]:
    stream = io.BytesIO()
    if record.arrays:
        np.savez(stream, allow_pickle=False, **record.arrays)
    subject, outcome = _json(record.subject), _json(record.outcome)
    return record.key, record.kind, subject, outcome, stream.getvalue(), float(record.seconds)


def _record(row: tuple[str, str, str, str, bytes, float]) -> Record:
    arrays: dict[str, NDArray[Any]] = {}
    if row[4]:
        with np.load(io.BytesIO(row[4]), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    return Record(row[0], row[1], json.loads(row[2]), json.loads(row[3]), arrays, row[5])


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says into what a user can do."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except (sqlite3.OperationalError, OSError) as error:
        raise RunFolderError(
            f"{path} cannot be read or written: {error}. Nothing recorded before is lost.",
            "Free some space on the disk (or make the folder writable) and run the same command again: it goes on from"
            " the last record.",
        ) from error
    except sqlite3.DatabaseError as error:
        raise RunFolderError(
            f"{path} is not a ledger, or is damaged: {error}.",
            "Choose another --out, or bring the file back from a copy.",
        ) from error
