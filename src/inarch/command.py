"""The command that repeats a study or a comparison, from what the user asked for, also where that was in Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from inarch.network.source import SourceOptions
from inarch.options import StudyOptions


def command(
    data: Path,
    source: str,
    options: StudyOptions,
    of_source: SourceOptions,
    verb: str = "fit",
    also: Iterable[tuple[str, Any]] = (),
) -> list[str]:
    """The words of a command line, with every option that differs from its default, and those that are given `also`.

    Of paths only the last part stays, so that no folder of the machine is given away.
    """
    words = ["inarch", verb, data.resolve().name, "--source", _shortened(source), "--out", "again"]
    given = dict(also)
    changed = [(name, value) for name, value in (*_changed(options), *_changed(of_source)) if name not in given]
    for name, value in (*given.items(), *changed):
        words += _as_options(name, value)
    return words


def _changed(options: StudyOptions | SourceOptions) -> Iterator[tuple[str, Any]]:
    for field in fields(options):
        value = getattr(options, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if value != default:
            yield field.name, value


def _as_options(name: str, value: Any) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    if name == "hidden":
        return [word for sizes in value for word in (option, ",".join(map(str, sizes)))]
    if name == "classes":
        return [option, "class-names.json"]
    if name == "time_limit":
        # Never with an exponent, which the command line does not read.
        return [option, f"{value:.3f}".rstrip("0").rstrip(".") + "s"]
    if name == "store_limit":
        return [option, f"{value}B"]
    if isinstance(value, Path):
        return [option, value.name]
    return [option, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


def _shortened(source: str) -> str:
    """`timm:resnet18` as it is, a path by its last part, also that in `python:FILE:FUNCTION`."""
    form, colon, rest = source.partition(":")
    if colon and form == "python":
        file, _, function = rest.rpartition(":")
        return f"python:{Path(file).name}:{function}"
    return source if colon and form in ("timm", "torchvision", "inarch") else Path(source).resolve().name
