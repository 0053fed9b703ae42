"""`report.html`: what a study found, drawn from its run folder alone, so also where no PyTorch is installed.

The page holds everything it shows: no script, no outside request (its own security policy forbids them).
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from inarch.report.run import Run, read_run
from inarch.report.sections import SECTIONS
from inarch.results.folder import write_text

REPORT = "report.html"


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder and return its path; equal files give equal bytes.

    Raises `RunFolderError` where `results.json` is missing, where it or `evidence.json` is not JSON or lacks a field,
    and where the page cannot be written.
    """
    return write_text(folder / REPORT, render(read_run(folder)))


def render(run: Run) -> str:
    """Return the page for what a run folder holds."""
    # Names of classes, files and stages come from a user's disk: everything is escaped but the pictures.
    environment = Environment(
        loader=PackageLoader("inarch.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    sections = [found for make in SECTIONS if (found := make(run)) is not None]
    return environment.get_template("page.html.j2").render(results=run.results, sections=sections) + "\n"
