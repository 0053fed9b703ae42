"""Rates of old and new layers: which are compared where, and what a track takes over from that.

A pair is a ratio of the old layers' rate to the new one's, and a multiple of the rate that the range test found. Rates
are compared by validation log loss, and those of old layers where half of the network is frozen: there a trial is
cheap, and what it says holds for other cuts and grafts (docs/lab-notebook.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from inarch.search.space import MULTIPLES, PROBE_MULTIPLES, RATIOS, History, Space, Track, with_settings
from inarch.training.trial import Trial

Pair = tuple[float, float]
"""Ratio and multiple."""


def pairs_to_compare(space: Space, history: History) -> list[Pair]:
    """Ratios and multiples that are compared: at the multiple that probed best the usual ratio and the highest, and the
    lowest where the highest did no better; then the other multiples at the best of these. Each step is there once all
    before it are trained.
    """
    usual, lowest, highest = RATIOS
    multiple = probed_multiple(space, space.baseline, history)
    pairs = [(usual, multiple), (highest, multiple)]
    if len(found := ranked(space, pairs, history)) < len(pairs):
        return pairs
    if found[0] != (highest, multiple):
        pairs.append((lowest, multiple))
        found = ranked(space, pairs, history)
    if len(found) == len(pairs):
        best, _ = found[0]
        pairs += [(best, other) for other in MULTIPLES if other != multiple]
    return pairs


def rate_trial(space: Space, ratio: float, multiple: float) -> Trial:
    """Replace without harmonising at its middle cut."""
    trial = space.trial(space.baseline, space.middle(space.baseline), ratio=ratio, multiple=multiple)
    return with_settings(trial, space.rate_settings)


def ranked(space: Space, pairs: Sequence[Pair], history: History) -> list[Pair]:
    """Those of the pairs that were trained, the best first."""
    found = [(pair, result) for pair in pairs if (result := history.get(rate_trial(space, *pair).key))]
    return [pair for pair, _ in sorted(found, key=lambda one: one[1].merit_of_rates, reverse=True)]


def best_pairs(space: Space, history: History) -> list[Pair]:
    """What was compared, the best first; before that, the one to begin with. The first is that of the baseline."""
    pairs = pairs_to_compare(space, history)
    return ranked(space, pairs, history) or pairs[:1]


def first_ratio(space: Space, track: Track, history: History) -> float:
    """The ratio that brings the old layers' rate nearest, as a factor, to the one that did best."""
    return near_ratios(space, track, history)[0]


def best_multiple(space: Space, track: Track, history: History) -> float:
    """The multiple of the range test's rate at which a track's new layers train where old ones do."""
    if track == space.baseline:
        return best_pairs(space, history)[0][1]
    return probed_multiple(space, track, history)


def probed_multiple(space: Space, track: Track, history: History) -> float:
    """The multiple of the range test's rate that probed best."""
    found = [(r.merit_of_rates, m) for m in MULTIPLES if (r := history.get(space.probe(track, m).key))]
    return max(found, key=lambda pair: pair[0])[1] if found else MULTIPLES[0]


def near_ratios(space: Space, track: Track, history: History) -> list[float]:
    """Ratios that bring the old layers' rate near the one that did best, nearest first; in an exhaustive search all.

    They lie a factor of ten apart, so one is exact or two are about as near. The baseline has the exact one.
    """
    wanted = space.old_layer_rate(*best_pairs(space, history)[0])
    multiple = best_multiple(space, track, history)
    away = {ratio: abs(math.log10(space.old_layer_rate(ratio, multiple) / wanted)) for ratio in RATIOS}
    nearest = sorted(away, key=lambda ratio: away[ratio])
    near = [ratio for ratio in nearest if 0.1 < away[ratio] < 0.9]
    return nearest if space.exhaustive else near if nearest[0] in near else nearest[:1]


def search_trial(space: Space, track: Track, cut: int, history: History, ratio: float | None = None) -> Trial:
    """A trial of a track at its own multiple of the range test's rate, the one that did best at its deepest cut.

    ratio: as in `RATIOS`; None for the one that all tracks begin with (`first_ratio`).
    """
    ratio = first_ratio(space, track, history) if ratio is None else ratio
    return space.trial(track, cut, ratio=ratio, multiple=best_multiple(space, track, history))


def ratio_trials(space: Space, track: Track, history: History) -> dict[float, Trial]:
    """By ratio, where several are near: the track at its middle cut with half of the epochs.

    In an exhaustive search at the best of the cuts at which it trained old layers; nothing where there is none.
    """
    near = near_ratios(space, track, history)
    cut = _best_trained_cut(space, track, history) if space.exhaustive else space.middle(track)
    if len(near) < 2 or cut is None or cut == space.deepest(track.configuration):
        return {}
    found = {ratio: search_trial(space, track, cut, history, ratio) for ratio in near}
    return {ratio: with_settings(trial, space.rate_settings) for ratio, trial in found.items()}


def best_ratio(space: Space, track: Track, history: History) -> float:
    """The ratio that did best where several were compared, or the one that the track began with."""
    tried = ratio_trials(space, track, history)
    found = [(result.merit_of_rates, ratio) for ratio, trial in tried.items() if (result := history.get(trial.key))]
    return max(found, key=lambda pair: pair[0])[1] if found else first_ratio(space, track, history)


def _best_trained_cut(space: Space, track: Track, history: History) -> int | None:
    """The best cut, at its first ratio, at which old layers train; None where there is none."""
    ratio, multiple = first_ratio(space, track, history), best_multiple(space, track, history)
    trained = [cut for cut in space.cuts(track) if cut < space.deepest(track.configuration)]
    trials = [space.trial(track, cut, ratio=ratio, multiple=multiple) for cut in trained]
    found = [result for trial in trials if (result := history.get(trial.key)) and result.accuracy >= 0]
    return max(found, key=lambda r: r.merit).trial.cut if found else None


def traditional_rates(space: Space, history: History) -> list[Pair]:
    """Those of traditional fine-tuning: the two best pairs and, since old layers that all train may bear less than half
    of them do, the best with a lower ratio than the best has."""
    pairs = best_pairs(space, history)
    lower = [pair for pair in pairs if pair[0] < pairs[0][0]]
    return list(dict.fromkeys([*pairs[:2], *lower[:1]]))


def linear_probes(space: Space) -> list[Trial]:
    """Replace without harmonising, only the new classifier trained, at several rates."""
    return [space.probe(space.baseline, multiple) for multiple in PROBE_MULTIPLES]


def traditional_grid(space: Space) -> list[Trial]:
    """Traditional fine-tuning of all layers at every pair of rates, as the search trains it."""
    return [space.trial(space.baseline, 0, ratio=ratio, multiple=m) for m in MULTIPLES for ratio in RATIOS]
