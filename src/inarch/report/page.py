"""`report.html`: what a study found, drawn from its run folder alone, so also where no PyTorch is installed.

The page holds everything it shows: no script, no outside request (its own security policy forbids them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from inarch.report.run import Run, read_comparison, read_run
from inarch.report.section import Section
from inarch.report.sections import OF_COMPARISONS, SECTIONS
from inarch.results.folder import write_text

REPORT = "report.html"


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder and return its path; equal files give equal bytes.

    Raises `RunFolderError` where `results.json` is missing, where it or `evidence.json` is not JSON or lacks a field,
    and where the page cannot be written.
    """
    comparison = read_comparison(folder)
    page = render(comparison, OF_COMPARISONS) if comparison else render(read_run(folder))
    return write_text(folder / REPORT, page)


def render(run: Run, makers: Sequence[Callable[[Run], Section | None]] = SECTIONS) -> str:
    """Return the page for what a run folder holds."""
    # Names of classes, files and stages come from a user's disk: everything is escaped but the pictures.
    environment = Environment(
        loader=PackageLoader("inarch.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    sections = [found for make in makers if (found := make(run)) is not None]
    return environment.get_template("page.html.j2").render(results=run.results, sections=sections) + "\n"
