"""What the study cost."""

from __future__ import annotations

from inarch.report import words
from inarch.report.run import Run
from inarch.report.section import Section, Table

_PARTS = {
    "training_seconds": "Training and validating all trials",
    "range_test_seconds": "Finding learning rates",
    "source_pass_seconds": "One pass of the original network, for the source classes",
}


def section(run: Run) -> Section:
    cost = run.results["cost"]
    environment = cost.get("environment") or {}
    where = ", ".join(
        f"{name} {environment[name]}" for name in ("device", "processor", "threads") if name in environment
    )
    text = [
        f"Trials: {cost['trials']}. The last call took {words.duration(cost['seconds'])}"
        + (f" ({where})" if where else "")
        + "."
    ]
    if "plan" in environment:
        text.append(words.plan_sentence(environment["plan"]))
    rows = [[label, words.duration(cost[name])] for name, label in _PARTS.items() if name in cost]
    table = Table("Time over all calls of this study", ["What", "Time"], rows, frozenset({1}))
    return Section("cost", "What it cost", text, tables=[table] if rows else [])
