"""What may be chosen, and what the choice is compared with.

Candidates are found by the search's one seed, in a halving search with a part of the epochs; each is then trained in
full with seeds of its own, and the choice is made among those (`race.py`), so that a lucky search result cannot flatter
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

from inarch.network.grafts import graft_class
from inarch.search.rates import best_traditional, linear_probes, traditional_grid, traditional_trials
from inarch.search.rounds import with_seed
from inarch.search.space import History, Result, Space, Track, best_result
from inarch.search.standing import best_with_old_layers, by_graft, replacing, results_of
from inarch.training.trial import Trial


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
    found = [c for trial in distinct(trials) if (c := candidate(space, history, trial))]
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
    return distinct(c.trial for c in (*found, trained_traditional(space, history)) if c)


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


def required(space: Space, history: History) -> list[Trial]:
    """The next trials without which a study has nothing to say: all epochs of the traditional, of a linear probe, of
    a trial of the proposal.

    After a failure it is the next of the grid, or the proposal's next track; where all have failed nothing more can be
    done.
    """
    found = roles(space, history)
    wanted: list[Trial] = []
    all_layers = distinct([*traditional_trials(space, history), *traditional_grid(space)])
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
        promising = max(best.values(), key=promise(space, history))
        wanted += [t for t in confirmations(space, promising) if t.key not in history][:1]
    return distinct(wanted)


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


def keeps_layer(trial: Trial) -> bool:
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


def promise(space: Space, history: History) -> Callable[[Trial], tuple[float, float, int]]:
    """What the search thought of a trial with all epochs; the better of two, where it trained it with all, too."""

    def of(trial: Trial) -> tuple[float, float, int]:
        return max(r.merit for t in (space.as_searched(trial), trial) if (r := history.get(t.key)))

    return of


def distinct(trials: Iterable[Trial]) -> list[Trial]:
    """Each trial once, in the order of their first appearance."""
    return list({trial.key: trial for trial in trials}.values())
