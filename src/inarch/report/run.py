"""What a report is drawn from: the files of a run folder, checked. No PyTorch."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from inarch.errors import RunFolderError
from inarch.results.comparison import COMPARISON, validate_comparison
from inarch.results.evidence import EVIDENCE, THUMBNAILS, validate_evidence
from inarch.results.folder import lacks
from inarch.results.schema import validate_results

RESULTS = "results.json"
_AGAIN = "Run `inarch fit` again with the same arguments to have it written."


@final
@dataclass(frozen=True)
class Run:
    """The results of a study, and its evidence, which folders of older versions lack.

    `thumbnails` are data addresses by the name that the evidence gives them; one that is lost is not there.
    """

    results: Mapping[str, Any]
    evidence: Mapping[str, Any] | None = None
    thumbnails: Mapping[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        names: list[str] = self.results["dataset"]["classes"]
        return names


def read_comparison(folder: Path) -> Run | None:
    """What a comparison found; None where the folder holds none. Raises `RunFolderError` as `read_run` does."""
    results = _json(folder / COMPARISON)
    if results is None:
        return None
    validate_comparison(results)
    return Run(results)


def read_run(folder: Path) -> Run:
    """Raises `RunFolderError` where `results.json` is missing, or a file is no JSON or lacks a field."""
    results = _json(folder / RESULTS)
    if results is None:
        raise RunFolderError(*lacks(folder, "report", RESULTS))
    validate_results(results)
    evidence = _json(folder / EVIDENCE)
    if evidence is None:
        return Run(results)
    validate_evidence(evidence, len(results["dataset"]["classes"]))
    names = [name for row in evidence["examples"] for name in row["thumbnails"]]
    names += [mistake["thumbnail"] for mistake in evidence["model"]["mistakes"]]
    files = {name: folder / THUMBNAILS / name for name in dict.fromkeys(names)}
    return Run(results, evidence, {name: _address(file) for name, file in files.items() if file.is_file()})


def _json(path: Path) -> Any:
    """What a file holds; None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}.", _AGAIN) from error


def _address(file: Path) -> str:
    try:
        return "data:image/webp;base64," + base64.b64encode(file.read_bytes()).decode()
    except OSError as error:
        raise RunFolderError(f"{file} cannot be read: {error}.", _AGAIN) from error
