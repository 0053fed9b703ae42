"""Inarch from Python, with the same words as the command line."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from inarch.errors import UsageError
from inarch.launch.progress import Progress
from inarch.network.source import SourceOptions
from inarch.options import StudyOptions
from inarch.predict import load
from inarch.study import fit as run

__all__ = ["fit", "load"]


def fit(data: Path | str, *, source: str | Path, out: Path | str, **options: Any) -> dict[str, Any]:
    """Runs or continues a study and returns what `results.json` holds.

    `options` are the fields of `StudyOptions` (grafts, cuts, seeds, time_limit in seconds, ...) and of `SourceOptions`
    (weights, image_size, ...). An unknown one is a `UsageError`.
    """
    study, of_source = ({f.name for f in fields(kind)} for kind in (StudyOptions, SourceOptions))
    unknown = options.keys() - study - of_source
    if unknown:
        raise UsageError(
            f"fit has no option '{sorted(unknown)[0]}'.", f"Options are: {', '.join(sorted(study | of_source))}."
        )
    return run(
        Path(data),
        str(source),
        Path(out),
        StudyOptions(**{name: value for name, value in options.items() if name in study}),
        SourceOptions(**{name: value for name, value in options.items() if name in of_source}),
        Progress(),
    )
