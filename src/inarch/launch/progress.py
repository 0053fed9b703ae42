"""What a long run tells while it works. This one is silent; the command line has one that draws."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """How far a study is. done, expected: trials. best: validation accuracy so far. left: seconds, as estimated."""

    done: int
    expected: int
    best: float | None
    left: float


class Progress:
    """Every call may be ignored; nothing is decided by them."""

    def announce(self, text: str) -> None:
        """What the user must see, also when nothing is drawn."""

    def note(self, text: str) -> None:
        """What happens next: for somebody who watches."""

    def images(self, done: int, total: int) -> None:
        """Images read so far."""

    def trial(self, name: str, standing: Standing) -> None:
        """A trial begins."""

    def step(self, step: int, steps: int) -> None:
        """A step of the trial is done."""
