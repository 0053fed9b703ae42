"""Fenced blocks of Markdown pages, and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


@dataclass(frozen=True)
class Block:
    """What stands between two fences: `kind` is the word behind the first, `line` its number in the page."""

    kind: str
    text: str
    line: int


def blocks_of(text: str) -> Iterator[Block]:
    """Every fenced block of a page, in order, without the indentation of its list; one without an end is an error."""
    fence, kind, start, indentation, inside = "", "", 0, "", list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        found = re.fullmatch(r"(\s*)(`{3,}|~{3,})\s*(.*?)\s*", line)
        if not fence and found:
            indentation, fence, kind = found.groups()
            start, inside = number, []
        elif fence and found and not found[3] and found[2].startswith(fence):
            yield Block(kind, "\n".join(inside), start)
            fence = ""
        elif fence:
            inside.append(line.removeprefix(indentation))
    if fence:
        raise ValueError(f"The block in line {start} does not end.")


def commands_of(block: Block) -> list[str]:
    """The commands of a console block: what follows `$ `, with lines that a backslash continues."""
    commands, goes_on = list[str](), False
    for line in block.text.splitlines():
        if goes_on:
            commands[-1] += " " + line.removesuffix("\\").strip()
        elif line.startswith("$ "):
            commands.append(line.removeprefix("$ ").removesuffix("\\").strip())
        goes_on = line.endswith("\\") and (goes_on or line.startswith("$ "))
    return commands
