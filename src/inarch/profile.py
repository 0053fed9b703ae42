"""Where the time went: every moment belongs to one section, so that they sum to the total. Peak memory beside it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import final

OTHER = "other"
# The time of processes beside this one; what they did stands in its place.
SIDE_BY_SIDE = "side by side"
# What a study is for; all other sections are what it costs to get there.
WORK = ("training", "evaluation on validation", "evaluation on test", "views", "prefix passes", "range tests")


@final
class Profile:
    """Seconds by section. Sections nest: an inner one's time is its own and not the outer one's. For one thread."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds that never go back."""
        self._clock = clock
        self._since = clock()
        self._within = [OTHER]
        self._seconds: dict[str, float] = {}
        self._works_beside = False
        self._beside: dict[str, float] = {}
        self._memory: dict[int, int] = {}

    @contextmanager
    def section(self, name: str) -> Generator[None]:
        """Time until the end of the `with` belongs to `name`, but for what sections inside it take."""
        self._credit()
        self._within.append(name)
        try:
            yield
        finally:
            self._credit()
            self._within.pop()

    def seconds(self) -> dict[str, float]:
        """Seconds by section until now, in the order in which they were first left; they sum to the total.

        What belongs to processes beside this one is shared out by what these spent their time on.
        """
        self._credit()
        found = dict(self._seconds)
        beside = sum(self._beside.values())
        if beside and (waited := found.pop(SIDE_BY_SIDE, 0.0)):
            for name, spent in self._beside.items():
                found[name] = found.get(name, 0.0) + waited * spent / beside
        return found

    def add_beside(self, process: int, seconds: Mapping[str, float], memory: int) -> None:
        """Where the time of work beside this process went, and the bytes that the process (a number) alone held."""
        for name, spent in seconds.items():
            self._beside[name] = self._beside.get(name, 0.0) + spent
        self._memory[process] = max(memory, self._memory.get(process, 0))

    @property
    def memory_beside(self) -> int:
        """The most bytes that each process beside this one held alone, together."""
        return sum(self._memory.values())

    def works_beside(self, works: bool) -> None:
        """Whether processes beside this one work from now on: then the time is theirs, whatever this one does."""
        self._credit()
        self._works_beside = works

    def _credit(self) -> None:
        """The time since the last change belongs to the innermost section, or to those who work beside."""
        now = self._clock()
        name = SIDE_BY_SIDE if self._works_beside else self._within[-1]
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now


def overhead(seconds: dict[str, float]) -> float:
    """The share, from 0 to 1, of the time that was not spent on training, evaluation or feature extraction."""
    total = sum(seconds.values())
    return 1 - sum(seconds.get(name, 0.0) for name in WORK) / total if total else 0.0


def peak_memory() -> int | None:
    """Bytes of memory that this process held at most, as the operating system counts; None where it does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return peak if sys.platform == "darwin" else peak * 1024
