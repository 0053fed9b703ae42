"""Rates of old and new layers: which are compared where, and what a track takes over from that.

Old layers are compared where half of the network is frozen, behind a new classifier: there a trial is cheap, and how
fast they should learn is nearly the same for other cuts and grafts, as is by how much new layers should learn slower
beside them than alone (docs/lab-notebook.md). Where trials have a part of the epochs rates are compared by validation
log loss, else by accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from inarch.search.space import (
    BESIDE_OLD_LAYERS,
    MULTIPLES,
    PROBE_MULTIPLES,
    RATIOS,
    USUAL_RATIO,
    History,
    Result,
    Space,
    Track,
)  # fmt: skip
from inarch.training.trial import Trial

Pair = tuple[float, float]
"""Ratio of the old layers' rate to the range test's for a new classifier, and the multiple of their own range test's
rate at which new layers learn beside them."""


def pairs_to_compare(space: Space, history: History) -> list[Pair]:
    """The usual ratio and the next higher one, both with both multiples of new layers; then on from the best of these,
    to higher ratios or to lower ones. Each step is there once all before it are trained.
    """
    usual = RATIOS.index(USUAL_RATIO)
    pairs = [(ratio, multiple) for ratio in RATIOS[usual : usual + 2] for multiple in BESIDE_OLD_LAYERS]
    if len(found := ranked(space, pairs, history)) < len(pairs):
        return pairs
    best, multiple = found[0]
    ratios = RATIOS[usual::-1] if best == USUAL_RATIO else RATIOS[usual + 1 :]
    tried = _walk(space, ratios, lambda ratio: history.get(rate_trial(space, (ratio, multiple)).key))
    return [*pairs, *((ratio, multiple) for ratio in tried[1:])]


def _walk(space: Space, ratios: Sequence[float], found: Callable[[float], Result | None]) -> list[float]:
    """The first two ratios, and on as long as all are trained and the last did better than the one before it, or that
    one failed."""
    tried = list(ratios[:2])
    while len(tried) < len(ratios) and (last := found(tried[-1])) and (before := found(tried[-2])):
        if before.accuracy >= 0 and merit_of_rates(space, last) <= merit_of_rates(space, before):
            break
        tried.append(ratios[len(tried)])
    return tried


def rate_trial(space: Space, pair: Pair) -> Trial:
    """Replace without harmonising at its middle cut."""
    return _trial(space, space.middle(space.baseline), pair)


def _trial(space: Space, cut: int, pair: Pair) -> Trial:
    ratio, multiple = pair
    return space.trial(space.baseline, cut, old=space.old_layer_rate(ratio), multiple=multiple)


def ranked(space: Space, pairs: Sequence[Pair], history: History) -> list[Pair]:
    """Those of the pairs that were trained, the best first."""
    found = [(pair, result) for pair in pairs if (result := history.get(rate_trial(space, pair).key))]
    return [pair for pair, _ in sorted(found, key=lambda one: merit_of_rates(space, one[1]), reverse=True)]


def merit_of_rates(space: Space, result: Result) -> tuple[float, ...]:
    """By which rates are compared. After all epochs log loss tells how far trials overfit as well: there it is accuracy
    that counts."""
    return result.merit if result.trial.settings == space.settings else result.merit_of_rates


def best_pair(space: Space, history: History) -> Pair:
    """The best of what was compared and did not fail; if nothing was, the one to begin with."""
    pairs = pairs_to_compare(space, history)
    found = [p for p in ranked(space, pairs, history) if history[rate_trial(space, p).key].accuracy >= 0]
    return (found or pairs)[0]


def old_layer_rates(space: Space, history: History) -> list[float]:
    """Those at which every track may end: the best, in an exhaustive search the next lower and higher ones as well."""
    best = RATIOS.index(best_pair(space, history)[0])
    beside = RATIOS[max(best - 1, 0) : best + 2] if space.exhaustive else ()
    return [space.old_layer_rate(ratio) for ratio in dict.fromkeys([RATIOS[best], *beside])]


def probed_multiple(space: Space, track: Track, history: History) -> float:
    """The multiple of the range test's rate that probed best."""
    found = [(merit_of_rates(space, r), m) for m in MULTIPLES if (r := history.get(space.probe(track, m).key))]
    return max(found, key=lambda pair: pair[0])[1] if found else MULTIPLES[0]


def search_trials(
    space: Space, track: Track, cuts: Iterable[int], history: History, old_rates: Sequence[float] = ()
) -> list[Trial]:
    """Trials of a track with old layers at each of the rates, if none are given at the best. New layers learn at that
    multiple of their own range test's rate that did best beside old ones, or, where none of these train, probed best.
    """
    ratio, beside = best_pair(space, history)
    deepest, probed = space.deepest(track.configuration), probed_multiple(space, track, history)
    rates = old_rates or [space.old_layer_rate(ratio)]
    return [
        space.trial(track, cut, old=old, multiple=beside if cut < deepest else probed) for cut in cuts for old in rates
    ]


def at_other_rates(space: Space, track: Track, history: History) -> list[Trial]:
    """The track's best trial at which old layers trained, at all rates of these; nothing where there is none."""
    trained = search_trials(space, track, space.trained_cuts(track), history)
    found = [r for trial in trained if (r := history.get(trial.key)) and r.accuracy >= 0]
    if not found:
        return []
    best = max(found, key=lambda result: result.merit)
    return search_trials(space, track, [best.trial.cut], history, old_layer_rates(space, history))


def traditional_trials(space: Space, history: History) -> list[Trial]:
    """Traditional fine-tuning at the best pair and, since old layers that all train may bear less than half of them do,
    at lower ratios as long as they do better; in an exhaustive search at all."""
    best, multiple = best_pair(space, history)

    def trial(ratio: float) -> Trial:
        return _trial(space, 0, (ratio, multiple))

    if space.exhaustive:
        return [trial(ratio) for ratio in RATIOS]
    ratios = RATIOS[RATIOS.index(best) :: -1]
    return [trial(ratio) for ratio in _walk(space, ratios, lambda ratio: history.get(trial(ratio).key))]


def linear_probes(space: Space) -> list[Trial]:
    """Replace without harmonising, only the new classifier trained, at several rates."""
    return [space.probe(space.baseline, multiple) for multiple in PROBE_MULTIPLES]


def traditional_grid(space: Space) -> list[Trial]:
    """Traditional fine-tuning of all layers at every pair of rates, as the search trains it, the usual ones first."""
    ratios = sorted(RATIOS, key=lambda ratio: abs(RATIOS.index(ratio) - RATIOS.index(USUAL_RATIO)))
    return [_trial(space, 0, (ratio, multiple)) for multiple in BESIDE_OLD_LAYERS for ratio in ratios]
