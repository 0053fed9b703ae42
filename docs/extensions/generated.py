"""Parts of the site that are drawn from the program: the options of its commands, its methods and its grafts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from inarch.catalogue import GRAFTS, METHODS, Entry
from inarch.cli import app


class Commands(SphinxDirective):
    """Every command with its arguments and options, as `--help` has them, a section each."""

    def run(self) -> list[nodes.Node]:
        return [self._section(name, command) for name, command in commands_of(typer.main.get_command(app), "inarch")]

    def _section(self, name: str, command: Any) -> nodes.Node:
        context = typer.Context(command, info_name=name)
        section = nodes.section(ids=[nodes.make_id(name)], names=[nodes.fully_normalize_name(name)])
        section += nodes.title("", "", nodes.literal(text=name))
        section += nodes.paragraph("", "", *inline(command.help))
        usage = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
        section += nodes.literal_block(usage, usage, language="text")
        listed = nodes.definition_list(classes=["options"])
        for parameter in command.get_params(context):
            written, meaning = parameter.get_help_record(context)
            if "--help" not in parameter.opts:
                listed += item(written, meaning)
        section += listed if listed.children else []
        self.state.document.note_explicit_target(section)
        return section


class Methods(SphinxDirective):
    """A table of the methods: name, what it does, paper."""

    option: ClassVar[str] = "--method"
    entries: ClassVar[tuple[Entry, ...]] = METHODS

    def run(self) -> list[nodes.Node]:
        group = nodes.tgroup(cols=3)
        group += [nodes.colspec(colwidth=width) for width in (15, 50, 35)]
        group += nodes.thead("", row([[nodes.Text(text)] for text in (self.option, "what it does", "paper")]))
        body = nodes.tbody()
        for entry in self.entries:
            body += row([[nodes.literal(text=entry.name)], inline(entry.line), linked(entry.paper)])
        group += body
        return [nodes.table("", group)]


class Grafts(Methods):
    """A table of the grafts: name, what it is, paper."""

    option = "--grafts"
    entries = GRAFTS


def commands_of(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The commands of an application in its order, those of a group one after the other, with their whole names."""
    for part, inner in getattr(command, "commands", {}).items():
        yield from commands_of(inner, f"{name} {part}")
    if not getattr(command, "commands", None):
        yield name, command


def item(written: str, meaning: str) -> nodes.Node:
    """An option as it is written, and what it means."""
    return nodes.definition_list_item(
        "",
        nodes.term("", "", nodes.literal(text=written)),
        nodes.definition("", nodes.paragraph("", "", *inline(meaning))),
    )


def row(cells: Iterable[list[nodes.Node]]) -> nodes.Node:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def inline(text: str) -> list[nodes.Node]:
    """Text, of which parts in backticks are code."""
    parts = enumerate(text.split("`"))
    return [nodes.literal(text=part) if number % 2 else nodes.Text(part) for number, part in parts if part]


def linked(paper: str) -> list[nodes.Node]:
    """A reference to a paper, of which the number at arXiv is a link."""
    before, number, after = (*re.split(r"(arXiv \d{4}\.\d{4,5})", paper), "", "")[:3]
    address = f"https://arxiv.org/abs/{number.removeprefix('arXiv ')}"
    link = [nodes.reference("", number, refuri=address)] if number else []
    return [nodes.Text(before), *link, nodes.Text(after)]


def setup(application: Sphinx) -> dict[str, bool]:
    application.add_directive("commands", Commands)
    application.add_directive("methods", Methods)
    application.add_directive("grafts", Grafts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
