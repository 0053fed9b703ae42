"""What the command line draws: progress and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table

from inarch.features.place import readable
from inarch.launch.progress import Progress, Standing
from inarch.plural import counted

if TYPE_CHECKING:
    from inarch.catalogue import Entry
    from inarch.features.shelf import Entry as Segment
    from inarch.network.stages import Stages


@final
class TerminalProgress(Progress):
    """Two lines: the study (trials done and to come, best so far, time left) and the trial or the images read."""

    def __init__(self, bars: Bars, console: Console) -> None:
        self._bars, self._console = bars, console
        self._study: TaskID | None = None
        self._work = bars.add_task("", total=None, visible=False)

    def announce(self, text: str) -> None:
        self.note(text)

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def images(self, done: int, total: int) -> None:
        self._bars.update(self._work, description="Images read", completed=done, total=total, visible=done < total)

    def trial(self, name: str, standing: Standing) -> None:
        best = "" if standing.best is None else f", best validation accuracy {100 * standing.best:.1f} %"
        text = f"Trials{best}, about {standing.left / 60:.0f} min left"
        if self._study is None:
            self._study = self._bars.add_task(text)
        self._bars.update(self._study, description=text, completed=standing.done, total=standing.expected)
        self._bars.reset(self._work, description=name, visible=True)

    def step(self, step: int, steps: int) -> None:
        self._bars.update(self._work, completed=step, total=steps, visible=True)


@final
class QuietProgress(Progress):
    """Only what the user must see, a line each: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def announce(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress_on(console: Console) -> Iterator[Progress]:
    """Progress for the length of a `with`: drawn on a terminal, quiet elsewhere."""
    if not console.is_terminal:
        yield QuietProgress(console)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        yield TerminalProgress(bars, console)


def stages_table(staged: Stages) -> Table:
    """The stages of a network, as `inarch stages` prints them."""
    from inarch.network.stages import stage_rows

    table = whole_table("index", "name", "parameters", "cost", "output shape")
    for row in stage_rows(staged):
        table.add_row(*row)
    return table


def methods_table(entries: Iterable[Entry], kind: str = "method") -> Table:
    """Every method or graft, as `inarch methods` and `inarch grafts` print them."""
    table = whole_table(kind, "what it does", "paper")
    for entry in entries:
        table.add_row(entry.name, entry.line, entry.paper)
    return table


def results_table(results: Mapping[str, Any]) -> Table:
    """The test of the choice and of what it is compared with."""
    table = whole_table("", "configuration", "cut", "test accuracy", "95 % interval", "seeds")
    for role, row in results["test"].items():
        low, high = row["interval95"]
        sizes = "-".join(map(str, row["hidden"]))
        table.add_row(
            role.replace("_", " "),
            " ".join(part for part in (row["graft"], sizes, row["harmonise"]) if part),
            f"{row['cut']['index']} ({row['cut']['name']})",
            f"{100 * row['accuracy']:.1f} %",
            f"{100 * low:.1f} to {100 * high:.1f}",
            str(len(row["seeds"])),
        )
    return table


def print_ranking(ranking: Mapping[str, Any], console: Console, errors: Console) -> None:
    """The scores of every source, how to read them, and which sources could not be ranked."""
    console.print(ranking_table(ranking))
    console.print(ranking["sentence"], soft_wrap=True)
    for failed in ranking["failed"]:
        errors.print(f"{failed['source']} could not be ranked: {failed['reason']}", style="yellow", soft_wrap=True)


def ranking_table(ranking: Mapping[str, Any]) -> Table:
    """Source networks, best first, with all their scores and the seconds that each took, reading images aside."""
    titles = ranking["titles"]
    table = whole_table("", "source", *titles.values(), "features", "seconds")
    for place, row in enumerate(ranking["ranked"], start=1):
        spent = ranking["cost"]["seconds"][row["source"]]
        table.add_row(
            str(place),
            row["name"],
            *(f"{row['scores'][name]:.3f}" for name in titles),
            str(row["features"]),
            f"{sum(value for part, value in spent.items() if part != 'reading images'):.1f}",
        )
    return table


def print_results(results: Mapping[str, Any], out: Path, console: Console) -> None:
    """What a study found: the sentence, the test table, and where to look."""
    _print_found(results, results_table(results), console)
    console.print(f"Report: {out / 'report.html'}   Model: {out / 'model'}", soft_wrap=True)


def print_comparison(results: Mapping[str, Any], out: Path, console: Console) -> None:
    """What a comparison found, as far as it came, and where the report is."""
    _print_found(results, comparison_table(results), console)
    console.print(f"Report: {out / 'report.html'}", soft_wrap=True)


def _print_found(results: Mapping[str, Any], table: Table, console: Console) -> None:
    console.print(results["sentence"], soft_wrap=True)
    for warning in results.get("warnings", []):
        console.print(warning, style="yellow", soft_wrap=True)
    console.print(table)
    if results["left_out"]:
        left_out = counted(len(results["left_out"]), "trial")
        console.print(f"Left out for lack of time: {left_out}; the same command goes on.")


def comparison_table(results: Mapping[str, Any]) -> Table:
    """Every contestant of a comparison, the best first within a number of training images."""
    from inarch.report.words import points, points_range  # late: it brings matplotlib

    table = whole_table("images a class", "", "test accuracy", "95 % interval", "points against traditional", "draws")
    for size in results["sizes"]:
        paired = {row["name"]: row for row in size["paired"]}
        for row in sorted(size["contestants"], key=lambda row: -row["accuracy"]):
            low, high = row["interval95"]
            pair = paired.get(row["name"])
            table.add_row(
                str(size["shots"] or "all"),
                row["name"],
                f"{100 * row['accuracy']:.1f} %",
                f"{100 * low:.1f} to {100 * high:.1f}",
                f"{points(pair['difference'])} ({points_range(pair['interval95'])})" if pair else "",
                str(len(row["seeds"])),
            )
    return table


def store_table(entries: Sequence[Segment]) -> Table:
    """What is stored, as `inarch store list` prints it: a row for all views of a split at a cut of a source.

    `entries` come most recently used first, and so do the rows. Segments whose manifest is damaged share a row.
    """
    together: dict[tuple[str, ...], list[Segment]] = {}
    for entry in entries:
        about = entry.manifest.about if entry.manifest else {}
        place = tuple(str(about.get(name, "unknown")) for name in ("source", "stage", "split"))
        images = str(entry.manifest.images) if entry.manifest else "unknown"
        together.setdefault((*place, images), []).append(entry)
    table = whole_table("size", "source", "cut behind", "split", "images", "views", "last used")
    for place, found in together.items():
        last_used = datetime.fromtimestamp(found[0].used).strftime("%Y-%m-%d %H:%M")
        table.add_row(readable(sum(entry.size for entry in found)), *place, str(len(found)), last_used)
    return table


def profile_table(seconds: Mapping[str, float]) -> Table:
    """Seconds and share of each section of a profile, the longest first, and their sum."""
    table = whole_table("where the time went", "seconds", "share")
    total = sum(seconds.values())
    for name, spent in sorted(seconds.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{spent:.1f}", f"{100 * spent / total:.1f} %")
    table.add_row("all", f"{total:.1f}", "100.0 %")
    return table


def whole_table(*headers: str) -> Table:
    """A table without lines that breaks long names where a terminal is narrow, and never cuts them off."""
    return Table(*(Column(header, overflow="fold") for header in headers), box=None, header_style="bold")
