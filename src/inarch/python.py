"""Inarch from Python, with the same words as the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console

from inarch.comparison.options import CompareOptions
from inarch.comparison.story import compare as run_comparison
from inarch.errors import UsageError
from inarch.features.place import bytes_of
from inarch.network.class_names import read_classes
from inarch.network.source import SourceOptions
from inarch.options import StudyOptions
from inarch.predict import load
from inarch.ranking import sources as ranking
from inarch.study import fit as run
from inarch.terminal import QuietProgress
from inarch.texts import number_of, seconds, shots_of, sizes, views_of, words

__all__ = ["compare", "fit", "load", "rank"]


def fit(data: Path | str, *, source: str | Path, out: Path | str, **options: Any) -> dict[str, Any]:
    """Runs or continues a study and returns what `results.json` holds.

    `options` are the fields of `StudyOptions` (grafts, cuts, seeds, ...) and of `SourceOptions` (weights, image_size,
    ...), as values or as the texts of the command line: cuts=(3, 6) or "3,6", hidden=((512, 256),) or "512,256",
    time_limit=1200 (seconds) or "20m", store_limit=200_000_000 (bytes) or "200MB". An unknown one is a `UsageError`.
    """
    study, of_source = _options("fit", options)
    return run(Path(data), str(source), Path(out), study, of_source, QuietProgress(Console(stderr=True)))


def compare(
    data: Path | str, *, source: str | Path, out: Path | str, methods: Sequence[str] | str,
    shots: Sequence[int | str] | int | str = "all", trials: int = 8, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Runs or continues a comparison of methods and returns what `comparison.json` holds.

    shots: images a class, numbers or "all". `options` are those of `fit` but cuts and method; grafts are
    "replace,retain" where none are given, and seeds are the draws.
    """
    for name in ("cuts", "method"):
        if name in options:
            raise UsageError(f"compare has no option '{name}'.", "Tuning tries cuts itself; methods are given.")
    study, of_source = _options("compare", {"grafts": "replace,retain"} | options)
    text = ",".join(map(str, [shots] if isinstance(shots, int | str) else shots))
    names = words(methods) if isinstance(methods, str) else tuple(methods)
    wanted = CompareOptions(names, shots_of(text), trials, study)
    return run_comparison(Path(data), str(source), Path(out), wanted, of_source, QuietProgress(Console(stderr=True)))


def _options(verb: str, options: dict[str, Any]) -> tuple[StudyOptions, SourceOptions]:
    study, of_source = ({f.name for f in fields(kind)} for kind in (StudyOptions, SourceOptions))
    unknown = options.keys() - study - of_source
    if unknown:
        raise UsageError(
            f"{verb} has no option '{sorted(unknown)[0]}'.", f"Options are: {', '.join(sorted(study | of_source))}."
        )
    if options.get("pretrained") is False:
        raise UsageError("pretrained=False leaves the weights random.", "A study needs trained weights.")
    options = {name: _value(name, value) for name, value in options.items()}
    return (
        StudyOptions(**{name: value for name, value in options.items() if name in study}),
        SourceOptions(**{name: value for name, value in options.items() if name in of_source}),
    )


def rank(data: Path | str, *, sources: Sequence[str | Path], **options: Any) -> dict[str, Any]:
    """Orders source networks by how well they suit a data set, before any training; see `inarch.ranking.sources.rank`.

    `options` are image_size, device, max_pixels and seed, as for `fit`. An unknown one is a `UsageError`.
    """
    known = ("image_size", "device", "max_pixels", "seed")
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise UsageError(f"rank has no option '{unknown[0]}'.", f"Options are: {', '.join(known)}.")
    if isinstance(sources, str | Path):
        raise UsageError(f"sources is one text: {str(sources)!r}.", "Give a list of sources.")
    of_source = SourceOptions(image_size=options.pop("image_size", None))
    study = StudyOptions(**options)
    return ranking.rank(Path(data), [str(s) for s in sources], study, of_source, QuietProgress(Console(stderr=True)))


def _value(name: str, given: Any) -> Any:
    """An option as its field holds it, from a value or from a text of the command line."""
    if name in ("grafts", "harmonise", "cuts", "stages"):
        return words(given) if isinstance(given, str) else tuple(map(str, [given] if isinstance(given, int) else given))
    if name == "hidden":
        return tuple(map(_hidden, [given] if isinstance(given, str | int) else given))
    if name == "time_limit" and isinstance(given, str):
        return seconds(given)
    if name == "classes" and isinstance(given, str | Path):
        return read_classes(Path(given).name, Path(given).parent, f"classes={str(given)!r}")
    if name == "views" and isinstance(given, str):
        return views_of(given)
    if name in ("mixup", "ema", "classifier_start") and isinstance(given, str):
        return number_of(name.replace("_", "-"), given)
    if name == "store_limit" and isinstance(given, str):
        return bytes_of(given)
    if name in ("weights", "store") and given is not None:
        return Path(given)
    return tuple(given) if isinstance(given, list) else given


def _hidden(given: Any) -> tuple[int, ...]:
    """The sizes of one variant; a number is a variant of one layer."""
    if isinstance(given, str):
        return sizes(given)
    return (given,) if isinstance(given, int) else tuple(given)
