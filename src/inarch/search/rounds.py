"""Layer-wise search in rounds: each round is a list of trials that follows from the results so far.

probes       every track at its deepest cut, where only new layers train, at multiples of the rate that the range
             test found, of which the best is kept; the linear probe's rates
traditional  traditional fine-tuning of all layers, with the ratios of old to new rate that are worth trying
coarse       the leading tracks, of each graft the one that probed best, at a few cuts over the whole depth, with the
             ratio that brings the old layers' rate nearest to the one that did best in the traditional round, and with
             nothing frozen where the shallowest of the other cuts did best; the other tracks at their deepest cut
rates        the leading tracks with further ratios at their best cuts, away from the first as long as that helps
finer        the contenders, by then the best track that keeps the layer and the best that replaces it, at cuts half-way
             between the best cut and its tried neighbours, until the neighbours are tried; the traditional one's
             further rates

An exhaustive search thins nothing out: all tracks lead and contend, at every cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest

from inarch.network.grafts import graft_class
from inarch.search.space import FAILED, MULTIPLES, PROBE_MULTIPLES, RATIOS, Result, Space, Track
from inarch.training.trial import Trial

History = Mapping[str, Result]
"""Results by the key of their trial."""


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
        ("traditional", traditional),
        ("coarse cuts", coarse),
        ("rates", rates),
        ("finer cuts", finer),
    )
    for name, make in rounds:
        wanted = {trial.key: trial for trial in make(space, history) if trial.key not in history}
        if wanted:
            pending = tuple(trial for key, trial in wanted.items() if key not in left_out)
            return Round(name, pending) if pending else None
    return None


def probes(space: Space, history: History) -> Iterator[Trial]:
    yield linear_probes(space)[0]
    for multiple in MULTIPLES:
        for track in space.tracks:
            yield space.probe(track, multiple)
    yield from linear_probes(space)


def traditional(space: Space, history: History) -> Iterator[Trial]:
    for ratio in traditional_ratios(space, history):
        yield traditional_trial(space, ratio, history)


def traditional_ratios(space: Space, history: History) -> tuple[float, ...]:
    """The usual ratio and the highest; the lowest where the highest did no better, or everything is tried."""
    usual, lowest, highest = RATIOS
    at_usual, at_highest = (history.get(traditional_trial(space, r, history).key) for r in (usual, highest))
    falls = at_usual is not None and at_highest is not None and at_usual.merit >= at_highest.merit
    return (usual, highest, lowest) if space.exhaustive or falls else (usual, highest)


def traditional_trial(space: Space, ratio: float, history: History) -> Trial:
    """Traditional fine-tuning at the multiple that probed best."""
    return space.trial(space.baseline, 0, ratio=ratio, multiple=best_multiple(space, space.baseline, history))


def coarse(space: Space, history: History) -> Iterator[Trial]:
    # Depth by depth rather than track by track: a study that is cut short has compared all tracks alike.
    yield from in_turn([coarse_trials(space, track, history) for track in leading_tracks(space, history)])
    for track in ordered_tracks(space, history):
        yield search_trial(space, track, space.cuts(track)[-1], history)


def rates(space: Space, history: History) -> Iterator[Trial]:
    yield from in_turn([ratio_trials(space, track, history) for track in leading_tracks(space, history)])


def in_turn(ladders: Sequence[Sequence[Trial]]) -> Iterator[Trial]:
    """The first trial of each ladder, then the second of each that has one, and so on."""
    return (trial for step in zip_longest(*ladders) for trial in step if trial is not None)


def ratio_trials(space: Space, track: Track, history: History) -> list[Trial]:
    """A track at its best trained cut with its first ratio and, upwards and downwards from there, with the next one as
    long as the one before did better; with all in an exhaustive search. Nothing where it trained at no cut."""
    cut = best_trained_cut(space, track, history)
    if cut is None:
        return []
    if space.exhaustive:
        return [search_trial(space, track, cut, history, ratio) for ratio in RATIOS]
    first = first_ratio(space, track, history)
    trials = [search_trial(space, track, cut, history, first)]
    upwards, downwards = sorted(r for r in RATIOS if r > first), sorted((r for r in RATIOS if r < first), reverse=True)
    for further in (upwards, downwards):
        last = trials[0]
        for ratio in further:
            trial = search_trial(space, track, cut, history, ratio)
            trials.append(trial)
            found, before = history.get(trial.key), history.get(last.key)
            if found is None or before is None or found.merit <= before.merit:
                break
            last = trial
    return trials


def finer(space: Space, history: History) -> Iterator[Trial]:
    for track in contenders(space, history):
        if track.cuts is None:
            yield from finer_cuts(space, track, history)
    yield from traditional_trials(space, history)


def finer_cuts(space: Space, track: Track, history: History) -> Iterator[Trial]:
    """Wave after wave from the coarse cuts on, each from the results of all before it and of nothing else."""
    coarse_cuts = space.coarse_cuts(track)
    known = [r for r in track_results(track, space, history) if r.trial.cut in coarse_cuts]
    ratio, multiple = best_ratio(space, track, history), best_multiple(space, track, history)
    while wave := [space.trial(track, cut, ratio=ratio, multiple=multiple) for cut in neighbours(known)]:
        yield from wave
        if any(trial.key not in history for trial in wave):
            return
        known += [history[trial.key] for trial in wave]


def search_trial(space: Space, track: Track, cut: int, history: History, ratio: float | None = None) -> Trial:
    """A trial of a track at its own multiple of the range test's rate, the one that did best at its deepest cut.

    ratio: as in `RATIOS`; None for the one that all tracks begin with (`first_ratio`).
    """
    ratio = first_ratio(space, track, history) if ratio is None else ratio
    return space.trial(track, cut, ratio=ratio, multiple=best_multiple(space, track, history))


def coarse_trials(space: Space, track: Track, history: History) -> list[Trial]:
    """The trials of a track at its coarse cuts, with the ratio that all tracks begin with.

    With nothing frozen, which takes as long as several of the others, only where the shallowest of these did best of
    them: else unfreezing more had stopped to help. Traditional fine-tuning is there anyway.
    """
    ratio, multiple = first_ratio(space, track, history), best_multiple(space, track, history)
    shallowest, *others = (space.trial(track, cut, ratio=ratio, multiple=multiple) for cut in space.coarse_cuts(track))
    if space.exhaustive or track.cuts is not None or track == space.baseline or not others:
        return [shallowest, *others]
    found = [result for trial in others if (result := history.get(trial.key))]
    helps = len(found) == len(others) and max(found, key=lambda r: r.merit).trial == others[-1]
    return [*others, shallowest] if helps else others


def first_ratio(space: Space, track: Track, history: History) -> float:
    """The ratio that brings the old layers' rate nearest, as a factor, to the best one of the traditional round.

    It is that round's own ratio unless the track's multiple differs from the one that did best there.
    """
    tried = traditional(space, history)
    found = [result for trial in tried if (result := history.get(trial.key)) and result.accuracy >= 0]
    if not found:
        return RATIOS[0]
    wanted = max(found, key=lambda r: r.merit).trial.learning_rate
    multiple = best_multiple(space, track, history)
    return min(RATIOS, key=lambda ratio: abs(math.log(space.old_layer_rate(ratio, multiple) / wanted)))


def best_multiple(space: Space, track: Track, history: History) -> float:
    """The multiple of the range test's rate that probed best."""
    found = [
        (result.merit, multiple) for multiple in MULTIPLES
        if (result := history.get(space.probe(track, multiple).key))
    ]  # fmt: skip
    return max(found, key=lambda pair: pair[0])[1] if found else MULTIPLES[0]


def linear_probes(space: Space) -> list[Trial]:
    """Replace without harmonising, only the new classifier trained, at several rates."""
    return [space.probe(space.baseline, multiple) for multiple in PROBE_MULTIPLES]


def traditional_grid(space: Space) -> list[Trial]:
    """Traditional fine-tuning of all layers at every pair of rates, as the search trains it."""
    return [space.trial(space.baseline, 0, ratio=ratio, multiple=m) for m in MULTIPLES for ratio in RATIOS]


def traditional_trials(space: Space, history: History) -> list[Trial]:
    """Traditional fine-tuning with its ratios at the multiple that probed best, then at the other multiples with the
    ratio that did best: as much work as one track gets. In an exhaustive search, the whole grid.
    """
    if space.exhaustive:
        return traditional_grid(space)
    ratios = traditional_ratios(space, history)
    tried = list(traditional(space, history))
    found = [(result.merit, ratio) for t, ratio in zip(tried, ratios, strict=True) if (result := history.get(t.key))]
    ratio = max(found, key=lambda pair: pair[0])[1] if found else RATIOS[0]
    return [*tried, *(space.trial(space.baseline, 0, ratio=ratio, multiple=multiple) for multiple in MULTIPLES)]


def track_results(track: Track, space: Space, history: History) -> list[Result]:
    """Finished trials of the search that belong to a track, at cuts that it may stand at and at rates that follow from
    the one that probed best, all with the same epochs.
    """
    cuts, multiple = space.cuts(track), best_multiple(space, track, history)
    rate = space.trial(track, cuts[-1], multiple=multiple).new_layer_learning_rate
    old_rates = {0.0, *(space.old_layer_rate(ratio, multiple) for ratio in RATIOS)}
    return [
        r for r in history.values()
        if (r.trial.configuration, r.trial.method) == (track.configuration, track.method)
        and r.trial.seed == space.seed and r.trial.settings == space.search_settings
        and r.trial.new_layer_learning_rate == rate and r.trial.learning_rate in old_rates
        and r.trial.cut in cuts and r.accuracy >= 0
    ]  # fmt: skip


def ordered_tracks(space: Space, history: History) -> list[Track]:
    """Tracks in the order in which time is spent on them: of every graft first the one that probed best.

    Among those the better probe comes first, and what keeps the layer before what replaces it: that one has the
    traditional fine-tuning to stand for it already.
    """

    def probe(track: Track) -> float:
        result = history.get(space.probe(track, best_multiple(space, track, history)).key)
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
    """Of every graft the track that probed best, and the baseline, in their order; all in an exhaustive search."""
    tracks = ordered_tracks(space, history)
    first = {track.configuration.graft: track for track in reversed(tracks)}
    return [t for t in tracks if space.exhaustive or t == space.baseline or t in first.values()]


def contenders(space: Space, history: History) -> list[Track]:
    """The best leading track that keeps the layer and the best that replaces it; all in an exhaustive search.

    Both sides of the question whether keeping the layer pays get the same effort; the rest is left as it is. The rounds
    before decide alone: what the later one finds would let its trials depend on the order in which they ran.
    """
    tracks = leading_tracks(space, history)
    if space.exhaustive:
        return tracks

    def merit(track: Track) -> tuple[float, float, int]:
        tried = [*coarse_trials(space, track, history), *ratio_trials(space, track, history)]
        return max((history[t.key].merit for t in tried if t.key in history), default=(FAILED, 0.0, 0))

    sides = [[t for t in tracks if graft_class(t.configuration.graft).keeps_layer is keeps] for keeps in (True, False)]
    return [max(side, key=merit) for side in sides if side]


def best_trained_cut(space: Space, track: Track, history: History) -> int | None:
    """The best cut, at its first ratio, at which old layers train; None where there is none."""
    deepest = space.deepest(track.configuration)
    found = [
        result for trial in coarse_trials(space, track, history) if trial.cut < deepest
        and (result := history.get(trial.key)) and result.accuracy >= 0
    ]  # fmt: skip
    return max(found, key=lambda r: r.merit).trial.cut if found else None


def best_ratio(space: Space, track: Track, history: History) -> float:
    """The ratio that did best at the best trained cut."""
    cut = best_trained_cut(space, track, history)
    if cut is None:
        return first_ratio(space, track, history)
    found = [
        (result.merit, ratio) for ratio in RATIOS
        if (result := history.get(search_trial(space, track, cut, history, ratio).key))
    ]  # fmt: skip
    return max(found, key=lambda pair: pair[0])[1] if found else first_ratio(space, track, history)


def neighbours(results: Sequence[Result]) -> list[int]:
    """Cuts half-way between the best cut and the nearest tried ones on either side."""
    if not results:
        return []
    best = max(results, key=lambda r: r.merit).trial.cut
    tried = {r.trial.cut for r in results}
    below = [k for k in tried if k < best]
    above = [k for k in tried if k > best]
    halves = [(best + max(below)) // 2] if below else []
    halves += [(best + min(above) + 1) // 2] if above else []
    return [k for k in halves if k not in tried]


def expected_trials(space: Space, history: History) -> list[Trial]:
    """What the search is likely to run still, for an estimate: the trials if all their results were the same."""
    imagined = dict(history)
    while (found := next_round(space, imagined)) is not None:
        imagined |= {trial.key: Result(trial, 0.5, 1.0) for trial in found.trials}
    return [result.trial for key, result in imagined.items() if key not in history]


@lru_cache(maxsize=10_000)  # asked for again and again, and every new trial would work out its key anew
def with_seed(trial: Trial, seed: int) -> Trial:
    return replace(trial, seed=seed)
