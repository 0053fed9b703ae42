"""What a reader must know before believing the rest: warnings, and what time was too short for."""

from __future__ import annotations

from inarch.plural import counted
from inarch.report.run import Run
from inarch.report.section import Section

OLD = (
    "This run folder was written by a version of Inarch that kept less: sections about errors, classes and images are "
    "left out. The same `inarch fit` command adds them; what its search tries now and did not try then is trained."
)


def section(run: Run) -> Section | None:
    results = run.results
    warnings = [*results["dataset"].get("warnings", []), *results.get("warnings", [])]
    if run.evidence is None:
        warnings.append(OLD)
    if not warnings and not results["left_out"]:
        return None
    values = {
        "warnings": warnings,
        "left_out": results["left_out"],
        "number": counted(len(results["left_out"]), "trial was", "trials were"),
    }
    return Section("mind", "Before you quote a figure", values=values)
