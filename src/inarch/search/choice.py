"""What a study chooses, and what it compares the choice with.

Candidates are found by the search's one seed, in a halving search with a part of the epochs; each is then trained in
full with seeds of its own, and the choice is made among those, so that a lucky search result cannot flatter itself.
Confirmation is a race: everybody runs with the first seeds, the leaders of both sides and the baselines with all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean
from typing import final

from inarch.network.grafts import graft_class
from inarch.search.rates import best_traditional, linear_probes, traditional_grid, traditional_trials
from inarch.search.rounds import with_seed
from inarch.search.space import History, Result, Space, Track, best_result
from inarch.search.standing import best_with_old_layers, by_graft, replacing, results_of
from inarch.training.trial import Trial

# Seeds that every candidate gets, however it does: the least of which a spread can be seen.
RACE = 2
BASELINES = ("traditional", "linear_probe")


@dataclass(frozen=True)
class Candidate:
    """A trial worth confirming. results: its finished confirmations in order of seed, else the search's own.

    failed: how many confirmations could not be trained; whatever the others say, that is against the candidate.
    """

    trial: Trial
    results: tuple[Result, ...]
    confirmed: bool
    failed: int = 0

    @property
    def accuracy(self) -> float:
        return fmean(r.accuracy for r in self.results)

    @property
    def seeds(self) -> set[int]:
        return {r.trial.seed for r in self.results}

    def merit(self, seeds: set[int]) -> tuple[int, float, float, int]:
        """Higher is better: no failures, then mean accuracy over `seeds`, then lower log loss, then the deeper cut."""
        found = [r for r in self.results if r.trial.seed in seeds] or self.results
        return -self.failed, fmean(r.accuracy for r in found), -fmean(r.log_loss for r in found), self.trial.cut


def confirmations(space: Space, trial: Trial) -> tuple[Trial, ...]:
    """The trial again with every confirmation seed; none of them is the search's."""
    return _with_seeds(trial, space.seed + 1, space.seed + space.seeds)


@lru_cache(maxsize=1000)
def _with_seeds(trial: Trial, first: int, last: int) -> tuple[Trial, ...]:
    return tuple(with_seed(trial, seed) for seed in range(first, last + 1))


def best_of_graft(space: Space, history: History) -> dict[str, Trial]:
    """The best that the search found for each graft of the proposal, as a trial with all epochs."""
    return {
        graft: space.in_full(best.trial)
        for graft, tracks in by_graft(space).items()
        if (best := _best(tracks, space, history))
    }


def stand_in(tracks: list[Track], space: Space, history: History) -> Candidate | None:
    """The best of these tracks that was trained with all epochs, for where their best by the search was not (yet)."""
    trials = [t for track in tracks for t in space.probes(track) if t.settings == space.settings]
    searched = [space.in_full(result.trial) for result in results_of(tracks, space, history)]
    return _best_trained([*trials, *searched], space, history)


def _best_trained(trials: list[Trial], space: Space, history: History) -> Candidate | None:
    found = [c for trial in _distinct(trials) if (c := candidate(space, history, trial))]
    return max(found, key=lambda c: c.merit(c.seeds), default=None)


def trained_traditional(space: Space, history: History) -> Candidate | None:
    """The best traditional fine-tuning with all epochs, whatever the search thinks of its rates."""
    return _best_trained([space.in_full(t) for t in traditional_grid(space)], space, history)


def stand_ins(space: Space, history: History) -> list[Trial]:
    """The trials that would be reported for lack of something better, if the study ended now."""
    best = best_of_graft(space, history)
    aims = [(tracks, best.get(graft)) for graft, tracks in by_graft(space).items()]
    aims.append((replacing(space), roles(space, history).get("replace_best_cut")))
    missing = [tracks for tracks, trial in aims if trial is None or candidate(space, history, trial) is None]
    found = [stand_in(tracks, space, history) for tracks in missing]
    return _distinct(c.trial for c in (*found, trained_traditional(space, history)) if c)


def roles(space: Space, history: History) -> dict[str, Trial]:
    """What a report speaks of by role, but for the choice, as trials with all epochs; absent where nothing was found.

    Whether a role was trained with all epochs already is for `candidate` to say.
    """
    found = {f"{graft}_best_cut": trial for graft, trial in best_of_graft(space, history).items()}
    for role, best in (
        ("replace_best_cut", _best(replacing(space), space, history)),
        ("traditional", best_traditional(space, history, _usable(space, history))),
        ("linear_probe", _best_usable(_done(linear_probes(space), history), space, history)),
    ):
        if best is not None:
            found[role] = space.in_full(best.trial)
    return found


def candidate(space: Space, history: History, trial: Trial, seeds: int | None = None) -> Candidate | None:
    """The trial with what was trained of it with all epochs, with its first `seeds` (all); None where nothing was."""
    tried = [r for t in confirmations(space, trial)[:seeds] if (r := history.get(t.key))]
    found = tuple(r for r in tried if r.accuracy >= 0)
    own = history.get(trial.key)
    if not found and (own is None or own.accuracy < 0):
        return None
    return Candidate(trial, found or (history[trial.key],), bool(found), len(tried) - len(found))


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
        promising = sorted(self._grafts.values(), key=_promise(space, history), reverse=True)
        # The question is about both sides: their best come first, then what must be there, then the rest.
        sides = [[t for t in promising if _keeps_layer(t) is keeps] for keeps in (True, False)]
        first = [t for t in promising if t in [side[0] for side in sides if side]]
        self._runners = _distinct([*first, *baselines, *promising, *self.roles.values()])
        # How many runners a study cannot do without.
        self.essential = len(_distinct([*first, *baselines]))
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
        return [t for t in _distinct(following) if t.key not in self._history]

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
        replaced = [c for c in found.values() if c and not _keeps_layer(c.trial)]
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
            [c for c in self.found().values() if _keeps_layer(c.trial) is keeps] for keeps in (True, False)
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


def required(space: Space, history: History) -> list[Trial]:
    """The next trials without which a study has nothing to say: all epochs of the traditional, of a linear probe, of
    a trial of the proposal.

    After a failure it is the next of the grid, or the proposal's next track; where all have failed nothing more can be
    done.
    """
    found = roles(space, history)
    wanted: list[Trial] = []
    all_layers = _distinct([*traditional_trials(space, history), *traditional_grid(space)])
    for role, grid in (("linear_probe", linear_probes(space)), ("traditional", all_layers)):
        if role in found:
            trained = trained_traditional(space, history) if role == "traditional" else None
            if trained is None and candidate(space, history, found[role]) is None:
                wanted += [t for t in confirmations(space, found[role]) if t.key not in history][:1]
        else:
            wanted += _with_all_epochs(space, [t for t in grid if t.key not in history][:1])
    best, tracks = best_of_graft(space, history), by_graft(space)
    if not best:
        probes = [space.probes(track)[0] for track in space.proposal]
        wanted += _with_all_epochs(space, [t for t in probes if t.key not in history][:1])
    elif not any(candidate(space, history, best[g]) or stand_in(tracks[g], space, history) for g in best):
        promising = max(best.values(), key=_promise(space, history))
        wanted += [t for t in confirmations(space, promising) if t.key not in history][:1]
    return _distinct(wanted)


def _with_all_epochs(space: Space, trials: list[Trial]) -> list[Trial]:
    """Trials of the search, each with what makes a candidate of it."""
    short = [t for t in trials if t.settings != space.settings]
    return [*trials, *(confirmations(space, space.in_full(t))[0] for t in short)]


def _best(tracks: list[Track], space: Space, history: History) -> Result | None:
    found = list(filter(_usable(space, history), results_of(tracks, space, history)))
    # Where time ended before any cut of these tracks was looked at, their probes stand for them.
    probes = [trial for track in tracks for trial in space.probes(track)]
    best = best_result(found) or _best_usable(_done(probes, history), space, history)
    rival = best_with_old_layers(found)
    if best is None or rival is None or _always_failed(space, history, space.in_full(rival.trial)):
        return best
    own, other = (history.get(space.in_full(result.trial).key) for result in (best, rival))
    return rival if own and other and other.merit > own.merit else best


def _always_failed(space: Space, history: History, trial: Trial) -> bool:
    """Whether a trial with all epochs failed with every confirmation seed."""
    again = [history.get(t.key) for t in confirmations(space, trial)]
    return all(result is not None and result.accuracy < 0 for result in again)


def _keeps_layer(trial: Trial) -> bool:
    return graft_class(trial.configuration.graft).keeps_layer


def _done(trials: list[Trial], history: History) -> list[Result]:
    return [history[t.key] for t in trials if t.key in history]


def _best_usable(results: Iterable[Result], space: Space, history: History) -> Result | None:
    return best_result(filter(_usable(space, history), results))


def _usable(space: Space, history: History) -> Callable[[Result], bool]:
    """Whether a trial of the search was trained, and can be trained in full with any seed."""

    def hopeless(trial: Trial) -> bool:
        return _always_failed(space, history, trial) and candidate(space, history, trial) is None

    return lambda result: result.accuracy >= 0 and not hopeless(space.in_full(result.trial))


def _promise(space: Space, history: History) -> Callable[[Trial], tuple[float, float, int]]:
    """What the search thought of a trial with all epochs; the better of two, where it trained it with all, too."""

    def promise(trial: Trial) -> tuple[float, float, int]:
        return max(r.merit for t in (space.as_searched(trial), trial) if (r := history.get(t.key)))

    return promise


def _distinct(trials: Iterable[Trial]) -> list[Trial]:
    return list({trial.key: trial for trial in trials}.values())
