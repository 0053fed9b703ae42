"""What a study chooses, and what it compares the choice with.

Candidates are found by the search's one seed; each is then trained again with seeds of its own, and the choice is made
among those, so that a lucky search result cannot flatter itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean

from inarch.network.grafts import graft_class
from inarch.search.rounds import History, linear_probes, track_results, traditional_grid, with_seed
from inarch.search.space import Result, Space, Track
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


def confirmations(space: Space, trial: Trial) -> list[Trial]:
    """The trial again with every confirmation seed; none of them is the search's."""
    return [with_seed(trial, space.seed + number) for number in range(1, space.seeds + 1)]


def best_of_graft(space: Space, history: History) -> dict[str, Trial]:
    """The best trial that the search found for each graft of the proposal."""
    return {
        graft: best
        for graft in dict.fromkeys(track.configuration.graft for track in space.proposal)
        if (best := _best([t for t in space.proposal if t.configuration.graft == graft], space, history))
    }


def roles(space: Space, history: History) -> dict[str, Trial]:
    """The trials that a report speaks of by role, but for the choice; roles without a finished trial are absent."""
    found = {f"{graft}_best_cut": trial for graft, trial in best_of_graft(space, history).items()}
    replacing = [t for t in space.tracks if not graft_class(t.configuration.graft).keeps_layer]
    for role, trial in (
        ("replace_best_cut", _best(replacing, space, history)),
        ("traditional", _best_trial(traditional_grid(space), history)),
        ("linear_probe", _best_trial(linear_probes(space), history)),
    ):
        if trial is not None:
            found[role] = trial
    return found


def candidate(space: Space, history: History, trial: Trial) -> Candidate:
    """The trial with what confirmed it so far."""
    tried = [r for t in confirmations(space, trial) if (r := history.get(t.key))]
    found = tuple(r for r in tried if r.accuracy >= 0)
    return Candidate(trial, found or (history[trial.key],), bool(found), len(tried) - len(found))


def best_candidate(space: Space, history: History, trials: list[Trial]) -> Candidate | None:
    """The best by validation, over the confirmation seeds that all candidates have.

    Where time was too short to confirm all, the search's own result counts as well, or the choice would fall on what is
    cheap to train again.
    """
    candidates = [candidate(space, history, trial) for trial in trials]
    if not candidates:
        return None
    if all(c.confirmed for c in candidates):
        common = set.intersection(*(c.seeds for c in candidates))
        return max(candidates, key=lambda c: c.merit(common))

    def all_that_is_known(c: Candidate) -> tuple[int, float, float, int]:
        results = {r.trial.key: r for r in (history[c.trial.key], *c.results)}
        known = replace(c, results=tuple(results.values()))
        return known.merit(known.seeds)

    return max(candidates, key=all_that_is_known)


def choose(space: Space, history: History) -> Candidate | None:
    """The choice: the best candidate among the best of each graft of the proposal."""
    return best_candidate(space, history, list(best_of_graft(space, history).values()))


def to_confirm(space: Space, history: History) -> Iterator[Trial]:
    """Confirmations that are not done, seed by seed; within a seed the most promising first, baselines early."""
    found = roles(space, history)
    promising = sorted(best_of_graft(space, history).values(), key=lambda t: history[t.key].merit, reverse=True)
    baselines = [found[role] for role in ("traditional", "linear_probe") if role in found]
    order = [*promising[:1], *baselines, *promising[1:], *found.values()]
    distinct = list({trial.key: trial for trial in order}.values())
    for number in range(space.seeds):
        for trial in distinct:
            again = confirmations(space, trial)[number]
            if again.key not in history:
                yield again


def _best(tracks: list[Track], space: Space, history: History) -> Trial | None:
    results = [r for track in tracks for r in track_results(track, space, history)]
    return max(results, key=lambda r: r.merit).trial if results else None


def _best_trial(trials: list[Trial], history: History) -> Trial | None:
    results = [r for t in trials if (r := history.get(t.key)) and r.accuracy >= 0]
    return max(results, key=lambda r: r.merit).trial if results else None
