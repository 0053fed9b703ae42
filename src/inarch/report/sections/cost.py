"""What the study cost."""

from __future__ import annotations

from collections.abc import Mapping

from inarch.plural import counted
from inarch.report import words
from inarch.report.run import Run
from inarch.report.section import Section, Table
from inarch.report.sections.per_class import share_bar

_PARTS = {
    "training_seconds": "Training and validating all trials",
    "range_test_seconds": "Finding learning rates",
    "source_pass_seconds": "One pass of the original network, for the source classes",
}


# Parts of a call below this share are not named one by one.
_SHOWN = 0.01
# Names of `cost.profile` that say too little outside of the code.
_NAMES = {
    "views": "making varied views of the images",
    "prefix passes": "computing what frozen stages give out",
    "evaluation on validation": "judging on validation images",
    "measuring": "measuring what is fastest on this machine",
    "range tests": "finding learning rates",
    "search and estimates": "deciding what to try next",
}


def section(run: Run) -> Section:
    cost = run.results["cost"]
    environment = cost.get("environment") or {}
    where = ", ".join(
        f"{name} {environment[name]}" for name in ("device", "processor", "threads") if name in environment
    )
    text = [
        f"{counted(cost['trials'], 'trial')}: trainings of the search, which are short, and in full.",
        f"The last call took {words.duration(cost['seconds'])}{f' ({where})' if where else ''}.",
    ]
    if memory := cost.get("peak_memory_bytes"):
        text.append(f"It held at most {words.size(memory)} of memory.")
    if "plan" in environment:
        text.append(words.plan_sentence(environment["plan"]))
    if environment.get("allocator_keeps_memory"):
        text.append(
            "For speed the C library was told to keep memory that training frees and soon asks for again, which "
            "changes no result."
        )
    if environment.get("plan", {}).get("workers", 1) > 1:
        text.append("What processes side by side took is added up below, so parts may be longer than the whole.")
    rows = [[label, words.duration(cost[name])] for name, label in _PARTS.items() if name in cost]
    table = Table("Time over all calls of this study", ["What", "Time"], rows, frozenset({1}))
    tables = [table] if rows else []
    return Section("cost", "What it cost", text, tables=[*tables, *_profile(cost.get("profile", {}))])


def _profile(profile: Mapping[str, float]) -> list[Table]:
    """Where the time of a call went, the largest part first."""
    whole = sum(profile.values())
    if not whole:
        return []
    named = {name: seconds for name, seconds in profile.items() if seconds >= _SHOWN * whole and name != "other"}
    parts = [(_NAMES.get(name, name), named[name]) for name in sorted(named, key=lambda name: (-named[name], name))]
    parts.append(("everything else", whole - sum(named.values())))
    rows = [
        [name, share_bar(seconds / whole), words.percent(seconds / whole), words.duration(seconds)]
        for name, seconds in parts
    ]
    columns = ["What", "From 0 to 100 %", "Share", "Time"]
    return [Table("Where the time of the last call went", columns, rows, frozenset({2, 3}))]
