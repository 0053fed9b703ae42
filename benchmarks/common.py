"""What all benchmarks share: drawn data sets, measuring in a process of its own, parts that are kept, the machine.

A measurement runs in a child process, so that no setting of one contestant (allocator, threads, denormals) reaches
another, and the operating system counts its memory alone. What it gives is a part: compact JSON in the folder --out,
written when it is finished, so that a benchmark that was stopped goes on behind its last part.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, final

import numpy as np

from inarch.results.folder import write_text

HERE = Path(__file__).resolve().parent
PACKAGES = ("inarch", "torch", "torchvision", "timm", "numpy", "pillow")
DATA_SETS = ("clothing", "grocery", "landuse")
# How a data set's folders are called, and the split that they stand for.
FOLDERS = {"train": "train", "val": "validation", "test": "test"}
# As the command line sets it before PyTorch loads (src/inarch/cli.py).
AS_COMMAND_LINE = {"GOMP_SPINCOUNT": "10000"}
# How often a part that is being measured notes how long it has been going.
NOTE_SECONDS = 5.0

Record = dict[str, Any]


def shared() -> Path:
    """The folder of real networks and images: `INARCH_SHARED`, or `shared` beside the checkout."""
    folder = Path(os.environ.get("INARCH_SHARED", HERE.parents[1] / "shared"))
    if not (folder / "weights").is_dir():
        sys.exit(f"Networks and images are looked for in {folder}, which is not there: set INARCH_SHARED.")
    return folder


def card(network: str) -> Path:
    """The card of a network in the shared folder."""
    return shared() / "weights" / f"{network}.in1k.json"


def arguments(text: str) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), help="work folder; can go on in it")
    parser.add_argument("--parts", type=Path, help="folder of finished parts, compact JSON; else in the work folder")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--quick", action="store_true", help="a small version")
    return parser


def named(script: str, chosen: argparse.Namespace) -> str:
    """What a version of a benchmark is called: by its script, its effort and its device."""
    device = "" if chosen.device == "cpu" else f"-{chosen.device}"
    return f"{script}{'-quick' if chosen.quick else ''}{device}"


def draw_about(work: Path, name: str, images: int, seed: int) -> Path:
    """A manifest below `work` of a shared data set with about `images` training images, drawn by `seed`; its name says
    how many a class."""
    data = shared() / "data" / name
    a_class = a_class_of(data, images)
    return draw(data, work / f"{name}-{a_class}-{seed}.csv", a_class=a_class, seed=seed)


def a_class_of(data: Path, images: int) -> int:
    """How many training images a class come to about `images` in all, equally many of every class; at most 100."""
    return max(1, min(100, images // sum(folder.is_dir() for folder in (data / "train").iterdir())))


def device_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--device`."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda; on cuda ResNet-50 with random weights")


def on_device(device: str) -> Record:
    """The option of a study on that device; parts on a processor do not say it."""
    return {} if device == "cpu" else {"device": device}


def draw(data: Path, file: Path, *, a_class: int, seed: int) -> Path:
    """Writes a manifest of a data set with at most `a_class` training images a class, drawn by `seed`.

    The other splits stay whole. Equal arguments give equal files, whatever the order of the folder.
    """
    random = np.random.default_rng(seed)
    rows: list[tuple[str, str, str]] = []
    for folder, split in FOLDERS.items():
        for group in sorted(path for path in (data / folder).glob("*") if path.is_dir()):
            images = sorted(path for path in group.iterdir() if path.is_file())
            if split == "train" and len(images) > a_class:
                images = [images[i] for i in sorted(random.choice(len(images), a_class, replace=False))]
            rows += [(str(image.resolve()), group.name, split) for image in images]
    file.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "label", "split"), *rows])
    return write_text(file, text.getvalue())  # whole at any time: a measurement may be reading it


def machine(packages: Iterable[str] = PACKAGES) -> Record:
    """What the figures were measured on: processor, cores, memory, load, threads and versions."""
    import torch

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": list(os.getloadavg()),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
    }


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


class ChildError(Exception):
    """A measurement that did not end well, with the last lines that it said."""


class NotNowError(Exception):
    """A part is not there, and only what is there is asked for."""


@final
@dataclass
class Parts:
    """Finished parts in a folder, and the way to measure one that is missing. work: what only serves the measuring."""

    folder: Path
    work: Path
    # How a part is measured: name of a function (`module:function`), its arguments, environment, note of time passed.
    run: Callable[[str, Record, Mapping[str, str], Path], Record] = field(default_factory=lambda: in_child)
    # Whether a part that is missing is measured; else it is a `NotNowError`.
    measuring: bool = True

    def get(self, name: str) -> Record | None:
        file = self._file(name)
        if not file.exists():
            return None
        record: Record = json.loads(file.read_text(encoding="utf-8"))
        return record

    def measure(self, name: str, function: str, values: Record, environment: Mapping[str, str] | None = None) -> Record:
        """The part of that name; if it is not there, what `function` gives, kept.

        A part that was measured with other arguments is an error: it belongs to another benchmark. Of paths only the
        names count and are kept, so that parts can go on elsewhere.
        """
        known = self.get(name)
        if known is not None:
            if known["arguments"] != _identity(values):
                sys.exit(f"{self._file(name)} was measured with other arguments: choose another --out.")
            return known
        if not self.measuring:
            raise NotNowError(name)
        say(f"{name} ...")
        for folder in (self.folder, self.work):
            folder.mkdir(parents=True, exist_ok=True)
        load = os.getloadavg()[0]
        note = self.work / f"{name}.seconds"
        # What Inarch remembers of a machine or keeps for later runs must not come from another part.
        cache = (self.work / "caches" / name).resolve()
        found = self.run(function, values, {"INARCH_CACHE": str(cache), **(environment or {})}, note)
        shutil.rmtree(cache, ignore_errors=True)
        record = {"part": name, "arguments": _identity(values), "load_average": load, **found}
        write_text(self._file(name), json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n")
        note.unlink(missing_ok=True)
        return self.get(name) or record

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _identity(values: Record) -> Record:
    found: Record = json.loads(json.dumps(values, default=lambda path: path.name))
    return found


def in_child(function: str, values: Record, environment: Mapping[str, str], note: Path) -> Record:
    """Calls `module:function` of this folder with `values` in a process of its own; adds its peak memory.

    `note` holds the seconds that earlier calls spent before they were stopped; the result says them as
    `seconds_before`, for functions that go on where they were stopped.
    """
    before = float(note.read_text()) if note.exists() else 0.0
    start = time.monotonic()
    log = note.with_suffix(".log")
    with log.open("ab") as stream:
        child = subprocess.Popen(
            [sys.executable, str(HERE / "common.py"), function],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True, env={**os.environ, **environment},
        )  # fmt: skip
    try:
        given: str | None = json.dumps(values, default=str)
        while True:
            try:
                said, _ = child.communicate(given, timeout=NOTE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                given = None
                note.write_text(f"{before + time.monotonic() - start:.1f}")
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if child.returncode:
        last = log.read_text(errors="replace").splitlines()[-15:]
        raise ChildError(f"{function} ended with {child.returncode}; {log} ends:\n" + "\n".join(last))
    log.unlink()
    found: Record = json.loads(said.splitlines()[-1])
    return found | {"seconds_before": before}


def child_main(function: str) -> None:
    """The child's side: arguments as JSON from standard input, the result as the last line of standard output."""
    result_line = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no result
    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name)(**json.load(sys.stdin))
    # The operating system counts kibibytes; workers of a data loader are children of this process.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    largest_worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    memory = {"peak_memory_bytes": own, "peak_memory_bytes_of_a_worker": largest_worker}
    result_line.write(json.dumps(found | memory, allow_nan=False) + "\n")
    result_line.close()


def peak_memory(record: Record) -> int:
    """Bytes that a part held at most: a study's with the processes that it trains in, which it counts itself."""
    found: int = record.get("cost", record)["peak_memory_bytes"]
    return found


def middle(records: Iterable[Mapping[str, Any]], key: str) -> float:
    """The median of a figure over rounds."""
    return float(median(record[key] for record in records))


def say(text: str) -> None:
    """A line about progress, apart from what is printed as the result."""
    print(text, file=sys.stderr, flush=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on the terminal; numbers stand right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for place, column in enumerate(columns):
        numbers = all(isinstance(row[place], int | float) for row in rows)
        table.add_column(column, justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(title, soft_wrap=True)
    console.print(table)


def write_json(file: Path | None, values: Mapping[str, Any]) -> None:
    """Writes all figures, if a file was named."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    child_main(sys.argv[1])
