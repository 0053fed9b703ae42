"""Layer-wise search in rounds: each round is a list of trials that follows from the results so far.

probes       every track at its deepest cut, where only new layers train, at multiples of the rate that the range
             test found, of which the best is kept; the linear probe's rates
rates        replace without harmonising at its middle cut: two rates of old layers with two of new ones, then on from
             the best of these to higher or lower ones of old layers; what is found holds for all tracks
coarse       traditional fine-tuning of all layers at these rates, old layers lower as long as it helps; the leading
             tracks, of each graft the one that probed best, at a few cuts over the whole depth but the shallowest; the
             other tracks at their deepest cut
other rates  in an exhaustive search only: every track at its best cut, with old layers at the next rates
finer        the contenders, by then the best track that keeps the layer and the best that replaces it, at cuts half-way
             between the best cut and its tried neighbours, until these are tried or as good as it is
all epochs   where a graft, or all that replaces the layer, did best with nothing but new layers trained: its best with
             old layers, which go on learning when new ones alone have come to their end

An exhaustive search thins nothing out: all tracks lead and contend, at every cut, and traditional fine-tuning is
trained at all rates of old layers. All that is trained with all epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest
from math import log

from inarch.network.grafts import graft_class
from inarch.search.rates import (
    at_other_rates,
    linear_probes,
    pairs_to_compare,
    probed_multiple,
    search_trials,
    traditional_grid,
    traditional_trials,
)  # fmt: skip
from inarch.search.space import FAILED, USUAL_RATIO, History, Result, Space, Track, best_result
from inarch.search.standing import best_with_old_layers, by_graft, replacing, results_of, track_results
from inarch.training.trial import Trial


@dataclass(frozen=True)
class Round:
    """A name for the progress line, and trials that are still to do, in order."""

    name: str
    trials: tuple[Trial, ...]


def next_round(space: Space, history: History, left_out: frozenset[str] = frozenset()) -> Round | None:
    """The first round with trials that are not done, or None when all is searched.

    Trials that are left out (their keys) are not proposed, and no round begins before those ahead of it are finished:
    what it would propose might not be what it proposes then, and a study must not depend on where a limit stopped it.
    """
    rounds: tuple[tuple[str, Callable[[Space, History], Iterator[Trial]]], ...] = (
        ("probes", probes),
        ("rates", rates),
        ("coarse cuts", coarse),
        ("other rates", other_rates),
        ("finer cuts", finer),
        ("all epochs", all_epochs),
    )
    for name, make in rounds:
        wanted = {trial.key: trial for trial in make(space, history) if trial.key not in history}
        if wanted:
            pending = tuple(trial for key, trial in wanted.items() if key not in left_out)
            return Round(name, pending) if pending else None
    return None


def probes(space: Space, history: History) -> Iterator[Trial]:
    yield linear_probes(space)[0]
    yield from in_turn([space.probes(track) for track in space.tracks])
    yield from linear_probes(space)


def rates(space: Space, history: History) -> Iterator[Trial]:
    for pair in pairs_to_compare(space, history):
        yield space.rate_trials[pair]


def coarse(space: Space, history: History) -> Iterator[Trial]:
    # What takes longest first, so that the others run beside it.
    yield from traditional_trials(space, history)
    # Depth by depth rather than track by track: a study that is cut short has compared all tracks alike.
    yield from in_turn([coarse_trials(space, track, history) for track in leading_tracks(space, history)])
    for track in ordered_tracks(space, history):
        yield from search_trials(space, track, space.cuts(track)[-1:], history)


def other_rates(space: Space, history: History) -> Iterator[Trial]:
    if space.exhaustive:
        yield from in_turn([at_other_rates(space, track, history) for track in contenders(space, history)])


def in_turn(ladders: Sequence[Sequence[Trial]]) -> Iterator[Trial]:
    """The first trial of each ladder, then the second of each that has one, and so on."""
    return (trial for step in zip_longest(*ladders) for trial in step if trial is not None)


def finer(space: Space, history: History) -> Iterator[Trial]:
    for track in contenders(space, history):
        if track.cuts is None:
            yield from finer_cuts(space, track, history)


def all_epochs(space: Space, history: History) -> Iterator[Trial]:
    # Traditional fine-tuning is trained in full anyway, and where it may be chosen that is enough.
    confirmed_anyway = {t.key for t in traditional_grid(space)} if space.baseline in space.proposal else set()
    for tracks in (*by_graft(space).values(), replacing(space)):
        rival = best_with_old_layers(results_of(tracks, space, history))
        if rival and rival.trial.key not in confirmed_anyway:
            yield space.in_full(rival.trial)


def finer_cuts(space: Space, track: Track, history: History) -> Iterator[Trial]:
    """Wave after wave from the coarse cuts on, each from the results of all before it and of nothing else, as long as
    the best cut stands out from one of its neighbours: between cuts as good as each other there is nothing to find.
    """
    earlier = {t.key for t in (*coarse_trials(space, track, history), *traditional_trials(space, history))}
    known = [r for r in track_results(track, space, history) if r.trial.key in earlier]
    while wave := search_trials(space, track, neighbours(space, known), history):
        yield from wave
        if any(trial.key not in history for trial in wave):
            return
        known += [history[trial.key] for trial in wave]


def coarse_trials(space: Space, track: Track, history: History) -> list[Trial]:
    """The trials of a track at its coarse cuts.

    Not the shallowest, with nothing frozen, which takes as long as several of the others: the traditional fine-tuning
    is there anyway, and the finer cuts of contenders come to it where unfreezing more helps.
    """
    shallowest, *others = space.coarse_cuts(track)
    whole = space.exhaustive or track.cuts is not None or not others
    return search_trials(space, track, [shallowest, *others] if whole else others, history)


def ordered_tracks(space: Space, history: History) -> list[Track]:
    """Tracks in the order in which time is spent on them: of every graft first the one that probed best.

    Among those the better probe comes first, and what keeps the layer before what replaces it: that one has the
    traditional fine-tuning to stand for it already.
    """

    def probe(track: Track) -> float:
        result = history.get(space.probe(track, probed_multiple(space, track, history)).key)
        return result.accuracy if result else -1.0

    best_first = sorted(
        space.tracks, key=lambda t: (graft_class(t.configuration.graft).keeps_layer, probe(t)), reverse=True
    )
    rank: dict[str, int] = {}
    place: dict[Track, int] = {}
    for track in best_first:
        graft = track.configuration.graft
        place[track] = rank[graft] = rank.get(graft, -1) + 1
    return sorted(best_first, key=lambda track: place[track])


def leading_tracks(space: Space, history: History) -> list[Track]:
    """Of every graft of the proposal the track that probed best, and the baseline, in their order; all in an exhaustive
    search."""
    tracks = ordered_tracks(space, history)
    first = {track.configuration.graft: track for track in reversed(tracks) if track in space.proposal}
    return [t for t in tracks if space.exhaustive or t == space.baseline or t in first.values()]


def contenders(space: Space, history: History) -> list[Track]:
    """The best leading track that keeps the layer and the best that replaces it; all in an exhaustive search.

    Both sides of the question whether keeping the layer pays get the same effort; the rest is left as it is. The coarse
    cuts decide alone: what later rounds find would let their trials depend on the order in which they ran.
    """
    tracks = leading_tracks(space, history)
    if space.exhaustive:
        return tracks

    def merit(track: Track) -> tuple[float, float, int]:
        tried = coarse_trials(space, track, history)
        return max((history[t.key].merit for t in tried if t.key in history), default=(FAILED, 0.0, 0))

    sides = [[t for t in tracks if graft_class(t.configuration.graft).keeps_layer is keeps] for keeps in (True, False)]
    return [max(side, key=merit) for side in sides if side]


def neighbours(space: Space, results: Sequence[Result]) -> list[int]:
    """Cuts half-way between the best cut and the nearest tried ones on either side, or the end with nothing frozen.

    None where the best is within a standard error of both.
    """
    best = best_result(results)
    if best is None:
        return []
    by_cut = {r.trial.cut: r.accuracy for r in sorted(results, key=lambda r: r.merit)}
    below = max((k for k in by_cut if k < best.trial.cut), default=-1)
    above = min((k for k in by_cut if k > best.trial.cut), default=None)
    beside = [by_cut[k] for k in (below, above) if k in by_cut]
    noise = 0.0 if space.every_cut_counts else space.standard_error(best.accuracy)
    if beside and best.accuracy - min(beside) < noise:
        return []
    halves = [(best.trial.cut + below) // 2] if best.trial.cut > 0 else []
    halves += [(best.trial.cut + above + 1) // 2] if above is not None else []
    return [k for k in halves if k not in by_cut]


def expected_trials(space: Space, history: History) -> list[Trial]:
    """What the search is likely to run still, for an estimate: the trials if all their results were the same."""
    imagined = dict(history)
    if (found := next_round(space, history)) is None:
        return []
    if found.name == "all epochs":
        return list(found.trials)
    if found.name != "finer cuts":
        space = space.for_estimates  # equal results are within a standard error, so there would be no finer cuts
    # Equal results would also put new layers alone first, and so send every graft into the last round.
    while (found := next_round(space, imagined)) is not None and found.name != "all epochs":
        imagined |= {trial.key: Result(trial, 0.5, _imagined_log_loss(space, trial)) for trial in found.trials}
    return [result.trial for key, result in imagined.items() if key not in history]


def _imagined_log_loss(space: Space, trial: Trial) -> float:
    """One that is lowest at the usual rate of old layers: of equal ones the highest would be taken for the best."""
    usual = space.old_layer_rate(USUAL_RATIO)
    return 1 + abs(log(trial.learning_rate / usual)) if trial.learning_rate else 1.0


@lru_cache(maxsize=10_000)  # asked for again and again, and every new trial would work out its key anew
def with_seed(trial: Trial, seed: int) -> Trial:
    return replace(trial, seed=seed)
