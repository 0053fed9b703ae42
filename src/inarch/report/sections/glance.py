"""The data set at a glance: a few images of each class, counts, and what was set aside."""

from __future__ import annotations

from collections import Counter

from inarch.plural import counted
from inarch.report.run import Run
from inarch.report.section import Section, Table

OPEN = 12
SPLITS = ("train", "validation", "test")


def section(run: Run) -> Section:
    data = run.results["dataset"]
    counts, made = data["counts"], data.get("made_splits", [])
    text = [
        f"{len(run.classes)} classes. "
        + ", ".join(
            f"{split}: {counted(counts[split], 'image')}{' (split made by Inarch)' * (split in made)}"
            for split in SPLITS
        )
        + "."
    ]
    text += [] if run.evidence is None else _balance(run)
    tables = [] if run.evidence is None else [_class_table(run)]
    reasons = Counter(item["reason"] for item in data["set_aside"])
    if reasons:
        text.append(
            f"{counted(sum(reasons.values()), 'file was', 'files were')} set aside and not used: "
            + "; ".join(f"{n} \N{MULTIPLICATION SIGN} {reason}" for reason, n in reasons.most_common())
            + "."
        )
        tables.append(
            Table(
                "Files set aside",
                ["File", "Why"],
                [[item["path"], item["reason"]] for item in data["set_aside"]],
                folded=f"Files set aside: {len(data['set_aside'])}",
            )
        )
    else:
        text.append("No file was set aside.")
    shown = [] if run.evidence is None else _cards(run)
    if shown:
        text.append("Some training images of each class, and how many there are for training / validation / test:")
    values = {"classes": shown, "open": OPEN, "names": run.classes}
    return Section("data", "The data", text, tables=tables, values=values)


def _cards(run: Run) -> list[dict[str, object]]:
    assert run.evidence is not None
    return [
        {
            "name": name,
            "counts": " / ".join(str(row["counts"][split]) for split in SPLITS),
            "images": [run.thumbnails[t] for t in row["thumbnails"] if t in run.thumbnails],
        }
        for name, row in zip(run.classes, run.evidence["examples"], strict=True)
    ]


def _balance(run: Run) -> list[str]:
    """Whether the classes are of one size, in words."""
    assert run.evidence is not None
    sizes = [row["counts"]["train"] for row in run.evidence["examples"]]
    least, most = min(sizes), max(sizes)
    if least == most:
        return [f"Each class has {counted(most, 'training image')}."]
    small, large = (run.classes[sizes.index(n)] for n in (least, most))
    return [f"Training images of a class: from {least} ({small}) to {most} ({large})."]


def _class_table(run: Run) -> Table:
    assert run.evidence is not None
    return Table(
        "Images of each class",
        ["Class", *SPLITS],
        [
            [name, *(str(row["counts"][split]) for split in SPLITS)]
            for name, row in zip(run.classes, run.evidence["examples"], strict=True)
        ],
        numbers=frozenset({1, 2, 3}),
        folded="Images of each class and split as a table",
    )
