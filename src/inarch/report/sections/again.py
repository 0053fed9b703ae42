"""How to run the study again: command, versions, seeds and digests."""

from __future__ import annotations

import shlex
from typing import Any

from inarch.report import words
from inarch.report.run import Run
from inarch.report.section import Section, Table

# Settings whose names say too little.
_NAMES = {"seed": "seed of splits and search", "seeds": "seeds in full, at most", "plan": "execution plan"}


def section(run: Run) -> Section:
    results = run.results
    environment = results["cost"].get("environment") or {}
    command = list(results["cost"].get("command", []))
    if command:
        for name in ("device", "threads"):
            if name in environment and f"--{name}" not in command:
                command += [f"--{name}", str(environment[name])]
    text = [
        "The same command goes on where this run was left, or in another folder gives the same results: the same "
        "images, source network, settings, versions and number of threads give the same figures."
    ]
    return Section(
        "again", "To run it again", text, tables=[_table(results, environment)],
        values={"command": shlex.join(command), "limited": "--time-limit" in command},
    )  # fmt: skip


def _table(results: Any, environment: Any) -> Table:
    shown = dict(environment)
    if "plan" in shown:
        shown["plan"] = words.plan_sentence(shown["plan"]).removeprefix("Execution plan: ")
    if "store_limit" in shown:
        shown["store_limit"] = words.size(shown["store_limit"])
    facts: dict[str, Any] = {
        "data digest": results["dataset"]["digest"],
        "source": results["source"]["name"],
        **({"source digest": results["source"]["digest"]} if "digest" in results["source"] else {}),
        **({"seeds of the choice": results["chosen"]["seeds"]} if "chosen" in results else {}),
        **results.get("settings", {}),
        **shown,
    }
    rows = [[_NAMES.get(name, name.replace("_", " ")), words.setting(value)] for name, value in facts.items()]
    return Table("Digests, seeds, settings and versions", ["What", "Value"], rows)
