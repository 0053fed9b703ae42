"""Classify images with an adapted network, or with any source network on its own classes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from inarch.data import MAX_PIXELS, evaluation_batch, read_image, resize_to_cover
from inarch.data.images import looks_like_image, quiet_pillow
from inarch.data.values import some
from inarch.errors import DataError, InarchError, SourceError, UsageError
from inarch.features.machine import Machine
from inarch.features.plan import Plan, computes_in_bf16
from inarch.heatmaps import HeatMaps, overlay_names, picture_of, prepared_folder, write_overlay
from inarch.launch.allocator import keep_memory
from inarch.network.adapted import AdaptedNetwork
from inarch.network.original import original_network
from inarch.network.source import Source, announce_on_stderr, load_source
from inarch.options import chosen_device
from inarch.predictions import Columns, Prediction
from inarch.results.unknown import Known, read_known

_MOST_READERS = 8
# At the end of each reading, threads wait for the last one: seldom, where several batches are read together.
_BATCHES_READ = 4

# Source classes for each image, where they are asked for.
_SOURCE_CLASSES = 5


@dataclass(frozen=True)
class _Seen:
    """An image as the network sees it but for the crop, and as people want to see it, where a heat map is drawn."""

    pixels: np.ndarray
    picture: np.ndarray | None = None


_Read = _Seen | str
"""Pixels, or why there are none."""


@dataclass(frozen=True)
class _Asked:
    """What each image gets, and what it takes: see `Model.predict`."""

    top: int
    original: Callable[[Tensor], Tensor] | None = None
    source_classes: Sequence[str] = ()
    known: Known | None = None
    rate: float = 0.0
    maps: HeatMaps | None = None
    overlays: Iterator[Path] = field(default_factory=lambda: iter(()))


@final
class Model:
    """An image classifier with the names of its classes and the input it wants."""

    def __init__(
        self, source: Source, machine: Machine, frozen_stages: int = 0,
        announce: Callable[[str], None] = announce_on_stderr,
    ) -> None:  # fmt: skip
        """The first `frozen_stages` of an adapted network compute as the plan of `machine` says of frozen ones."""
        self._source, self._announce = source, announce
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
        source_classes: bool = False,
        unknown: float | None = None,
        heatmaps: Path | str | None = None,
        batch_size: int = 32,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Prediction]:
        """Classifies image files, and all images in folders, in the order given; unreadable ones carry an error.

        source_classes: also the five most probable classes of the original network, before it was adapted.
        unknown: the share of images of known classes, above 0 and below 1, that may be called unknown.
        heatmaps: a folder for pictures of where the network looked (Grad-CAM of the most probable class).
        """
        for name, value in (("top", top), ("batch_size", batch_size)):
            if value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value} is too small.", "Least: 1.")
        named = [Path(path) for path in paths]
        asked = self._asked(min(top, len(self.classes)), source_classes, unknown, heatmaps is not None)
        files = list(_files(named))
        if not files:
            raise DataError("There is no image in what was named.", "Name images, or folders that hold some.")
        if heatmaps is not None:
            folder = prepared_folder(Path(heatmaps), named)
            asked = replace(asked, overlays=(folder / name for name in overlay_names(files)))
        found: list[Prediction] = []
        # On processors, reading beside a forward pass slows both by more than it saves (docs/lab-notebook.md).
        ahead = 0 if self._machine.device == "cpu" else 1
        read = partial(self._read, pictures=asked.maps is not None)
        with closing(_read_groups(files, _BATCHES_READ * batch_size, ahead, read)) as groups:
            for group, images in groups:
                for start in range(0, len(group), batch_size):
                    stop = start + batch_size
                    found += self._classify(group[start:stop], images[start:stop], asked)
                    progress(len(found), len(files))
        return found

    def columns(self, top: int, *, source_classes: bool, unknown: bool, heatmaps: bool) -> Columns:
        """What a CSV file of such predictions holds."""
        adapted = self._source.card.adapted
        of_source = min(_SOURCE_CLASSES, len(adapted[-1]["source_classes"])) if source_classes and adapted else 0
        return Columns(min(top, len(self.classes)), of_source, unknown, heatmaps)

    def _asked(self, top: int, source_classes: bool, unknown: float | None, maps: bool) -> _Asked:
        """Everything that can be missing or cannot be meant, before an image is read."""
        asked = _Asked(top, maps=HeatMaps(self._source, self._machine) if maps else None)
        if unknown is not None:
            known = read_known(self._source.folder, self._source.name)
            known.require(unknown)
            if known.without:
                self._announce(
                    f"Nothing is promised for images of {some(known.without)}: validation had no image of "
                    f"{'it' if len(known.without) == 1 else 'them'}."
                )
            asked = replace(asked, known=known, rate=unknown)
        if source_classes:
            network, names = original_network(self._source)
            asked = replace(asked, original=self._machine.place_frozen(network), source_classes=names)
        return asked

    def _read(self, file: Path, pictures: bool) -> _Read:
        try:
            image = read_image(file, MAX_PIXELS)
        except InarchError as error:
            return str(error)
        height, width = round(self.input.height / self.input.crop_pct), round(self.input.width / self.input.crop_pct)
        pixels = resize_to_cover(image, height, width, self.input.interpolation)
        return _Seen(pixels, picture_of(image, self.input) if pictures else None)

    def _classify(self, files: Sequence[Path], images: Sequence[_Read], asked: _Asked) -> list[Prediction]:
        seen = [image for image in images if not isinstance(image, str)]
        rows = iter(self._rows(seen, asked)) if seen else iter(())
        found = []
        for file, image in zip(files, images, strict=True):
            overlay = next(asked.overlays, None)  # also of an image that is bad: names are those of the files
            if isinstance(image, str):
                found.append(Prediction(str(file), (), (), image))
                continue
            heat, row = next(rows)
            if overlay is not None and heat is not None and image.picture is not None:
                write_overlay(overlay, image.picture, heat)
                row["heatmap"] = str(overlay)
            found.append(Prediction(str(file), **row))
        return found

    def _rows(self, seen: Sequence[_Seen], asked: _Asked) -> list[tuple[np.ndarray | None, dict[str, Any]]]:
        """For each image its heat, where that is asked for, and fields of its `Prediction`."""
        batch = evaluation_batch([image.pixels for image in seen], self.input, self._machine.device)
        pixels = self._machine.place(batch)
        with torch.no_grad():
            with self._machine.autocast(frozen=True):
                stored = self._prefix(pixels)
            with self._machine.autocast():
                probabilities = self._behind(self._machine.hand_over(stored)).float().softmax(dim=1)
        rows = _best(probabilities, asked.top, self.classes, "")
        if asked.original is not None:
            with torch.no_grad(), self._machine.autocast(frozen=True):
                of_source = asked.original(pixels).float().softmax(dim=1)
            for row, more in zip(rows, _best(of_source, _SOURCE_CLASSES, asked.source_classes, "source_"), strict=True):
                row.update(more)
        if asked.known is not None:
            for row, p in zip(rows, asked.known.p_values(probabilities.cpu().numpy()).tolist(), strict=True):
                row.update(p_known=p, unknown=p <= asked.rate)
        heats = [None] * len(rows) if asked.maps is None else asked.maps.of(pixels, probabilities.argmax(dim=1))
        return list(zip(heats, rows, strict=True))


def _best(probabilities: Tensor, most: int, names: Sequence[str], kind: str) -> list[dict[str, Any]]:
    """For each row of probabilities [images, classes] the best, under the names of `Prediction`'s fields."""
    best = probabilities.topk(min(most, len(names)), dim=1)
    return [
        {f"{kind}classes": tuple(names[i] for i in indices), f"{kind}probabilities": tuple(values)}
        for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def load(folder: Path | str, *, device: str = "auto", announce: Callable[[str], None] = announce_on_stderr) -> Model:
    """The model in a run folder or a model folder; it computes as it was tested, where the machine can."""
    keep_memory()
    if not os.path.exists(folder):
        raise UsageError(f"There is no run folder or model folder '{folder}'.", "`inarch fit` makes one.")
    source, device = load_source(str(folder), announce=announce), chosen_device(device)
    plan, frozen_stages = _arithmetic(source)
    if "bf16" in plan.precisions and not computes_in_bf16(device):
        announce(f"{source.name} was tested in bf16, which device {device} lacks: it computes in fp32 here.")
        plan = Plan(plan.memory_format)
    return Model(source, Machine(device, plan), frozen_stages, announce)


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
