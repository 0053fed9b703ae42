"""Where the time went: every moment belongs to one section, so that they sum to the total. Peak memory beside it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import final

OTHER = "other"
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
        """Seconds by section until now, in the order in which they were first left; they sum to the total."""
        self._credit()
        return dict(self._seconds)

    def _credit(self) -> None:
        """The time since the last change belongs to the innermost section."""
        now = self._clock()
        name = self._within[-1]
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
