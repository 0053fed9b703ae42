"""What a user asks of a comparison, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inarch.comparison.design import MOST_TRIALS
from inarch.errors import UsageError
from inarch.methods import method_class
from inarch.options import StudyOptions

ALL = 0
"""Shots: all images that there are."""


@dataclass(frozen=True)
class CompareOptions:
    """What `compare` takes beside data, source, run folder and the options of a study.

    methods: their names. shots: images a class of a draw, `ALL` for all. trials: with which each contestant is tuned.
    study: grafts, ways to harmonise, epochs, seeds and so on; its seeds are the draws. What it says of methods and cuts
    is not used.
    """

    methods: tuple[str, ...]
    shots: tuple[int, ...] = (ALL,)
    trials: int = 8
    study: StudyOptions = field(default_factory=StudyOptions)

    def __post_init__(self) -> None:
        if not self.methods:
            raise UsageError("--methods names no method.", "`inarch methods` lists them.")
        for name in self.methods:
            self.study.require_bearable(method_class(name))
        if not self.shots:
            raise UsageError("--shots names no number of images.", "Try 5,20,all.")
        if min(self.shots) < 0:
            raise UsageError(f"--shots {min(self.shots)} is too few.", "Give 1 or more images a class, or all.")
        if self.trials < 1:
            raise UsageError(f"--trials {self.trials} is too small.", "Least: 1.")
        if self.trials > MOST_TRIALS:
            raise UsageError(
                f"--trials {self.trials} is more than traditional fine-tuning has settings to try.",
                f"Most: {MOST_TRIALS}, for all to be tuned alike.",
            )

    def identity(self) -> Mapping[str, Any]:
        """What must stay the same when a run folder is used again."""
        return {**self.study.identity(), **dict(self.own()), "kind": "comparison"}

    def own(self) -> list[tuple[str, Any]]:
        """Its own options as on the command line."""
        shots = tuple("all" if number == ALL else str(number) for number in self.shots)
        return [("grafts", self.study.grafts), ("methods", self.methods), ("shots", shots), ("trials", self.trials)]
