"""Classify images with an adapted network, or with any source network on its own classes."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from inarch.data import MAX_PIXELS, evaluation_batch, read_image, resize_to_cover
from inarch.data.images import looks_like_image, quiet_pillow
from inarch.errors import DataError, InarchError, SourceError, UsageError
from inarch.features.machine import Machine
from inarch.features.plan import Plan, computes_in_bf16
from inarch.launch.allocator import keep_memory
from inarch.network.adapted import AdaptedNetwork
from inarch.network.source import Source, announce_on_stderr, load_source
from inarch.options import chosen_device

_MOST_READERS = 8
# At the end of each reading, threads wait for the last one: seldom, where several batches are read together.
_BATCHES_READ = 4

_Read = np.ndarray | str
"""Pixels, or why there are none."""


@dataclass(frozen=True)
class Prediction:
    """One image: the most probable classes with their probabilities, best first, or why it could not be read."""

    path: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    error: str | None = None


@final
class Model:
    """An image classifier with the names of its classes and the input it wants."""

    def __init__(self, source: Source, machine: Machine, frozen_stages: int = 0) -> None:
        """The first `frozen_stages` of an adapted network compute as the plan of `machine` says of frozen ones."""
        self.classes = source.classes
        self.input = source.input
        self._machine = machine
        network = source.network.eval().to(machine.device).to(memory_format=machine.plan.layout)
        self._prefix: nn.Module = nn.Identity()
        self._behind: Callable[[Tensor], Tensor] = network
        if isinstance(network, AdaptedNetwork):
            cut = network.at_cut(frozen_stages)
            self._prefix, self._behind = cut.prefix, cut.from_stored

    def predict(
        self,
        paths: Iterable[Path | str],
        *,
        top: int = 1,
        batch_size: int = 32,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Prediction]:
        """Classifies image files, and all images in folders, in the order given; unreadable ones carry an error."""
        for name, value in (("top", top), ("batch_size", batch_size)):
            if value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value} is too small.", "Least: 1.")
        files = list(_files(Path(path) for path in paths))
        if not files:
            raise DataError("There is no image in what was named.", "Name images, or folders that hold some.")
        found: list[Prediction] = []
        # On processors, reading beside a forward pass slows both by more than it saves (docs/lab-notebook.md).
        ahead = 0 if self._machine.device == "cpu" else 1
        with closing(_read_groups(files, _BATCHES_READ * batch_size, ahead, self._read)) as groups:
            for group, images in groups:
                for start in range(0, len(group), batch_size):
                    stop = start + batch_size
                    found += self._classify(group[start:stop], images[start:stop], min(top, len(self.classes)))
                    progress(len(found), len(files))
        return found

    def _read(self, file: Path) -> _Read:
        try:
            image = read_image(file, MAX_PIXELS)
        except InarchError as error:
            return str(error)
        height, width = round(self.input.height / self.input.crop_pct), round(self.input.width / self.input.crop_pct)
        return resize_to_cover(image, height, width, self.input.interpolation)

    def _classify(self, files: Sequence[Path], images: Sequence[_Read], top: int) -> list[Prediction]:
        usable = [image for image in images if not isinstance(image, str)]
        rows: Iterator[tuple[list[float], list[int]]] = iter(())
        if usable:
            pixels = self._machine.place(evaluation_batch(usable, self.input))
            with torch.no_grad():
                with self._machine.autocast(frozen=True):
                    stored = self._prefix(pixels)
                with self._machine.autocast():
                    probabilities = self._behind(self._machine.hand_over(stored)).float().softmax(dim=1)
            best = probabilities.topk(top, dim=1)
            rows = iter(zip(best.values.tolist(), best.indices.tolist(), strict=True))
        found = []
        for file, image in zip(files, images, strict=True):
            if isinstance(image, str):
                found.append(Prediction(str(file), (), (), image))
            else:
                values, indices = next(rows)
                found.append(Prediction(str(file), tuple(self.classes[i] for i in indices), tuple(values)))
        return found


def load(folder: Path | str, *, device: str = "auto", announce: Callable[[str], None] = announce_on_stderr) -> Model:
    """The model in a run folder or a model folder; it computes as it was tested, where the machine can."""
    keep_memory()
    source, device = load_source(str(folder), announce=announce), chosen_device(device)
    plan, frozen_stages = _arithmetic(source)
    if "bf16" in plan.precisions and not computes_in_bf16(device):
        announce(f"{source.name} was tested in bf16, which device {device} lacks: it computes in fp32 here.")
        plan = Plan(plan.memory_format)
    return Model(source, Machine(device, plan), frozen_stages)


def _arithmetic(source: Source) -> tuple[Plan, int]:
    """How an adapted network was tested: the plan, and the number of its source's stages that were frozen."""
    value = source.card.extra.get("arithmetic")
    if value is None or not isinstance(source.network, AdaptedNetwork):
        return Plan(), 0
    try:
        plan, cut = Plan.from_json(value), int(value["frozen_stages"])
        if not 0 <= cut <= len(source.network.staged.stages):
            raise ValueError(f"{cut} frozen stages of {len(source.network.staged.stages)}")
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"The card of '{source.name}': 'arithmetic' cannot be read ({type(error).__name__}: {error}).",
            "Give the card that Inarch wrote.",
        ) from error
    return plan, cut


def require_place(out: Path | None) -> None:
    """`UsageError` where a CSV file could never be written: before hours of work, not behind them."""
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        reason = "it is a folder" if out.is_dir() else "its folder is not there"
        raise UsageError(f"{out} cannot be written: {reason}.", "Choose another --out.")


def write_csv(predictions: Sequence[Prediction], out: Path | None, top: int) -> None:
    """One line an image: path, class and probability, for each of the top classes, and the error if there was one.

    top: classes that an image gets, never more than the model knows: so the header is the same whatever can be read.
    """
    columns = [f"{name}_{rank}" for rank in range(1, top + 1) for name in ("class", "probability")]
    rows: list[list[str]] = [["path", *columns, "error"]]
    for p in predictions:
        cells = [
            cell for name, value in zip(p.classes, p.probabilities, strict=True) for cell in (name, f"{value:.6f}")
        ]
        rows.append([p.path, *cells, *[""] * (2 * (top - len(p.classes))), p.error or ""])
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
            sys.stdout.reconfigure(errors="surrogateescape")
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return
    try:
        with out.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}.", "Choose another --out.") from error


def _read_groups(
    files: Sequence[Path], size: int, ahead: int, read: Callable[[Path], _Read]
) -> Generator[tuple[Sequence[Path], list[_Read]]]:
    """Files in groups of `size` with what `read` made of them, in order, while the `ahead` next groups are being read.

    No more images are in memory than those of the group that is looked at and of the next ones.
    """
    waiting: deque[tuple[Sequence[Path], list[Future[_Read]]]] = deque()
    workers = min(_MOST_READERS, os.cpu_count() or 1)
    with quiet_pillow(MAX_PIXELS), ThreadPoolExecutor(workers, thread_name_prefix="read") as readers:
        try:
            for start in range(0, len(files), size):
                group = files[start : start + size]
                waiting.append((group, [readers.submit(read, file) for file in group]))
                if len(waiting) > ahead:
                    group, images = waiting.popleft()
                    yield group, [image.result() for image in images]
            while waiting:
                group, images = waiting.popleft()
                yield group, [image.result() for image in images]
        finally:
            readers.shutdown(cancel_futures=True)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(
                file
                for file in path.rglob("*")
                if file.is_file() and looks_like_image(file) and not _hidden(file.relative_to(path))
            )
        else:
            yield path


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
