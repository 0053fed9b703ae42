"""What is said of each image, and how it is written to a CSV file."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inarch.errors import UsageError

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Prediction:
    """One image: the most probable classes with their probabilities, best first, or why it could not be read.

    Where they were asked for: `source_classes`, those of the original network, in the same way; `p_known`, the
    conformal p-value of belonging to a known class (results/unknown.py), and `unknown`, whether it is not above the
    rate; `heatmap`, the file of the overlay.
    """

    path: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    error: str | None = None
    source_classes: tuple[str, ...] = ()
    source_probabilities: tuple[float, ...] = ()
    p_known: float | None = None
    unknown: bool = False
    heatmap: str | None = None

    @property
    def answer(self) -> str:
        """The most probable class, or "unknown"; empty where the image could not be read."""
        return UNKNOWN if self.unknown else next(iter(self.classes), "")


def require_place(out: Path | None) -> None:
    """`UsageError` where a CSV file could never be written: before hours of work, not behind them."""
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        reason = "it is a folder" if out.is_dir() else "its folder is not there"
        raise UsageError(f"{out} cannot be written: {reason}.", "Choose another --out.")


@dataclass(frozen=True)
class Columns:
    """What the lines of a CSV file hold beside path and error: so many classes and source classes, and the rest."""

    classes: int
    source_classes: int = 0
    unknown: bool = False
    heatmap: bool = False

    def header(self) -> list[str]:
        """The names of the columns."""
        return [
            "path",
            *(["answer", "p_known"] if self.unknown else []),
            *_ranked("", self.classes),
            *_ranked("source_", self.source_classes),
            *(["heatmap"] if self.heatmap else []),
            "error",
        ]

    def row(self, p: Prediction) -> list[str]:
        """The cells of one image."""
        p_known = "" if p.p_known is None else f"{p.p_known:.6f}"
        return [
            p.path,
            *([p.answer, p_known] if self.unknown else []),
            *_cells(p.classes, p.probabilities, self.classes),
            *_cells(p.source_classes, p.source_probabilities, self.source_classes),
            *([p.heatmap or ""] if self.heatmap else []),
            p.error or "",
        ]


def _ranked(kind: str, count: int) -> list[str]:
    return [f"{kind}{name}_{rank}" for rank in range(1, count + 1) for name in ("class", "probability")]


def _cells(names: Sequence[str], values: Sequence[float], count: int) -> list[str]:
    cells = [cell for name, value in zip(names, values, strict=True) for cell in (name, f"{value:.6f}")]
    return [*cells, *[""] * (2 * (count - len(names)))]


def write_csv(predictions: Sequence[Prediction], out: Path | None, columns: Columns) -> None:
    """One line an image, with a header that is the same whatever can be read."""
    rows = [columns.header(), *(columns.row(p) for p in predictions)]
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
