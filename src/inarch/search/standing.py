"""How tracks stand: their results so far, and who is to be compared once more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from inarch.network.grafts import graft_class
from inarch.search.rates import best_traditional, old_layer_rates, search_trials
from inarch.search.space import History, Result, Space, Track, best_result


def track_results(track: Track, space: Space, history: History) -> list[Result]:
    """Finished trials of the search that belong to a track, all with the same epochs: at the cuts that it may stand at,
    with the rates that follow from what did best. With nothing frozen the baseline, or what is restricted of it, is
    traditional fine-tuning, which has rates of its own.
    """
    cuts = space.cuts(track)
    traditional = 0 in cuts and track in (space.baseline, replace(space.baseline, cuts=track.cuts))
    trials = search_trials(space, track, cuts[traditional:], history, old_layer_rates(space, history))
    found = {trial.key: history[trial.key] for trial in trials if trial.key in history}
    if traditional and (whole := best_traditional(space, history)):
        found[whole.trial.key] = whole
    return [result for result in found.values() if result.accuracy >= 0]


def results_of(tracks: Iterable[Track], space: Space, history: History) -> list[Result]:
    """Those of several tracks."""
    return [result for track in tracks for result in track_results(track, space, history)]


def by_graft(space: Space) -> dict[str, list[Track]]:
    """The tracks of the proposal."""
    found: dict[str, list[Track]] = {}
    for track in space.proposal:
        found.setdefault(track.configuration.graft, []).append(track)
    return found


def replacing(space: Space) -> list[Track]:
    """All tracks, of the proposal or not, that replace the classification layer."""
    return [t for t in space.tracks if not graft_class(t.configuration.graft).keeps_layer]


def best_with_old_layers(results: Sequence[Result]) -> Result | None:
    """Of results with equal epochs the best in which old layers train; None where the best of all is such a one.

    With a part of the epochs new layers alone are ahead of those beside old ones, which go on learning: who is better
    with all epochs is for a trial with all epochs to say (docs/lab-notebook.md).
    """
    best = best_result(results)
    if best is None or best.trial.learning_rate:
        return None
    return best_result(r for r in results if r.trial.learning_rate)
