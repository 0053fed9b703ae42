"""The time of one call against its limit."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import final

from inarch.plural import counted
from inarch.report.words import duration

# A call may outlast its limit by a tenth, or by a minute; what must be there may use half of that.
OVERTIME = (0.1, 60.0)


@final
@dataclass
class Clock:
    """Time since the call began, against its limit in seconds (None: no limit)."""

    limit: float | None
    start: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        return math.inf if self.limit is None else self.start + self.limit - time.monotonic()

    def deadline(self, reserve: float) -> float:
        """When work must stop (monotonic) so that `reserve` seconds are left."""
        return math.inf if self.limit is None else self.start + self.limit - reserve

    def overtime(self) -> float:
        """Seconds by which a call may outlast its limit."""
        return 0.0 if self.limit is None else max(OVERTIME[0] * self.limit, OVERTIME[1])

    def passed(self) -> float:
        return time.monotonic() - self.start

    def forecast(self, trials: int, seconds: float) -> str:
        """How many trials are to come and how long they will take, in words."""
        if not trials:
            return "All trials are recorded already: nothing is left to train."
        limited = "" if self.limit is None else f"; the time limit is {duration(self.limit)}"
        return f"About {counted(trials, 'trial')}, {duration(seconds)} as estimated{limited}."
