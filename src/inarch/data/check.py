"""What `inarch check` says about a data set: as plain values and as something to print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from inarch.data.values import SPLITS, DataSet, Duplicate, SetAside
from inarch.plural import counted

_SHOWN = 20


def summary(dataset: DataSet) -> dict[str, Any]:
    """All that was found, as values that JSON can hold; counts are numbers of images."""
    counts = dataset.counts("train")
    return {
        "classes": list(dataset.classes),
        "splits": {
            name: {
                "images": len(dataset.split(name)),
                "made": name in dataset.made,
                "classes": dict(zip(dataset.classes, dataset.counts(name).tolist(), strict=True)),
                "missing": list(dataset.missing(name)),
            }
            for name in SPLITS
        },
        "imbalance": float(counts.max() / counts.min()),
        "set_aside": [{"path": item.path, "reason": item.reason} for item in dataset.set_aside],
        "duplicates": [
            {
                "paths": list(group.paths),
                "splits": list(group.splits),
                "labels": list(group.labels),
                "across": group.across,
                "conflicting": group.conflicting,
            }
            for group in dataset.duplicates
        ],
        "warnings": list(dataset.warnings),
        "digest": dataset.digest,
    }


def describe(dataset: DataSet) -> RenderableType:
    """The same for a terminal: counts, imbalance, what was set aside, duplicates, warnings. Names are never markup."""
    counts = dataset.counts("train")
    largest, smallest = dataset.classes[int(counts.argmax())], dataset.classes[int(counts.argmin())]
    parts: list[RenderableType] = [
        _table(dataset),
        _line(
            f"Imbalance: {counts.max() / counts.min():.1f} (train: {counts.max()} of '{largest}', "
            f"{counts.min()} of '{smallest}')"
        ),
        *_set_aside(dataset.set_aside),
        *_duplicates(dataset.duplicates),
        *(_line(f"Warning: {warning}", "yellow") for warning in dataset.warnings),
    ]
    return Group(*parts)


def _table(dataset: DataSet) -> Table:
    table = Table("class", *(name + (" (made)" if name in dataset.made else "") for name in SPLITS))
    for column in table.columns[1:]:
        column.justify = "right"
    by_split = [dataset.counts(name).tolist() for name in SPLITS]
    for name, *numbers in zip(dataset.classes, *by_split, strict=True):
        table.add_row(_line(name), *map(str, numbers))
    table.add_section()
    table.add_row(f"{len(dataset.classes)} classes", *(str(sum(numbers)) for numbers in by_split))
    return table


def _set_aside(items: Sequence[SetAside]) -> list[Text]:
    lines = [_line(f"Set aside: {len(items)}")]
    lines += [_line(f"  {item.path}: {item.reason}") for item in items[:_SHOWN]]
    return lines + _more(len(items))


def _duplicates(groups: Sequence[Duplicate]) -> list[Text]:
    across, conflicting = sum(group.across for group in groups), sum(group.conflicting for group in groups)
    within = len(groups) - across
    lines = [
        _line(
            f"Exact duplicates: {counted(len(groups), 'picture')} ({within} within a split, {across} across splits, "
            f"{conflicting} with conflicting labels)"
        )
    ]
    # The harmful ones first: they may not be hidden among hundreds of harmless ones.
    for group in sorted(groups, key=lambda group: (not group.conflicting, not group.across))[:_SHOWN]:
        marks = ["conflicting labels"] * group.conflicting + ["across splits"] * group.across
        places = ", ".join(f"{path} ({split})" for path, split in zip(group.paths, group.splits, strict=True))
        lines.append(_line(f"  {places}" + (f": {', '.join(marks)}" if marks else "")))
    return lines + _more(len(groups))


def _more(count: int) -> list[Text]:
    return [_line(f"  and {count - _SHOWN} more")] if count > _SHOWN else []


def _line(text: str, style: str = "") -> Text:
    """Text with control characters written out: a file's name must not steer the terminal."""
    return Text("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text), style=style)
