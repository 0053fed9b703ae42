"""The folder of stored segments: files that are whole or not there, a checksum a chunk, and room for new ones.

A segment is one view of one split at one cut: raw rows in `NAME.rows`, and what they are in `NAME.json`, which is
written last, so its existence means that the rows are complete. Written beside and renamed. Its name says all that
its numbers depend on (addresses.py), so nothing is ever overwritten by something else. No PyTorch.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any, Final, final

from filelock import FileLock, Timeout

from inarch.features.place import MOST_TOTAL, RESERVE, free_space

# Raised when the files themselves change, so that older ones are not read.
FORMAT: Final = 1
_LOCKS: Final = "locks"
# A half-written file of a process that was killed is removed when it is older than this, in seconds.
_STALE: Final = 24 * 3600
# Names as addresses.py makes them: a user may name a folder that holds other files too, and those are left alone.
_NAME: Final = "[0-9a-f]{24}-[0-9a-f]{24}"
_MANIFEST: Final = re.compile(rf"{_NAME}\.json")
_HALF: Final = re.compile(rf"\.({_NAME})\.(rows|json)\.part|({_NAME})\.rows")


@dataclass(frozen=True)
class Manifest:
    """What the rows of a segment are.

    row: sizes of one image's activation in the order of the file. stored, computed: names of PyTorch's types, of the
    file and of what it is read back to. channels_last: the file has the second dimension last. images: rows.
    chunk: images a checksum (CRC-32 of their bytes). about: for people: source, stage, split, view.
    """

    row: tuple[int, ...]
    row_bytes: int
    stored: str
    computed: str
    channels_last: bool
    images: int
    chunk: int
    checksums: tuple[int, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return self.row_bytes * self.images

    def place(self, chunk: int) -> tuple[int, int]:
        """Offset and length in bytes of a chunk."""
        first = chunk * self.chunk
        return first * self.row_bytes, (min(first + self.chunk, self.images) - first) * self.row_bytes


@final
@dataclass(frozen=True)
class Entry:
    """A stored segment as `inarch store list` shows it. used: seconds since 1970."""

    name: str
    size: int
    used: float
    manifest: Manifest | None


@final
class Shelf:
    """Segments in a folder, shared with other processes. Methods that write raise OSError where they cannot."""

    def __init__(self, folder: Path, limit: int = 0) -> None:
        """limit: bytes that the study which writes may take; all segments together may always take that much."""
        self.folder, self._limit = folder, limit

    def rows(self, name: str) -> Path:
        return self.folder / f"{name}.rows"

    def _manifest(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def has(self, name: str) -> bool:
        return os.path.exists(self._manifest(name))

    def manifest(self, name: str) -> Manifest | None:
        """What is known of a segment; None where there is none, or where its manifest makes no sense."""
        try:
            sealed = json.loads(self._manifest(name).read_text(encoding="utf-8"))
            values = sealed["manifest"]
            if sealed["seal"] != _seal(values):
                return None
            found = Manifest(**values | {key: tuple(map(int, values[key])) for key in ("row", "checksums")})
            chunks = -(-found.images // found.chunk)
            return found if found.format == FORMAT and len(found.checksums) == chunks else None
        except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError):
            return None

    def touch(self, name: str) -> None:
        """Notes that a segment was used: the least recently used ones make room first."""
        with suppress(OSError):
            os.utime(self._manifest(name))

    def writer(self, name: str) -> SegmentWriter:
        """Begins a segment; only who holds the lock of its pass may."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return SegmentWriter(self, name)

    def write_manifest(self, name: str, manifest: Manifest) -> None:
        values, beside = asdict(manifest), self.folder / f".{name}.json.part"
        beside.write_text(json.dumps({"manifest": values, "seal": _seal(values)}), encoding="utf-8")
        os.replace(beside, self._manifest(name))

    def mend(self, name: str, manifest: Manifest, chunks: Iterable[tuple[int, memoryview]]) -> None:
        """Writes chunks (number, bytes) into their places; only who holds the lock of the pass may.

        Killed half-way, the rest is as damaged as before, and found as such.
        """
        checksums = list(manifest.checksums)
        with FileIO(self.rows(name), "r+") as file:
            for chunk, data in chunks:
                file.seek(manifest.place(chunk)[0])
                _write_all(file, data)
                checksums[chunk] = zlib.crc32(data)
        if tuple(checksums) != manifest.checksums:
            self.write_manifest(name, replace(manifest, checksums=tuple(checksums)))

    def forget(self, name: str) -> None:
        """Removes a segment, the manifest first, so that no half of it is ever taken for the whole."""
        for file in (self._manifest(name), self.rows(name)):
            with suppress(FileNotFoundError):
                file.unlink()

    @contextmanager
    def locked(self, name: str, tick: Callable[[], None]) -> Iterator[None]:
        """One process at a time makes what has this name; `tick` is called while others do, and may raise."""
        folder = self.folder / _LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock", fallback_to_soft=False)
        while True:
            tick()
            try:
                lock.acquire(timeout=0.5)
                break
            except Timeout:
                continue
            except NotImplementedError as error:  # a file system without locks
                raise OSError(str(error)) from error
        try:
            yield
        finally:
            lock.release()

    def names(self) -> list[str]:
        """Names of all segments that have a manifest."""
        try:
            return sorted(e.name.removesuffix(".json") for e in os.scandir(self.folder) if _MANIFEST.fullmatch(e.name))
        except OSError:
            return []

    def entries(self, *, described: bool = True) -> list[Entry]:
        """All whole segments, most recently used first; without their manifests where nobody needs a description."""
        found = []
        for name in self.names():
            with suppress(OSError):
                used = self._manifest(name).stat().st_mtime
                manifest = self.manifest(name) if described else None
                found.append(Entry(name, self.rows(name).stat().st_size, used, manifest))
        return sorted(found, key=lambda entry: (-entry.used, entry.name))

    def clear(self) -> tuple[int, int]:
        """Removes every segment and what killed processes left; returns their number and bytes.

        What other processes read stays readable to them, and what they are writing is left alone.
        """
        entries = self.entries()
        for name in self.names():
            self.forget(name)
        self.remove_leftovers(0.0)
        return len(entries), sum(entry.size for entry in entries)

    def make_room(self, wanted: int, in_use: Callable[[str], bool], reserve: int = RESERVE) -> bool:
        """Whether `wanted` bytes may be written, after the least recently used segments have gone as far as needed.

        All segments together take at most a quarter of what they and the free space make up, at most `MOST_TOTAL`, or
        what one study may take if that is more; and `reserve` bytes of the disk stay free. Where that cannot be
        reached, nothing is removed in vain.
        """
        self.remove_leftovers(_STALE)
        entries = self.entries(described=False)
        held, free = sum(entry.size for entry in entries), free_space(self.folder)
        total = max(self._limit, min(MOST_TOTAL, (held + free) // 4))
        excess = max(held + wanted - total, wanted + reserve - free)
        going: list[str] = []
        for entry in reversed(entries):
            if excess > 0 and not in_use(entry.name):
                going.append(entry.name)
                excess -= entry.size
        if excess > 0:
            return False
        for name in going:
            self.forget(name)
        return True

    def remove_leftovers(self, age: float) -> None:
        """Half-written files and rows without a manifest, older than `age` seconds, whose maker is not at work."""
        files: list[Path] = []
        with suppress(OSError):
            files += self.folder.iterdir()
        for file in files:
            # One may have got its own name or be gone by now, which says nothing of the next.
            with suppress(OSError):
                found = _HALF.fullmatch(file.name)
                if found and time.time() - file.stat().st_mtime >= age:
                    with suppress(Timeout), self._idle(found[1] or found[3]):
                        # Rows may have got their manifest while the lock was waited for.
                        if file.suffix == ".part" or not self.has(found[3]):
                            file.unlink(missing_ok=True)

    def _idle(self, name: str) -> AbstractContextManager[object]:
        """Nobody makes the segment meanwhile; `Timeout` where somebody does."""
        lock = self.folder / _LOCKS / f"{name.partition('-')[0]}.lock"
        return FileLock(lock, blocking=False) if lock.exists() else nullcontext()


@final
class SegmentWriter:
    """Writes the rows of one segment, chunk after chunk; `finish` makes it a segment, `discard` leaves nothing."""

    def __init__(self, shelf: Shelf, name: str) -> None:
        self._shelf, self._name = shelf, name
        self._beside = shelf.folder / f".{name}.rows.part"
        self._file = FileIO(self._beside, "w")
        self.checksums: list[int] = []

    def add(self, chunk: memoryview) -> None:
        _write_all(self._file, chunk)
        self.checksums.append(zlib.crc32(chunk))

    def finish(self, manifest: Manifest) -> None:
        """The manifest's existence means that all rows were written.

        Nothing waits for the disk: what a power cut takes away is found by its checksums and made again.
        """
        self._file.close()
        os.replace(self._beside, self._shelf.rows(self._name))
        self._shelf.write_manifest(self._name, manifest)

    def discard(self) -> None:
        self._file.close()
        with suppress(OSError):
            self._beside.unlink(missing_ok=True)


def _write_all(file: FileIO, data: memoryview) -> None:
    while data.nbytes:
        data = data[file.write(data) :]


def _seal(values: Mapping[str, Any]) -> int:
    """A checksum of a manifest's values."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())
