"""CSV and Parquet manifests: columns path, label and optionally split; paths are relative to the manifest."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inarch.data.values import SPLIT_NAMES, SPLITS, Candidate, Listing, SetAside, printable
from inarch.errors import DataError, MissingExtraError

COLUMNS = ("path", "label", "split")
_PARQUET = (".parquet", ".pq")
MANIFEST_SUFFIXES = (".csv", *_PARQUET)


def list_manifest(file: Path) -> Listing:
    """What a manifest names. A file ending in .parquet or .pq is Parquet, any other CSV with commas, in UTF-8.

    Rows without path or label, and rows that say the same again, are set aside. A split column may be empty as a whole;
    else every row must name one. Raises `DataError` for a manifest that cannot be read or lacks a column.
    """
    columns = _read_parquet(file) if file.suffix.lower() in _PARQUET else _read_csv(file)
    lacking = [name for name in COLUMNS[:2] if name not in columns]
    if lacking:
        raise DataError(
            f"The manifest {file} has the columns {', '.join(map(repr, columns)) or 'none'}; "
            f"{' and '.join(map(repr, lacking))} is missing.",
            "Give it the columns 'path' and 'label', and 'split' if the splits are yours.",
        )
    paths, labels = columns["path"], columns["label"]
    splits = columns.get("split") or [""] * len(paths)
    named = any(splits)
    candidates: list[Candidate] = []
    set_aside: list[SetAside] = []
    seen: set[tuple[str, str, str | None]] = set()
    for number, (path, label, split) in enumerate(zip(paths, labels, splits, strict=True), start=1):
        if not path or not label:
            set_aside.append(SetAside(printable(path) or f"row {number}", f"no {'label' if path else 'path'}"))
            continue
        row = Candidate(
            _relative(path, file.parent),
            file.parent / path,
            unicodedata.normalize("NFC", label),
            _split(split, number, file) if named else None,
        )
        if (row.path, row.label, row.split) in seen:
            set_aside.append(SetAside(row.path, f"row {number} says the same as an earlier one"))
            continue
        seen.add((row.path, row.label, row.split))
        candidates.append(row)
    if not candidates:
        raise DataError(f"The manifest {file} names no images.", "Give it a row with path and label for each image.")
    return Listing(
        tuple(candidates),
        tuple(sorted({row.label for row in candidates})),
        tuple(split for split in SPLITS if any(row.split == split for row in candidates)),
        tuple(set_aside),
        (),
    )


def _relative(path: str, folder: Path) -> str:
    """The path as it is shown: never absolute, with forward slashes."""
    if os.path.isabs(path):
        path = os.path.relpath(path, folder)
    return printable(Path(path).as_posix())


def _split(name: str, number: int, file: Path) -> str:
    if name.lower() not in SPLIT_NAMES:
        problem = (
            f"Row {number} of the manifest {file} names the split {name!r}."
            if name
            else (f"Row {number} of the manifest {file} has no split, though others have one.")
        )
        raise DataError(problem, "Name train, validation or test in every row, or leave out the column.")
    return SPLIT_NAMES[name.lower()]


def _read_csv(file: Path) -> dict[str, list[str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            header, *rows = [row for row in csv.reader(opened) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"The manifest {file} cannot be read: {error}.", "Give a CSV file with commas in UTF-8."
        ) from None
    names = [name.strip().lower() for name in header]
    columns = {
        name: [row[index].strip() if index < len(row) else "" for row in rows] for index, name in enumerate(names)
    }
    _refuse_twice(names, file)
    return columns


def _read_parquet(file: Path) -> Mapping[str, list[str]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError(f"Reading the Parquet manifest {file}", "parquet") from None
    try:
        table = pyarrow.parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"The manifest {file} cannot be read: {error}.", "Give a Parquet file.") from None
    names = [str(name).strip().lower() for name in table.column_names]
    _refuse_twice(names, file)
    return {
        name: [_text(value) for value in column.to_pylist()] if name in COLUMNS else []
        for name, column in zip(names, table.columns, strict=True)
    }


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _refuse_twice(names: Sequence[str], file: Path) -> None:
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if twice:
        raise DataError(f"The manifest {file} has the column {twice[0]!r} twice.", "Keep one of them.")
