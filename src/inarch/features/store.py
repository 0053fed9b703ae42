"""The store of prefix activations: what a frozen prefix makes of every (image, view), computed once.

A segment is one view of one split at one cut. When one is needed, the images go through the network once, in fixed
chunks in the order of the split, and leave a segment at every stored cut that may be wanted; later trials, other cuts
and other studies read it. The store decides only where activations come from: a batch at a stored cut is the same
whether it was read from memory, from the disk, or computed just now, because all of them are rows of the same chunks,
rounded alike.

Activations of training views are rounded to the stored precision at every cut above 0, stored or not. The evaluation
view is kept as computed: it is few bytes, and what is tested is then what the delivered network does.
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from inarch.features.addresses import Addresses
from inarch.features.images import Images
from inarch.features.machine import Machine
from inarch.features.passes import CHUNK, Passes, chunks
from inarch.features.place import available_memory
from inarch.features.rows import FileRows, Layout, MemoryRows, RecomputedRows, Rows, bytes_view, round_to
from inarch.features.shelf import Manifest, SegmentWriter, Shelf
from inarch.network.stages import Stages
from inarch.profile import Profile

__all__ = ["CHUNK", "MEMORY", "Images", "Keeping", "PrefixStore"]

# Bytes of segments that are held in memory, and the share of a GPU's free memory that those from the disk may take
# there; one segment that is larger than an eighth of it is held elsewhere or read row by row.
MEMORY = 512 << 20
GPU_SHARE = 1 / 8
SMALL = 8
# Files that are held open.
OPEN_FILES = 64

Key = tuple[int, str, int | None]
"""Cut, split and view (None: the evaluation view) of a segment."""


@dataclass(frozen=True)
class Keeping:
    """What a study keeps of its activations, and where.

    cuts: those that are stored. precision: of stored training views, fp32 or bf16. shelf: None keeps segments in
    memory alone. memory: bytes of it. source: JSON that, beside weights and modules, decides what a prefix computes.
    about: name of the source, for people. announce: gets what a user must know, once.
    """

    cuts: tuple[int, ...] = ()
    precision: str = "bf16"
    shelf: Shelf | None = None
    memory: int = MEMORY
    source: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    announce: Callable[[str], None] = lambda text: None


@final
class PrefixStore:
    """Activations [images, ...] at any cut, for any view of any split. Close it to close its files."""

    def __init__(
        self, staged: Stages, images: Images, machine: Machine, keeping: Keeping,
        frozen: Sequence[nn.Module] | None = None,
    ) -> None:  # fmt: skip
        """`staged` must have the weights of the source now; later changes of its weights do not show here.

        frozen: those of another store of this network on this machine, which are then held once for both.
        """
        self.images = images
        self.machine = machine
        self.keeping = keeping
        # Called before every piece of work; may raise to end it.
        self.tick: Callable[[], None] = lambda: None
        # Called where many images are about to be, or were, pushed through: may give memory back.
        self.settle: Callable[[], None] = lambda: None
        # Stored cuts whose training views will be asked for soon (None: any): a pass keeps no others, to save time.
        self.wanted_cuts: frozenset[int] | None = None
        self.profile = Profile()
        self._stages = staged.stages
        self._passes = Passes(staged, images, machine, lambda: self.tick(), lambda: self.profile, frozen)
        self.frozen = self._passes.chain
        self._addresses = Addresses(self.frozen, images, machine, keeping.source, CHUNK)
        self._opened: OrderedDict[Key, Rows] = OrderedDict()
        self._checked: set[str] = set()
        self._written: set[str] = set()
        self._shelf, self._writable, self._announced = keeping.shelf, True, False
        # The most that is held in each place: open files, and bytes.
        self._most = {"file": OPEN_FILES, "cuda": int(GPU_SHARE * machine.free_memory_of_gpu())}

    def read(self, cut: int, split: str, positions: np.ndarray, view: int | None) -> Tensor:
        """Activations at `cut` of the images at `positions` of a split; `view` None is the evaluation view."""
        start = self.start(cut)
        x = self._stored((start, split, view), positions) if start else self._passes.pixels(split, positions, view)
        if start < cut:
            x = round_to(self._passes.run(start, cut, x), self._precision(view))
        return self.machine.hand_over(x)

    def batches(self, cut: int, split: str) -> Iterator[Tensor]:
        """The evaluation view of a whole split, in chunks."""
        self.settle()
        for positions in chunks(len(self.images.rows[split])):
            yield self.read(cut, split, positions, None)
        self.settle()

    def once(self, cut: int, split: str) -> Iterator[Tensor]:
        """Like `batches`, but kept nowhere: for what a study asks for one time, so that it takes no room of views."""
        for _, x in self._passes.push((cut,), split, None, chunks(len(self.images.rows[split]))):
            yield self.machine.hand_over(x)

    def start(self, cut: int) -> int:
        """The stored cut from which activations at `cut` are computed, `cut` itself where it is stored; 0: pixels."""
        return max((k for k in self.keeping.cuts if k <= cut), default=0)

    def holds(self, cut: int, split: str, view: int | None) -> bool:
        """Whether a segment is there already: a matter of cost, not of what is read."""
        key = cut, split, view
        if key in self._opened or not len(self.images.rows[split]):
            return True
        return self._shelf is not None and self._shelf.has(self._name(key))

    @property
    def on_disk(self) -> bool:
        """Whether what is stored outlasts a process, so that others find it; so too where nothing is."""
        return self._shelf is not None or not self.keeping.cuts

    def segments(self) -> frozenset[str]:
        """Segments that need not be checked: this process wrote or checked them."""
        return frozenset(self._checked | self._written)

    def learn(self, segments: frozenset[str]) -> None:
        """Takes the word of another process for `segments` of its own."""
        self._written |= segments

    def tidy(self) -> None:
        """Removes what processes that were ended left half-written."""
        if self._shelf is not None:
            self._shelf.remove_leftovers(0.0)

    def close(self) -> None:
        """Closes files and gives memory back; what is asked for later is opened again."""
        while self._opened:
            self._opened.popitem()[1].close()

    def _precision(self, view: int | None) -> str | None:
        return None if view is None else self.keeping.precision

    def _name(self, key: Key) -> str:
        return self._addresses.of_segment(*key, self._precision(key[2]))

    def _stored(self, key: Key, positions: np.ndarray) -> Tensor:
        rows = self._rows(key)
        try:
            taken = rows.take(positions)
        except OSError as error:  # a disk that fails, or is taken away, under every file that is open
            assert self.keeping.shelf is not None
            self._give_up(self.keeping.shelf, error)
            self._shelf = None
            self._opened.pop(key).close()
            rows = self._rows(key)
            taken = rows.take(positions)
        return rows.layout.unpack(taken, self.machine.device)

    def _rows(self, key: Key) -> Rows:
        if key not in self._opened:
            held = self.holds(*key)
            self._opened[key] = self._from_shelf(key) or self._in_memory(key)
            if not held:
                self.settle()
            self._opened.move_to_end(key)
            self._close_oldest()
        self._opened.move_to_end(key)
        return self._opened[key]

    def _close_oldest(self) -> None:
        """Keeps memory and open files within bounds; the segment in use stays, whatever it takes."""
        most, taken = self._most | {"cpu": self.keeping.memory}, Counter[str]()
        for rows in self._opened.values():
            taken[rows.place] += rows.memory or 1
        for key in list(self._opened)[:-1]:
            rows = self._opened[key]
            if taken[rows.place] > most[rows.place]:
                taken[rows.place] -= rows.memory or 1
                self._opened.pop(key).close()

    # From the disk

    def _from_shelf(self, key: Key) -> Rows | None:
        """A segment from the disk, made there if need be; None where the disk does not take it."""
        shelf = self._shelf
        if shelf is None:
            return None
        try:
            found = self._open(shelf, key)
            if found is None and self._writable:
                with shelf.locked(self._addresses.of_pass(*key[1:], self._precision(key[2])), self.tick):
                    # Another process may just have made it; what is damaged is mended by who holds the lock.
                    found = self._open(shelf, key, mend=True)
                    if found is None:
                        self._make(shelf, key)
                        found = self._open(shelf, key)
            return found
        except OSError as error:
            self._writable = False
            self._give_up(shelf, error)
            return None

    def _give_up(self, shelf: Shelf, error: OSError) -> None:
        if not self._announced:
            self._announced = True
            reason = error.strerror or str(error)
            self.keeping.announce(
                f"Activations cannot be stored in {shelf.folder}: {reason}. The study goes on with the same results: "
                "they are held in memory or computed again. Make room, or choose another folder with --store."
            )

    def _open(self, shelf: Shelf, key: Key, *, mend: bool = False) -> Rows | None:
        """A segment that is whole; it is checked when this process first opens it. None where there is none."""
        name = self._name(key)
        manifest = shelf.manifest(name)
        if manifest is None:
            return None
        try:
            rows = FileRows(os.open(shelf.rows(name), os.O_RDONLY), manifest)
        except FileNotFoundError:  # anything else is no fault of the segment
            if mend:
                shelf.forget(name)
            return None
        kept = False
        try:
            known = name in self._checked or name in self._written
            if not known and (damaged := rows.damaged()):
                if not mend:
                    return None
                self._mend(shelf, key, manifest, damaged)
            self._checked.add(name)
            # Every time, so that another study does not take what a long one still reads for long unused.
            shelf.touch(name)
            if manifest.size <= self._most["cuda"] // SMALL:
                with suppress(torch.OutOfMemoryError):  # others have taken it meanwhile
                    return rows.all(self.machine.device)
            kept = manifest.size > self.keeping.memory // SMALL
            return rows if kept else rows.all("cpu")
        finally:
            if not kept:
                rows.close()

    def _mend(self, shelf: Shelf, key: Key, manifest: Manifest, damaged: list[int]) -> None:
        """Computes the damaged chunks again and writes them into their places."""
        cut, split, view = key
        layout, every = Layout.of_manifest(manifest), list(chunks(manifest.images))
        again = self._passes.push((cut,), split, view, (every[chunk] for chunk in damaged))
        packed = (bytes_view(layout.pack(x)) for _, x in again)
        shelf.mend(self._name(key), manifest, zip(damaged, packed, strict=True))

    def _kept_together(self, cut: int, view: int | None) -> list[int]:
        """The stored cuts that a pass for a segment keeps: its own, and of training views those that are wanted."""
        wanted = self.keeping.cuts if view is None or self.wanted_cuts is None else self.wanted_cuts
        return [k for k in self.keeping.cuts if k == cut or k in wanted]

    def _make(self, shelf: Shelf, key: Key) -> None:
        """One pass of a view of a split through the network, written at stored cuts where it is not there yet."""
        cut, split, view = key
        missing = [k for k in self._kept_together(cut, view) if shelf.manifest(self._name((k, split, view))) is None]
        images = len(self.images.rows[split])
        wanted = sum(self._size(cut, split, view) for cut in missing)
        if not shelf.make_room(wanted, self._checked.__contains__):
            raise OSError("there is too little room on the disk")
        writers: dict[int, SegmentWriter] = {}
        layouts: dict[int, Layout] = {}
        try:
            for cut in missing:
                writers[cut] = shelf.writer(self._name((cut, split, view)))
            for cut, x in self._passes.push(missing, split, view, chunks(images)):
                layout = layouts.setdefault(cut, Layout.of(x, self._precision(view)))
                writers[cut].add(bytes_view(layout.pack(x)))
            for cut, writer in writers.items():
                writer.finish(self._manifest(layouts[cut], writer, (cut, split, view)))
                self._written.add(self._name((cut, split, view)))
        finally:
            for writer in writers.values():
                writer.discard()

    def _manifest(self, layout: Layout, writer: SegmentWriter, key: Key) -> Manifest:
        cut, split, view = key
        stored, computed = (str(kind).removeprefix("torch.") for kind in (layout.stored, layout.computed))
        about = {"source": self.keeping.about, "stage": self._stages[cut - 1].name, "split": split, "view": view}
        return Manifest(
            layout.row, layout.row_bytes, stored, computed, layout.channels_last, len(self.images.rows[split]), CHUNK,
            tuple(writer.checksums), about,
        )  # fmt: skip

    # Without a disk

    def _in_memory(self, key: Key) -> Rows:
        """A segment made in memory, and those of the same pass that fit beside it; computed by chunks if too large."""
        cut, split, view = key
        images, size = len(self.images.rows[split]), self._size(*key)
        if size > max(self.keeping.memory, available_memory() // 4):
            return RecomputedRows(images, CHUNK, lambda positions: self._chunk(key, positions))
        room = self.keeping.memory - size - sum(r.memory for r in self._opened.values() if r.place == "cpu")
        wanted = [cut]
        for other in sorted(self._kept_together(cut, view), key=lambda k: self._size(k, split, view)):
            size = self._size(other, split, view)
            if other != cut and (other, split, view) not in self._opened and size <= room:
                wanted.append(other)
                room -= size
        layouts: dict[int, Layout] = {}
        made: dict[int, Tensor] = {}
        done = dict.fromkeys(wanted, 0)
        for k, x in self._passes.push(wanted, split, view, chunks(images)):
            layout = layouts.setdefault(k, Layout.of(x, self._precision(view)))
            if k not in made:
                made[k] = layout.room(images)
            made[k][done[k] : done[k] + len(x)] = layout.pack(x)
            done[k] += len(x)
        for k in wanted:
            self._opened[k, split, view] = MemoryRows(layouts[k], made[k])
        return self._opened[key]

    def _chunk(self, key: Key, positions: np.ndarray) -> tuple[Layout, Tensor]:
        cut, split, view = key
        ((_, x),) = self._passes.push((cut,), split, view, [positions])
        layout = Layout.of(x, self._precision(view))
        return layout, layout.pack(x)

    def _size(self, cut: int, split: str, view: int | None) -> int:
        """Bytes of a segment, as far as they are known before it is made."""
        item = 2 if self._precision(view) == "bf16" else 4
        return prod(self._stages[cut - 1].output_shape) * len(self.images.rows[split]) * item
