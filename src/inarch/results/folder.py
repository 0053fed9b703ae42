"""The folder of one run: its lock, its ledger, its checkpoints, and files that are written whole or not at all.

The lock is the operating system's, on an open file: it ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, final

from filelock import FileLock, Timeout

from inarch.errors import RunFolderError
from inarch.results.ledger import Ledger

LEDGER: Final = "ledger.sqlite"
LOCK: Final = "run.lock"
CHECKPOINTS: Final = "checkpoints"
_IDENTITY: Final = "identity"
# What runs were before these became a part of their identity.
_BEFORE: Final[dict[str, Any]] = {"classifier_start": 1.0}
_ENVIRONMENT: Final = "environment"
# The kind of records whose first one decides what a run is: range tests before it are made again under other arguments.
TRIAL: Final = "trial"


@final
class RunFolder:
    """A run folder in use by this process alone; made if it is not there.

    Raises `RunFolderError` when another process uses it, when it holds files of something else, or when it cannot be
    written. Close it, or use it as a context, to let others in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / CHECKPOINTS
        with _writing(path):
            for place in (path, *path.parents):
                if place.is_file():
                    remedy = "Choose a new or empty folder as --out."
                    raise RunFolderError(f"{place} is a file, and no run folder.", remedy)
            path.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(path)
            self._lock = _locked(path)
        try:
            with _writing(path):
                self.checkpoints.mkdir(exist_ok=True)
            self.ledger = Ledger(path / LEDGER)
        except BaseException:
            self._lock.release()
            raise

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the folder whole: after a crash it has its old content or the new one. UTF-8."""
        return write_text(self.path / name, text)

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file whole, keys in their order; `ValueError` for NaN and infinity."""
        return self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    @property
    def begun(self) -> bool:
        """Whether it is decided what this run is and on which machine: it is once a trial is recorded."""
        return self.ledger.holds(TRIAL)

    @property
    def environment(self) -> Any:
        """The machine and how it computes, as JSON; None where it is still to be decided."""
        return self.ledger.get_meta(_ENVIRONMENT) if self.begun else None

    def keep_environment(self, environment: Mapping[str, Any]) -> None:
        """Keep the machine and how it computes, for a run that has not begun."""
        self._keep(_ENVIRONMENT, _plain(environment))

    def _keep(self, name: str, value: Any) -> None:
        """What was recorded under another value goes: it would be taken for that of this one."""
        if self.begun:
            raise ValueError(f"{self.path} has begun: its {name} stays")
        known = self.ledger.get_meta(name)
        if known is None:
            self.ledger.set_meta(name, value)
        elif known != value:
            self.ledger.begin_anew(name, value)

    def require_identity(self, identity: Mapping[str, Any]) -> None:
        """Keep what this run is until it has begun; later raise `RunFolderError` if it is something else.

        `identity` is JSON: the arguments and whatever else the results depend on. What came later than the folder was
        as `_BEFORE` says.
        """
        wanted = _plain(identity)
        if not self.begun:
            self._keep(_IDENTITY, wanted)
            return
        came_later = {name: value for name, value in _BEFORE.items() if name in wanted}
        known = came_later | self.ledger.get_meta(_IDENTITY)
        differing = [
            f"{name} was {_shown(before)}, now {_shown(now)}" for name, before, now in _differences(known, wanted)
        ]
        if differing:
            raise RunFolderError(
                f"{self.path} belongs to a run with other arguments: {'; '.join(differing)}.",
                "Choose another --out, or give the same arguments as before to go on with that run.",
            )

    def close(self) -> None:
        """Close the ledger and give up the lock."""
        self.ledger.close()
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_text(path: Path, text: str) -> Path:
    """Write a file whole, or raise `RunFolderError` and leave what was there: written beside, then renamed."""
    beside = path.with_name(f".{path.name}.part")
    with _writing(path):
        try:
            with beside.open("w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    return path


def lacks(path: Path, what: str, file: str) -> tuple[str, str]:
    """Problem and remedy where `path` holds no `file` and so no `what` of a run: what is there says which run it is."""
    if not os.path.exists(path):  # nor where it cannot be looked for, which Path.exists raises
        return f"There is no folder {path}.", "Check the path."
    if not path.is_dir():
        return f"{path} is a file.", "Give the run folder, which `inarch fit` wrote."
    if (path / LEDGER).exists():
        # A comparison has a report and no model.
        begun_by = "`inarch fit`" if what == "model" else "`inarch compare` or `inarch fit`"
        return (
            f"The run in {path} is not finished: it holds no {file} yet, so there is no {what}.",
            f"Call {begun_by} again with the same arguments: it goes on where it was.",
        )
    return f"{path} is no run folder: it holds no {file}.", "Give the folder that was --out of `inarch fit`."


def _refuse_foreign(path: Path) -> None:
    if (path / LEDGER).exists():
        return
    # A run that was killed in its first moments leaves the lock and the folder of checkpoints.
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in {LOCK, CHECKPOINTS})
    if foreign:
        raise RunFolderError(
            f"{path} holds files that are not of a run ({', '.join(foreign[:3])}{', ...' if foreign[3:] else ''}).",
            "Choose a new or empty folder as --out.",
        )


def _locked(path: Path) -> FileLock:
    lock = FileLock(path / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunFolderError(
            f"{path} is in use by another process.", "Wait until that one has ended, stop it, or choose another --out."
        ) from error
    return lock


def _plain(value: Mapping[str, Any]) -> Any:
    """As it comes back from a ledger."""
    return json.loads(json.dumps(dict(value), allow_nan=False))


def _differences(known: Any, wanted: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(known, dict) and isinstance(wanted, dict):
        for key in [*known, *(k for k in wanted if k not in known)]:
            yield from _differences(known.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    elif known != wanted:
        yield name, known, wanted


def _shown(value: Any) -> str:
    return "not given" if value is None else json.dumps(value, ensure_ascii=False)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be written: {error.strerror or error}. Nothing recorded before is lost.",
            "Free some space on the disk or make the folder writable, then run the same command again.",
        ) from error
