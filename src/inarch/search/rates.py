"""Rates of old and new layers: which are compared where, and what a track takes over from that.

A pair is a ratio of the old layers' rate to the new one's, and a multiple of the rate that the range test found. Rates
are compared by validation log loss where trials have a part of the epochs, else by accuracy, and those of old layers
where half of the network is frozen: there a trial is cheap, and what it says holds for other cuts and grafts
(docs/lab-notebook.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from inarch.search.space import MULTIPLES, PROBE_MULTIPLES, RATIOS, History, Result, Space, Track
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
    old = space.old_layer_rate(ratio, multiple)
    return space.trial(space.baseline, space.middle(space.baseline), old=old, multiple=multiple)


def ranked(space: Space, pairs: Sequence[Pair], history: History) -> list[Pair]:
    """Those of the pairs that were trained, the best first."""
    found = [(pair, result) for pair in pairs if (result := history.get(rate_trial(space, *pair).key))]
    return [pair for pair, _ in sorted(found, key=lambda one: _merit(space, one[1]), reverse=True)]


def _merit(space: Space, result: Result) -> tuple[float, ...]:
    """By which rates are compared. After all epochs log loss tells how far trials overfit as well: there it is accuracy
    that counts."""
    return result.merit if result.trial.settings == space.settings else result.merit_of_rates


def best_pairs(space: Space, history: History) -> list[Pair]:
    """What was compared and did not fail, the best first; if nothing was, the one to begin with. The first is that of
    the baseline."""
    pairs = pairs_to_compare(space, history)
    return [p for p in ranked(space, pairs, history) if history[rate_trial(space, *p).key].accuracy >= 0] or pairs[:1]


def old_layer_rates(space: Space, history: History) -> list[float]:
    """Those at which every track may end: the best, in an exhaustive search those of all ratios at its multiple."""
    best, multiple = best_pairs(space, history)[0]
    return [space.old_layer_rate(ratio, multiple) for ratio in (RATIOS if space.exhaustive else (best,))]


def probed_multiple(space: Space, track: Track, history: History) -> float:
    """The multiple of the range test's rate that probed best."""
    found = [(_merit(space, r), m) for m in MULTIPLES if (r := history.get(space.probe(track, m).key))]
    return max(found, key=lambda pair: pair[0])[1] if found else MULTIPLES[0]


def search_trials(
    space: Space, track: Track, cuts: Iterable[int], history: History, old_rates: Sequence[float] = ()
) -> list[Trial]:
    """Trials of a track with old layers at each of the rates, if none are given at the best, and new ones at the
    multiple of their range test's rate that probed best; those of the baseline, where old ones train, at the multiple
    that was best with them.
    """
    ratio, multiple = best_pairs(space, history)[0]
    deepest, probed = space.deepest(track.configuration), probed_multiple(space, track, history)

    def trial(cut: int, old: float) -> Trial:
        with_old = track == space.baseline and cut < deepest
        return space.trial(track, cut, old=old, multiple=multiple if with_old else probed)

    rates = old_rates or [space.old_layer_rate(ratio, multiple)]
    return [trial(cut, old) for cut in cuts for old in rates]


def at_other_rates(space: Space, track: Track, history: History) -> list[Trial]:
    """The track's best trial at which old layers trained, at all rates of these; nothing where there is none."""
    trained = search_trials(space, track, space.trained_cuts(track), history)
    found = [r for trial in trained if (r := history.get(trial.key)) and r.accuracy >= 0]
    if not found:
        return []
    best = max(found, key=lambda result: result.merit)
    return search_trials(space, track, [best.trial.cut], history, old_layer_rates(space, history))


def traditional_rates(space: Space, history: History) -> list[Pair]:
    """Those of traditional fine-tuning: the two best pairs and, since old layers that all train may bear less than half
    of them do, the best with the next lower ratio."""
    pairs = best_pairs(space, history)
    best, multiple = pairs[0]
    lower = [(ratio, multiple) for ratio in sorted(RATIOS, reverse=True) if ratio < best]
    return list(dict.fromkeys([*pairs[:2], *lower[:1]]))


def traditional_trial(space: Space, pair: Pair) -> Trial:
    return space.trial(space.baseline, 0, old=space.old_layer_rate(*pair), multiple=pair[1])


def linear_probes(space: Space) -> list[Trial]:
    """Replace without harmonising, only the new classifier trained, at several rates."""
    return [space.probe(space.baseline, multiple) for multiple in PROBE_MULTIPLES]


def traditional_grid(space: Space) -> list[Trial]:
    """Traditional fine-tuning of all layers at every pair of rates, as the search trains it."""
    return [traditional_trial(space, (ratio, multiple)) for multiple in MULTIPLES for ratio in RATIOS]
