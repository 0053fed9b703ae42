"""Rates of old and new layers: which are compared where, and what a track takes over from that.

Old layers are compared where half of the network is frozen, behind a new classifier: there a trial is cheap, and how
fast they should learn is nearly the same for other cuts and grafts, as is by how much new layers should learn slower
beside them than alone (docs/lab-notebook.md). Where trials have a part of the epochs rates are compared by validation
log loss first, else by accuracy.
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
    Pair,
    Result,
    Space,
    Track,
    best_result,
)  # fmt: skip
from inarch.training.trial import Trial

_USUAL = RATIOS.index(USUAL_RATIO)
BEGINNING: tuple[Pair, ...] = tuple(
    (ratio, multiple) for ratio in RATIOS[_USUAL : _USUAL + 2] for multiple in BESIDE_OLD_LAYERS
)
"""What is compared first: the usual ratio and the next higher one, with both multiples."""

# By which share log losses may differ and be taken for the same, where accuracies are within a standard error as well.
ABOUT_EQUAL = 0.03


def pairs_to_compare(space: Space, history: History) -> list[Pair]:
    """The usual ratio and the next higher one, both with both multiples of new layers; then on from the best of these,
    to higher ratios or to lower ones. Each step is there once all before it are trained.
    """
    return list(dict.fromkeys([*BEGINNING, *_followed(space, history)]))


def _followed(space: Space, history: History) -> list[Pair]:
    """The best of the first pairs, then, once these are trained, those of the way on from it; the last of them may not
    be trained yet."""
    ratio, multiple = _best_beginning(space, history)
    if any(space.rate_trials[pair].key not in history for pair in BEGINNING):
        return [(ratio, multiple)]
    ratios = RATIOS[_USUAL::-1] if ratio == USUAL_RATIO else RATIOS[_USUAL + 1 :]
    tried = _walk(space, ratios, lambda ratio: history.get(space.rate_trials[ratio, multiple].key))
    return [(ratio, multiple) for ratio in tried]


def _walk(space: Space, ratios: Sequence[float], found: Callable[[float], Result | None]) -> list[float]:
    """The first two ratios, and on as long as all are trained and the last is the best, or none has learnt anything."""
    tried = list(ratios[:2])
    while len(tried) < len(ratios) and None not in (results := [found(ratio) for ratio in tried]):
        best = best_rates(space, [result for result in results if result])
        if best not in (None, results[-1]):
            break
        tried.append(ratios[len(tried)])
    return tried


def best_rates(space: Space, results: Iterable[Result]) -> Result | None:
    """The best of trials that differ in nothing but rates; None if all failed, or came to the end and learnt nothing.

    With a part of the epochs these are the highest rates of those whose log loss is about the lowest and whose accuracy
    is within a standard error of the best of them: with all epochs old layers want as much or more
    (docs/lab-notebook.md). After all epochs, where log loss tells how far trials overfit as well, accuracy decides.
    """
    # What diverged may come to its end like any other, and then has one answer for all images.
    learnt = [result for result in results if result.accuracy > space.guessing]
    if any(result.trial.settings == space.settings for result in learnt):
        return best_result(learnt)
    most = min((result.log_loss for result in learnt), default=0.0) * (1 + ABOUT_EQUAL)
    level = [result for result in learnt if result.log_loss <= most]
    least = max((r.accuracy - space.standard_error(r.accuracy) for r in level), default=0.0)
    as_good = [result for result in level if result.accuracy >= least]
    return max(as_good, key=lambda r: (r.trial.learning_rate, r.trial.new_layer_learning_rate), default=None)


def best_pair(space: Space, history: History) -> Pair:
    """The best of what was compared; if nothing was, the one to begin with; if none was of any use, the lowest of the
    first pairs."""
    results = [history.get(trial.key) for trial in space.rate_trials.values()]
    known = tuple((result.accuracy, result.log_loss) if result else None for result in results)
    if known not in space.best_pairs:
        space.best_pairs[known] = _best_of(space, _followed(space, history), history)
    return space.best_pairs[known]


def _best_beginning(space: Space, history: History) -> Pair:
    """The best of the first pairs, the lowest of them where none is of any use."""
    results = [history[key] for pair in BEGINNING if (key := space.rate_trials[pair].key) in history]
    lowest = (USUAL_RATIO, min(BESIDE_OLD_LAYERS))
    return lowest if results and best_rates(space, results) is None else _best_of(space, BEGINNING, history)


def _best_of(space: Space, pairs: Sequence[Pair], history: History) -> Pair:
    trials = {pair: space.rate_trials[pair].key for pair in pairs}
    best = best_rates(space, [history[key] for key in trials.values() if key in history])
    return next(pair for pair, key in trials.items() if key == best.trial.key) if best else pairs[0]


def old_layer_rates(space: Space, history: History) -> list[float]:
    """Those at which every track may end: the best, in an exhaustive search the next lower and higher ones as well."""
    best = RATIOS.index(best_pair(space, history)[0])
    beside = RATIOS[max(best - 1, 0) : best + 2] if space.exhaustive else ()
    return [space.old_layer_rate(ratio) for ratio in dict.fromkeys([RATIOS[best], *beside])]


def probed_multiple(space: Space, track: Track, history: History) -> float:
    """The multiple of the range test's rate that probed best."""
    keys = {trial.key: multiple for trial, multiple in zip(space.probes(track), MULTIPLES, strict=False)}
    best = best_rates(space, [history[key] for key in keys if key in history])
    return keys[best.trial.key] if best else MULTIPLES[0]


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
    best = best_result(r for trial in trained if (r := history.get(trial.key)) and r.accuracy >= 0)
    if best is None:
        return []
    return search_trials(space, track, [best.trial.cut], history, old_layer_rates(space, history))


def traditional_trials(space: Space, history: History) -> list[Trial]:
    """Traditional fine-tuning at the best pair and, since old layers that all train may bear less than half of them do,
    at lower ratios as long as they do better; in an exhaustive search at all."""
    best, multiple = best_pair(space, history)

    def trial(ratio: float) -> Trial:
        return space.at_rates(0, (ratio, multiple))

    place = RATIOS.index(best)
    if space.exhaustive:
        return [trial(ratio) for ratio in _down_then_up(place)]
    return [trial(ratio) for ratio in _walk(space, RATIOS[place::-1], lambda ratio: history.get(trial(ratio).key))]


def best_traditional(
    space: Space, history: History, usable: Callable[[Result], bool] = lambda result: result.accuracy >= 0
) -> Result | None:
    """The best traditional fine-tuning of what the search tries; where none of it is any good, of what was trained."""
    for trials in (traditional_trials(space, history), traditional_grid(space)):
        trained = [r for t in trials if (r := history.get(t.key)) and usable(r)]
        if found := best_rates(space, trained):
            return found
    return best_result(trained)


def linear_probes(space: Space) -> list[Trial]:
    """Replace without harmonising, only the new classifier trained, at several rates."""
    return [space.probe(space.baseline, multiple) for multiple in PROBE_MULTIPLES]


def traditional_grid(space: Space) -> list[Trial]:
    """Traditional fine-tuning of all layers at every pair of rates, as the search trains it: from the usual ones down,
    since all layers together may bear less, then the higher ones."""
    return [space.at_rates(0, (ratio, multiple)) for multiple in BESIDE_OLD_LAYERS for ratio in _down_then_up(_USUAL)]


def _down_then_up(place: int) -> tuple[float, ...]:
    """All ratios, from that at this place down, then the higher ones."""
    return *RATIOS[place::-1], *RATIOS[place + 1 :]
