"""What each new class looks like in source classes: which source logits of the original network it raises."""

from __future__ import annotations

from typing import Any

from inarch.report import words
from inarch.report.run import Run
from inarch.report.section import Section, Table

OPEN = 12


def section(run: Run) -> Section | None:
    if run.evidence is None:
        return None
    rows = run.evidence["source_classes"]
    most = max((source["raised"] for row in rows for source in row), default=1.0) or 1.0
    shown: list[dict[str, Any]] = [
        {
            "name": name,
            "image": next((run.thumbnails[t] for t in example["thumbnails"] if t in run.thumbnails), None),
            "sources": [
                {"name": s["name"], "raised": f"+{s['raised']:.1f}", "share": f"{100 * s['raised'] / most:.1f}"}
                for s in row
            ],
        }
        for name, row, example in zip(run.classes, rows, run.evidence["examples"], strict=True)
    ]
    count = run.results["source"].get("classes")
    text = [
        f"Before it was adapted, the network knew {count or 'its own'} other classes. This is what it saw in your "
        "images then: for each of your classes those old classes that it held likelier for its training images than "
        "for the others. +1.0 means that the logit of the old class lies one standard deviation above its mean over "
        "all training images; bars are on one scale. Where the names make sense, the old classification layer has "
        "something to say about the new class; where several classes share theirs, it hardly tells them apart. Names "
        "that make none may stand for a texture or a background.",
        _use(run.results["chosen"]),
    ]
    table = Table(
        "Source classes that each class raises, in standard deviations",
        ["Class", "Source classes"],
        [
            [one["name"], ", ".join(f"{s['name']} {s['raised']}" for s in one["sources"]) or "none"]
            for one in shown
        ],
        folded="The same as a table",
    )  # fmt: skip
    title = "What each class looks like to the source network"
    return Section("source-classes", title, text, tables=[table], values={"classes": shown, "open": OPEN})


def _use(chosen: Any) -> str:
    """Whether the choice makes use of what is shown; the picture is of the original network in either case."""
    if chosen["graft"] in words.KEEPING:
        return f"The configuration that was chosen ({chosen['graft']}) keeps this layer and builds on its answers."
    return "The configuration that was chosen replaces this layer, so it does not read these answers."
