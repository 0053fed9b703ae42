"""The test images that the delivered model is most confidently wrong about."""

from __future__ import annotations

from inarch.report import words
from inarch.report.run import Run
from inarch.report.section import Section, Table

_SURE = 0.5


def section(run: Run) -> Section | None:
    if run.evidence is None or not run.evidence["model"]["mistakes"]:
        return None
    shown = [
        {
            "image": run.thumbnails.get(mistake["thumbnail"]),
            "true": run.classes[mistake["true"]],
            "predicted": run.classes[mistake["predicted"]],
            "probability": words.percent(min(1.0, mistake["probability"])),
            "probability_of_true": words.percent(mistake["probability_of_true"]),
            "path": mistake["path"],
        }
        for mistake in run.evidence["model"]["mistakes"]
    ]
    table = Table(
        "The most confident errors",
        ["File", "True class", "Predicted class", "Its probability", "Probability of the true class"],
        [[m["path"], m["true"], m["predicted"], m["probability"], m["probability_of_true"]] for m in shown],
        numbers=frozenset({3, 4}),
        folded="The same as a table, with the names of the files",
    )  # fmt: skip
    text = [
        "The test images on which the delivered model was surest of a wrong answer, the surest first: the class that "
        "the data set gives, the class that it said, and the probability that it gave to that. Look for wrong labels, "
        "for pictures that show two things, and for classes that people confuse too."
    ]
    if max(mistake["probability"] for mistake in run.evidence["model"]["mistakes"]) < _SURE:
        text.append("It was sure of none of these: no wrong answer has a probability of one half.")
    return Section("mistakes", "Where it is confidently wrong", text, tables=[table], values={"mistakes": shown})
