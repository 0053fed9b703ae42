"""Rows of a segment: how activations become rows of bytes and back, and where the rows of a batch come from.

Rows are read with `preadv`, not mapped: mapped pages count as memory of the process, those of the file cache do not.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import torch
from torch import Tensor

from inarch.features.shelf import Manifest

_NARROW = {"fp32": torch.float32, "bf16": torch.bfloat16}


@final
@dataclass(frozen=True)
class Layout:
    """One image's activation as a row: its sizes in the order of the row, type as stored and as computed.

    channels_last: the second dimension comes last in the row, as the pass left it, so that what follows runs on the
    same memory format whether an activation was stored or has just been computed.
    """

    row: tuple[int, ...]
    stored: torch.dtype
    computed: torch.dtype
    channels_last: bool

    @classmethod
    def of(cls, x: Tensor, precision: str | None) -> Layout:
        """The layout of activations [images, ...] stored in `precision` (None: as computed)."""
        last = x.dim() == 4 and x.shape[1] > 1 and x.shape[2] * x.shape[3] > 1 and x.stride(1) == 1
        row = tuple((x.permute(0, 2, 3, 1) if last else x).shape[1:])
        return cls(row, stored_type(x.dtype, precision), x.dtype, last)

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> Layout:
        stored, computed = (getattr(torch, name) for name in (manifest.stored, manifest.computed))
        return cls(manifest.row, stored, computed, manifest.channels_last)

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.row)) * self.stored.itemsize

    def pack(self, x: Tensor) -> Tensor:
        """Activations [images, ...] as rows on the processor, rounded to the stored type."""
        ordered = x.permute(0, 2, 3, 1) if self.channels_last else x
        return self.room(len(x)).copy_(ordered)

    def room(self, images: int, device: str = "cpu") -> Tensor:
        """Memory for so many rows."""
        return torch.empty((images, *self.row), dtype=self.stored, device=device)

    def unpack(self, rows: Tensor, device: str) -> Tensor:
        """Activations [images, ...] of rows, in the type that the pass computes in."""
        x = rows.to(device).to(self.computed)
        return x.permute(0, 3, 1, 2) if self.channels_last else x


def stored_type(computed: torch.dtype, precision: str | None) -> torch.dtype:
    """Whole numbers and what is narrow already stay as they are; wider floating-point numbers are rounded."""
    wanted = computed if precision is None else _NARROW[precision]
    return wanted if computed.is_floating_point and computed.itemsize > wanted.itemsize else computed


def round_to(x: Tensor, precision: str | None) -> Tensor:
    """`x` with the values that it would have if it had been stored."""
    return x.to(stored_type(x.dtype, precision)).to(x.dtype)


def bytes_view(rows: Tensor) -> memoryview:
    """The memory of contiguous rows on the processor."""
    return rows.reshape(-1).view(torch.uint8).numpy().data


class Rows(Protocol):
    """The rows of one segment."""

    @property
    def layout(self) -> Layout: ...
    @property
    def place(self) -> str:
        """What they take: "file", or memory on "cpu" or "cuda"."""
        ...

    @property
    def memory(self) -> int:
        """Bytes held there, none in a file."""
        ...

    def take(self, positions: np.ndarray) -> Tensor:
        """Rows at positions of the split, where they are held: on the processor, or on a GPU."""
        ...

    def close(self) -> None: ...


@final
class MemoryRows:
    """Rows held in memory, of the processor or of a GPU."""

    def __init__(self, layout: Layout, rows: Tensor) -> None:
        self.layout, self._rows = layout, rows

    @property
    def place(self) -> str:
        return self._rows.device.type

    @property
    def memory(self) -> int:
        return self._rows.nbytes

    def take(self, positions: np.ndarray) -> Tensor:
        places = torch.from_numpy(np.ascontiguousarray(positions, dtype=np.int64))
        return self._rows.index_select(0, places.to(self._rows.device))

    def close(self) -> None:
        pass


@final
class FileRows:
    """Rows in an open file, read as they are asked for; the file may be removed meanwhile."""

    place, memory = "file", 0

    def __init__(self, file: int, manifest: Manifest) -> None:
        """Takes over the open file `file`."""
        self.layout = Layout.of_manifest(manifest)
        self._file, self._manifest = file, manifest

    def take(self, positions: np.ndarray) -> Tensor:
        rows = self.layout.room(len(positions))
        if not len(positions):
            return rows
        size, memory = self.layout.row_bytes, bytes_view(rows)
        done = 0
        # Neighbours in one call: a chunk in order is one read.
        for run in np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1):
            read_exactly(self._file, memory[done : done + len(run) * size], int(run[0]) * size)
            done += len(run) * size
        return rows

    def all(self, device: str) -> MemoryRows:
        """The same rows, held in the memory of a device, where they are read into by chunks."""
        images, chunk = self._manifest.images, self._manifest.chunk
        rows = self.layout.room(images, device)
        for first in range(0, images, chunk):
            some = np.arange(first, min(first + chunk, images))
            rows[first : first + chunk] = self.take(some)
        return MemoryRows(self.layout, rows)

    def damaged(self) -> list[int]:
        """Chunks whose bytes are missing or do not have their checksum."""
        found = []
        for chunk, checksum in enumerate(self._manifest.checksums):
            offset, length = self._manifest.place(chunk)
            buffer = bytearray(length)
            try:
                read_exactly(self._file, memoryview(buffer), offset)
            except OSError:
                found.append(chunk)
                continue
            if zlib.crc32(buffer) != checksum:
                found.append(chunk)
        return found

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@final
class RecomputedRows:
    """Rows that are kept nowhere: the chunks in which a batch lies are computed whenever it is asked for."""

    place, memory = "file", 0

    def __init__(self, images: int, chunk: int, compute: Callable[[np.ndarray], tuple[Layout, Tensor]]) -> None:
        """`compute`: layout and rows of the images at the positions of a chunk."""
        self._images, self._chunk, self._compute = images, chunk, compute
        self._layout: Layout | None = None

    @property
    def layout(self) -> Layout:
        if self._layout is None:
            self._rows_of(0)
        assert self._layout is not None
        return self._layout

    def _rows_of(self, chunk: int) -> Tensor:
        first = chunk * self._chunk
        self._layout, rows = self._compute(np.arange(first, min(first + self._chunk, self._images)))
        return rows

    def take(self, positions: np.ndarray) -> Tensor:
        chunks = positions // self._chunk
        rows = self.layout.room(len(positions))
        for chunk in np.unique(chunks).tolist():
            here = np.flatnonzero(chunks == chunk)
            within = torch.from_numpy(positions[here] - chunk * self._chunk)
            rows[torch.from_numpy(here)] = self._rows_of(chunk).index_select(0, within)
        return rows

    def close(self) -> None:
        pass


def read_exactly(file: int, into: memoryview, offset: int) -> None:
    """Fills `into` from `offset` of an open file; OSError where the file ends before."""
    done = 0
    while done < into.nbytes:
        read = os.preadv(file, [into[done:]], offset + done)
        if not read:
            raise OSError(f"the file ends at byte {offset + done}")
        done += read
