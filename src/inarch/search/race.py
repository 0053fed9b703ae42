"""Who is trained again how often, and what is chosen in the end.

Confirmation is a race: everybody runs with the first seeds, the leaders of both sides and the baselines with all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import final

from inarch.search.choice import (
    Candidate,
    best_of_graft,
    candidate,
    confirmations,
    distinct,
    keeps_layer,
    promise,
    roles,
    stand_in,
    trained_traditional,
)
from inarch.search.space import History, Space, Track
from inarch.search.standing import by_graft, replacing
from inarch.training.trial import Trial

# Seeds that every candidate gets, however it does: the least of which a spread can be seen.
RACE = 2
BASELINES = ("traditional", "linear_probe")


@final
class Race:
    """Who is trained again how often: two seeds for everybody, all for the baselines and for those that lead.

    A runner that failed with every seed so far has further ones, until one succeeds, or all fail and another trial
    takes its place.

    The race is run anew from the results each time, seed by seed: what a study that was stopped trained beyond that,
    when others led, does not count.
    """

    def __init__(self, space: Space, history: History) -> None:
        self._space, self._history = space, history
        self.roles = roles(space, history)
        self._grafts = best_of_graft(space, history)
        baselines = [self.roles[role] for role in BASELINES if role in self.roles]
        promising = sorted(self._grafts.values(), key=promise(space, history), reverse=True)
        # The question is about both sides: their best come first, then what must be there, then the rest.
        sides = [[t for t in promising if keeps_layer(t) is keeps] for keeps in (True, False)]
        first = [t for t in promising if t in [side[0] for side in sides if side]]
        self._runners = distinct([*first, *baselines, *promising, *self.roles.values()])
        # How many runners a study cannot do without.
        self.essential = len(distinct([*first, *baselines]))
        self._confirmations = [(t.key, confirmations(space, t)) for t in self._runners]
        self._seeds = {t.key: min(RACE, space.seeds) for t in self._runners}
        self._seeds |= {t.key: space.seeds for t in baselines}
        while not any(self.pending()) and (behind := [t for t in self._favoured() if self._seeds[t.key] < space.seeds]):
            self._seeds[behind[0].key] += 1

    def pending(self) -> Iterator[Trial]:
        """What is to be trained next: seed by seed, within a seed the most promising first and the baselines early."""
        for number in range(self._space.seeds):
            for key, again in self._confirmations:
                if number < self._seeds[key] and again[number].key not in self._history:
                    yield again[number]

    def likely(self) -> list[Trial]:
        """What will probably be trained next once nothing is pending, where all have run their first seeds: the next
        seed of those that lead now."""
        if any(trial.seed <= self._space.seed + RACE for trial in self.pending()):
            return []
        behind = [t for t in self._favoured() if self._seeds[t.key] < self._space.seeds]
        following = [confirmations(self._space, t)[self._seeds[t.key]] for t in behind]
        return [t for t in distinct(following) if t.key not in self._history]

    def found(self) -> dict[str, Candidate]:
        """What stands behind each role: where time ended before its trial was trained in full, the best of the role
        that was. Roles without any are absent. The baselines replace the layer at cuts of their own, so they stand for
        its best cut where they did better.
        """
        tracks = {f"{graft}_best_cut": tracks for graft, tracks in by_graft(self._space).items()}
        tracks["replace_best_cut"] = replacing(self._space)
        found = {role: self._behind(trial, tracks.get(role, [])) for role, trial in self.roles.items()}
        if "traditional" in found:
            found["traditional"] = found["traditional"] or trained_traditional(self._space, self._history)
        replaced = [c for c in found.values() if c and not keeps_layer(c.trial)]
        if replaced:
            found["replace_best_cut"] = self._best(replaced)
        return {role: c for role, c in found.items() if c}

    def complete(self) -> bool:
        """Whether the best of every graft, and every baseline, was trained in full."""
        return all(self._trained(trial) for trial in self.roles.values())

    def choice(self) -> Candidate | None:
        """The best among the best of each graft of the proposal, and the baselines where they are trials of it: what
        the search with its few epochs thought little of may be the best in full.
        """
        tracks = by_graft(self._space)
        found = [self._behind(trial, tracks[graft]) for graft, trial in self._grafts.items()]
        if self._space.baseline in self._space.proposal:
            found += [c for role, c in self.found().items() if role in BASELINES and c.confirmed]
        return self._best(found)

    def sides(self) -> tuple[Candidate | None, Candidate | None]:
        """The best that keeps the classification layer, and the best that replaces it."""
        kept, replaced = (
            [c for c in self.found().values() if keeps_layer(c.trial) is keeps] for keeps in (True, False)
        )
        return self._best(kept), self._best(replaced)

    def _behind(self, trial: Trial, tracks: list[Track]) -> Candidate | None:
        return self._trained(trial) or stand_in(tracks, self._space, self._history)

    def _trained(self, trial: Trial) -> Candidate | None:
        return candidate(self._space, self._history, trial, self._seeds[trial.key])

    def _favoured(self) -> list[Trial]:
        """Who gets further seeds: those that lead, and those of which nothing is known but failures."""
        leaders = [c.trial for c in (self.choice(), *self.sides()) if c is not None and c.trial.key in self._seeds]
        known = [(t, self._trained(t)) for t in self._runners]
        return leaders + [t for t, c in known if c is None or (c.failed and not c.confirmed)]

    def _best(self, found: Iterable[Candidate | None]) -> Candidate | None:
        """The best by validation: once all have run two seeds, over all that each has, before over common ones.

        Where time was too short to confirm all, the search's own result counts as well, or the choice would fall on
        what is cheap to train again. What failed instead gives way to all that is confirmed.
        """
        candidates = [c for c in found if c]
        if not candidates:
            return None
        confirmed = [c for c in candidates if c.confirmed]
        if confirmed and all(c.confirmed or c.failed for c in candidates):
            finished = all(len(c.results) + c.failed >= min(RACE, self._space.seeds) for c in confirmed)
            common = set.intersection(*(c.seeds for c in confirmed))
            return max(confirmed, key=lambda c: c.merit(c.seeds if finished else common))

        def all_that_is_known(c: Candidate) -> tuple[int, float, float, int]:
            own = self._history.get(c.trial.key)
            results = {r.trial.key: r for r in (*([own] if own and own.accuracy >= 0 else []), *c.results)}
            known = replace(c, results=tuple(results.values()))
            return known.merit(known.seeds)

        return max(candidates, key=all_that_is_known)
