"""The trials that all contestants of study.py are asked for, a sample of them, and the sum over it: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

GRAFTS = ("replace", "retain", "deepen", "joined")


@dataclass(frozen=True)
class Grid:
    """Every cut x graft x seed. frozen_shares: the share of the forward pass before each cut, 0 to `stages`."""

    frozen_shares: tuple[float, ...]
    cuts: tuple[int, ...]
    grafts: tuple[str, ...] = GRAFTS
    seeds: int = 2

    @property
    def stages(self) -> int:
        return len(self.frozen_shares) - 1

    def grafts_at(self, cut: int) -> tuple[str, ...]:
        """Replacing throws the last stage away, so nothing can be frozen behind the one before it."""
        return tuple(g for g in self.grafts if cut < self.stages or g != "replace")

    def trials(self) -> list[tuple[int, str]]:
        """(cut, graft) of every trial of one seed."""
        return [(cut, graft) for cut in self.cuts for graft in self.grafts_at(cut)]

    def __len__(self) -> int:
        return len(self.trials()) * self.seeds


def spread_cuts(stages: int, count: int = 8) -> tuple[int, ...]:
    """At most `count` cuts from none to all before the classification layer, evenly spread, and the one behind it."""
    return (*sorted({int(place) for place in np.linspace(0, stages - 1, count).round()}), stages)


def sampled_cuts(cuts: Sequence[int], count: int) -> tuple[int, ...]:
    """`count` of the cuts, evenly spread, the first and the last among them."""
    places = sorted({int(place) for place in np.linspace(0, len(cuts) - 1, count).round()})
    return tuple(cuts[place] for place in places)


def sample(grid: Grid, count: int, turn: int) -> list[dict[str, Any]]:
    """One trial at each of `count` cuts; the graft goes round with the cut and with `turn`, the number of the round."""
    found = []
    for place, cut in enumerate(sampled_cuts(grid.cuts, count)):
        grafts = grid.grafts_at(cut)
        found.append({"cut": cut, "graft": grafts[(place + turn) % len(grafts)]})
    return found


def all_grafts(grid: Grid) -> list[dict[str, Any]]:
    """Every graft at the middle one of the cuts: whether a trial's cost depends on its graft."""
    cut = grid.cuts[len(grid.cuts) // 2]
    return [{"cut": cut, "graft": graft} for graft in grid.grafts_at(cut)]


def cost_by_cut(grid: Grid, trials: Iterable[Mapping[str, Any]], key: str = "seconds") -> dict[int, float]:
    """Seconds of a trial at every cut of the grid: the median of the sample at that cut.

    Between two sampled cuts it is linear in the share of the forward pass that is frozen, as forward and backward
    passes are.
    """
    seconds: dict[int, list[float]] = {}
    for trial in trials:
        seconds.setdefault(trial["cut"], []).append(trial[key])
    known = sorted(seconds)
    shares = [grid.frozen_shares[cut] for cut in known]
    middles = [median(seconds[cut]) for cut in known]
    return {cut: float(np.interp(grid.frozen_shares[cut], shares, middles)) for cut in grid.cuts}


def added_up(grid: Grid, by_cut: Mapping[int, float], once: float = 0.0) -> float:
    """Seconds of the whole grid, when every trial of a cut takes the same, and something is done once for all."""
    return once + grid.seeds * sum(by_cut[cut] for cut, _ in grid.trials())


def stored_sum(grid: Grid, trials: Iterable[Mapping[str, Any]]) -> float:
    """Seconds of the whole grid with stored prefixes: one pass fills all cuts for a seed, all trials read.

    That pass is the most that a first trial at a cut takes longer than a second one.
    """
    sampled = list(trials)
    first, again = (cost_by_cut(grid, sampled, key) for key in ("first", "again"))
    filling = grid.seeds * max(0.0, *(first[cut] - again[cut] for cut in grid.cuts))
    return filling + added_up(grid, again)
