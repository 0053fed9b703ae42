"""What each new class looks like in source classes: which source logits of the original network it raises."""

from __future__ import annotations

from typing import Any

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
        f"The classification layer that came with the network knows {count or 'its own'} classes. This is what the "
        "original network, before any training here, sees in the training images of each new class: the source classes "
        "whose logits it raises most, in standard deviations above their mean over all training images. Where the "
        "names make sense, the old layer has something to say about the new class; where several classes share theirs, "
        "it hardly tells them apart."
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
