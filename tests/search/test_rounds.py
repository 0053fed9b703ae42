"""The search on made-up results: what it tries, in which order, what it chooses. Nothing is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import log10

import pytest

from inarch.network.grafts import Configuration, graft_class
from inarch.search.choice import Candidate, best_of_graft, candidate, confirmations, required, roles, stand_ins
from inarch.search.race import Race
from inarch.search.rates import (
    best_pair,
    linear_probes,
    old_layer_rates,
    pairs_to_compare,
    search_trials,
    traditional_grid,
    traditional_trials,
)  # fmt: skip
from inarch.search.rounds import (
    contenders,
    expected_trials,
    leading_tracks,
    neighbours,
    next_round,
    ordered_tracks,
)  # fmt: skip
from inarch.search.space import (
    BESIDE_OLD_LAYERS,
    FAILED,
    MULTIPLES,
    RATIOS,
    SEARCHES,
    TRADITIONAL,
    USUAL_RATIO,
    Result,
    Space,
    Track,
)  # fmt: skip
from inarch.search.standing import track_results
from inarch.training.trial import TrainingSettings, Trial

REPLACE, REPLACE_L2, RETAIN, RETAIN_L2 = (
    Configuration("replace", "none"),
    Configuration("replace", "l2"),
    Configuration("retain", "none"),
    Configuration("retain", "l2"),
)
JOINED = Configuration("joined", "none")
STAGES = 16


def a_space(*configurations: Configuration, **changes: object) -> Space:
    tracks = tuple(Track(c, "fine-tuning") for c in configurations or (REPLACE, RETAIN, RETAIN_L2))
    rates = dict.fromkeys((REPLACE, REPLACE_L2, RETAIN, RETAIN_L2, JOINED), 0.03)
    return replace(Space(STAGES, tracks, TrainingSettings(epochs=1), rates), **changes)  # type: ignore[arg-type]


def searched(space: Space, accuracy: Callable[[Trial], float]) -> dict[str, Result]:
    """The whole search on results that a function gives."""
    history: dict[str, Result] = {}
    while (found := next_round(space, history)) is not None:
        trial = found.trials[0]
        history[trial.key] = Result(trial, accuracy(trial), 1 - accuracy(trial))
    return history


def choose(space: Space, history: dict[str, Result]) -> Candidate | None:
    return Race(space, history).choice()


def confirmed(space: Space, history: dict[str, Result], accuracy: Callable[[Trial], float]) -> list[Trial]:
    """All confirmations, one after the other as a study asks for them, added to the history; in their order."""
    done = []
    while (trial := next(Race(space, history).pending(), None)) is not None:
        history[trial.key] = Result(trial, accuracy(trial), 1 - accuracy(trial))
        done.append(trial)
    return done


def peak(at: int, graft: str = "retain") -> Callable[[Trial], float]:
    """Accuracy that falls off on both sides of a cut, and is higher for one graft."""
    return lambda t: 0.8 - 0.01 * abs(t.cut - at) + (0.05 if t.configuration.graft == graft else 0)


@pytest.mark.parametrize("at", range(STAGES + 1))
def test_the_search_finds_the_best_cut_of_a_single_peak_without_trying_all(at: int) -> None:
    space = a_space(RETAIN)
    history = searched(space, peak(at))
    results = track_results(space.proposal[0], space, history)
    assert max(results, key=lambda r: r.merit).trial.cut == at
    assert len({r.trial.cut for r in results}) < STAGES


@pytest.mark.parametrize("search", SEARCHES)
def test_rounds_come_in_the_order_of_the_docstring(search: str) -> None:
    space, history, names = a_space(search=search, settings=TrainingSettings(epochs=8)), {}, []
    while (found := next_round(space, history)) is not None:
        names.append(found.name)
        trial = found.trials[0]
        alone = trial.configuration == REPLACE and not trial.learning_rate
        history[trial.key] = Result(trial, peak(9)(trial) + 0.1 * alone, 0.5)
    rounds = ["probes", "rates", "coarse cuts"]
    rounds += ["other rates"] if space.exhaustive else ["finer cuts", "all epochs"]
    assert list(dict.fromkeys(names)) == rounds
    assert names == sorted(names, key=rounds.index)


@pytest.mark.parametrize(("in_full", "cut"), [(0.9, 12), (0.7, 16)])
def test_new_layers_alone_must_be_best_with_all_epochs_too(in_full: float, cut: int) -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8))

    def accuracy(trial: Trial) -> float:
        if not trial.learning_rate:
            return 0.8
        return in_full if trial.settings == space.settings else 0.78 - 0.01 * abs(trial.cut - 12)

    history = searched(space, accuracy)
    retained = {(r.trial.cut, r.trial.settings.epochs) for r in history.values() if r.trial.configuration == RETAIN}
    # Its best cut with old layers is trained with all epochs, and no other.
    assert {found for found in retained if found[1] == 8} == {(12, 8), (16, 8)}
    assert best_of_graft(space, history)["retain"].cut == cut
    assert bool(roles(space, history)["replace_best_cut"].learning_rate) is (cut == 12)


def test_what_fails_with_all_epochs_is_not_taken() -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8))

    def accuracy(trial: Trial) -> float:
        if not trial.learning_rate:
            return 0.8
        if trial.seed:
            return FAILED
        return 0.9 if trial.settings == space.settings else 0.7

    history = searched(space, accuracy)
    promising = best_of_graft(space, history)["retain"]
    assert promising.learning_rate
    asked = confirmed(space, history, accuracy)
    assert set(confirmations(space, promising)) <= set(asked)
    # With every seed it failed, so new layers alone take its place.
    assert best_of_graft(space, history)["retain"].cut == STAGES
    chosen = choose(space, history)
    assert chosen is not None
    assert (chosen.confirmed, chosen.accuracy) == (True, pytest.approx(0.8))


def test_an_estimate_of_the_last_round_is_that_round_and_none_before_it_counts_on_it() -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8), validation=300)
    assert not [t for t in expected_trials(space, {}) if t.learning_rate and t.settings == space.settings]
    history: dict[str, Result] = {}
    while (found := next_round(space, history)) is not None and found.name != "all epochs":
        trial = found.trials[0]
        history[trial.key] = Result(trial, 0.7 + 0.1 * (not trial.learning_rate), 0.5)
    assert found is not None
    assert expected_trials(space, history) == list(found.trials)
    assert {t.configuration for t in found.trials} == {REPLACE, RETAIN}


def test_rates_that_lost_do_not_come_back_on_the_way_to_lower_ones() -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8), validation=300)
    found = {(1.0, 1.0): (0.48, 1.79), (3.0, 1.0): (0.43, 1.80), (0.3, 1.0): (0.45, 1.75)}
    history = {trial.key: Result(trial, *found.get(pair, (0.4, 2.0))) for pair, trial in space.rate_trials.items()}
    assert best_pair(space, history) == (1.0, 1.0)


@pytest.mark.parametrize("cuts", [None, (0, 15)])
def test_traditional_fine_tuning_may_be_the_best_of_replace_although_new_layers_alone_did_better_in_half_the_epochs(
    cuts: tuple[int, ...] | None,
) -> None:
    space = a_space(proposal=(Track(REPLACE, "fine-tuning", cuts),), settings=TrainingSettings(epochs=8))

    def accuracy(trial: Trial) -> float:
        if not trial.learning_rate:
            return 0.8
        return (0.9 if trial.settings == space.settings else 0.75) - 0.01 * trial.cut

    history = searched(space, accuracy)
    confirmed(space, history, accuracy)
    chosen = choose(space, history)
    assert chosen is not None
    assert (chosen.trial.cut, chosen.confirmed) == (0, True)


def test_the_first_rates_that_diverged_leave_the_lowest_of_them() -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8), guessing=0.1)
    first = space.rate_trials[1.0, 1.0]
    assert best_pair(space, {}) == (1.0, 1.0)
    assert best_pair(space, {first.key: Result(first, 0.1, 5.0)}) == (1.0, 1 / 3)


def test_nobody_is_trained_with_all_epochs_by_the_search_where_old_layers_did_best() -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8))
    history = searched(space, lambda t: 0.8 if t.learning_rate else 0.7)
    assert not [r for r in history.values() if r.trial.learning_rate and r.trial.settings.epochs == 8]


def test_the_first_trial_is_the_linear_probe_and_no_trial_is_proposed_twice() -> None:
    space = a_space()
    first = next_round(space, {})
    assert first is not None
    assert first.trials[0] == linear_probes(space)[0]
    keys = [t.key for t in expected_trials(space, {})]
    assert len(keys) == len(set(keys))


def by_rates(old: float, beside: float, base: float = 0.03) -> Callable[[Trial], float]:
    """Accuracy that falls off, by factors, from a rate of old layers and a multiple of the new ones' range test."""

    def accuracy(trial: Trial) -> float:
        if not trial.learning_rate:
            return 0.6
        return (
            0.8
            - 0.05 * abs(log10(trial.learning_rate / old))
            - 0.1 * abs(log10(trial.new_layer_learning_rate / (base * beside)))
        )

    return accuracy


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("beside", BESIDE_OLD_LAYERS)
def test_every_track_trains_old_layers_at_the_rate_that_did_best_half_frozen_and_new_ones_at_that_multiple_of_their_own(
    ratio: float, beside: float
) -> None:
    rates = {REPLACE: 0.03, RETAIN: 0.003, JOINED: 0.09}
    space = a_space(*rates, rates=rates, settings=TrainingSettings(epochs=8))
    history = searched(space, by_rates(0.03 * ratio, beside))
    assert best_pair(space, history) == (ratio, beside)
    trained = [r.trial for r in history.values() if r.trial.learning_rate and r.trial.configuration != REPLACE]
    assert {t.configuration for t in trained} == {RETAIN, JOINED}
    for trial in trained:
        assert trial.learning_rate == pytest.approx(0.03 * ratio)
        assert trial.new_layer_learning_rate == pytest.approx(rates[trial.configuration] * beside)


def test_trials_with_old_layers_at_rates_that_the_search_does_not_try_are_not_looked_at() -> None:
    space = a_space(RETAIN)
    track = space.proposal[0]
    asked = space.trial(track, 4)
    other = replace(asked, learning_rate=2 * asked.learning_rate)
    history = {trial.key: Result(trial, 0.9, 0.1) for trial in (asked, other)}
    assert [r.trial for r in track_results(track, space, history)] == [asked]


@pytest.mark.parametrize("search", SEARCHES)
def test_whatever_contends_gets_the_same_rule_of_rates(search: str) -> None:
    space = a_space(search=search, settings=TrainingSettings(epochs=8))
    history = searched(space, peak(6))
    found = contenders(space, history)
    assert {graft_class(t.configuration.graft).keeps_layer for t in found} == {True, False}
    assert len(found) == (3 if space.exhaustive else 2)
    for track in found:
        assert {space.probe(track, multiple).key for multiple in MULTIPLES} <= history.keys()
        trained = [r.trial for r in history.values() if r.trial.configuration == track.configuration]
        # Traditional fine-tuning has rates of its own, and they are compared at the middle cut.
        middle = space.middle if track == space.baseline else 0
        rates = {t.learning_rate for t in trained if t.learning_rate and t.cut not in (0, middle)}
        best = space.old_layer_rate(best_pair(space, history)[0])
        tried = old_layer_rates(space, history) if space.exhaustive else [best]
        assert rates == set(tried)


def test_a_halving_search_trains_with_a_part_of_the_epochs_what_is_confirmed_with_all() -> None:
    space = a_space(settings=TrainingSettings(epochs=10))
    history = searched(space, peak(6))
    assert {r.trial.settings.epochs for r in history.values() if r.trial.learning_rate} == {5}
    compared = [space.rate_trials[pair] for pair in pairs_to_compare(space, history)]
    assert {t.key for t in compared} <= history.keys()
    assert {(t.configuration, t.cut) for t in compared} == {(TRADITIONAL, STAGES // 2)}
    in_full = [r.trial for r in history.values() if r.trial.settings.epochs == 10]
    assert {t.key for t in in_full} == {space.probe(t, m).key for t in space.tracks for m in MULTIPLES} | {
        t.key for t in linear_probes(space)
    }
    assert {t.settings.epochs for t in (*roles(space, history).values(), *Race(space, history).pending())} == {10}


def test_a_halving_search_follows_one_variant_of_each_graft_and_the_baseline() -> None:
    space = a_space(REPLACE_L2, REPLACE, RETAIN, RETAIN_L2)
    history = searched(space, lambda t: 0.6 if t.configuration.harmonise == "l2" else 0.5)
    assert [t.configuration for t in leading_tracks(space, history)] == [RETAIN_L2, REPLACE_L2, REPLACE]
    cuts = {t.configuration: {r.trial.cut for r in track_results(t, space, history)} for t in space.tracks}
    assert cuts[RETAIN] == {STAGES}
    assert all(len(cuts[c]) > 4 for c in (RETAIN_L2, REPLACE_L2, REPLACE))


def test_an_exhaustive_search_tries_every_track_at_every_cut_in_full() -> None:
    space = a_space(settings=TrainingSettings(epochs=10), search="exhaustive")
    history = searched(space, peak(6))
    assert {r.trial.settings.epochs for r in history.values()} == {10}
    for track in space.tracks:
        assert {r.trial.cut for r in track_results(track, space, history)} == set(space.cuts(track))
    whole = [t for t in traditional_grid(space) if t.key in history]
    assert {t.learning_rate for t in whole} == {space.old_layer_rate(ratio) for ratio in RATIOS}
    best = space.rate_trials[best_pair(space, history)]
    assert {t.new_layer_learning_rate for t in whole} == {best.new_layer_learning_rate}


@pytest.mark.parametrize(
    ("best", "tried"),
    [(1.0, {1.0, 3.0, 0.3}), (3.0, {1.0, 3.0, 10.0}), (10.0, {1.0, 3.0, 10.0}), (0.1, {1.0, 3.0, 0.3, 0.1, 0.03})],
)
@pytest.mark.parametrize("beside", BESIDE_OLD_LAYERS)
def test_rates_of_old_layers_are_compared_step_by_step(best: float, tried: set[float], beside: float) -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8))
    history = searched(space, by_rates(0.03 * best, beside))
    pairs = pairs_to_compare(space, history)
    assert {space.rate_trials[pair].key for pair in pairs} <= history.keys()
    assert {ratio for ratio, _ in pairs} == tried
    # Both multiples are compared at the first two ratios alone.
    assert {ratio for ratio, multiple in pairs if multiple != beside} == {1.0, 3.0}
    assert best_pair(space, history) == (best, beside)


@pytest.mark.parametrize(("best", "tried"), [(3.0, {3.0, 1.0}), (1.0, {3.0, 1.0, 0.3}), (0.3, {3.0, 1.0, 0.3, 0.1})])
def test_old_layers_that_all_train_go_on_to_lower_rates_while_these_do_better(best: float, tried: set[float]) -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8))
    history = searched(space, lambda t: by_rates(0.03 * (3.0 if t.cut else best), 1.0)(t))
    whole = {t.learning_rate for t in traditional_trials(space, history)}
    assert whole == {space.old_layer_rate(ratio) for ratio in tried}
    assert {t.key for t in traditional_grid(space) if t.key in history} == {
        t.key for t in traditional_trials(space, history)
    }
    assert roles(space, history)["traditional"].learning_rate == pytest.approx(0.03 * best)


def test_rates_of_traditional_fine_tuning_are_told_apart_as_all_rates_are() -> None:
    for search, ratio in (("halving", 0.3), ("exhaustive", 1.0)):
        space = a_space(RETAIN, search=search, settings=TrainingSettings(epochs=8))
        history = searched(space, by_rates(0.03, 1.0))
        whole = {t.learning_rate: t for t in traditional_trials(space, history)}
        higher, lower = (whole[space.old_layer_rate(r)] for r in (1.0, 0.3))
        history |= {higher.key: Result(higher, 0.9, 0.15), lower.key: Result(lower, 0.85, 0.1)}
        assert roles(space, history)["traditional"].learning_rate == space.old_layer_rate(ratio)


@pytest.mark.parametrize(("accuracy", "ratio"), [(0.43, 0.3), (0.46, 1.0)])
def test_higher_rates_that_are_right_on_measurably_fewer_images_are_not_as_good(accuracy: float, ratio: float) -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8), validation=300)  # a standard error of 2.9 points
    history = searched(space, by_rates(0.03, 1.0))
    whole = {t.learning_rate: t for t in traditional_trials(space, history)}
    higher, lower = (whole[space.old_layer_rate(r)] for r in (1.0, 0.3))
    history |= {higher.key: Result(higher, accuracy, 1.902), lower.key: Result(lower, 0.48, 1.871)}
    assert roles(space, history)["traditional"].learning_rate == space.old_layer_rate(ratio)


def test_where_old_layers_train_at_its_deepest_cut_a_track_has_one_probe() -> None:
    space = a_space(RETAIN, proposal=(Track(RETAIN, "fine-tuning", (3, 5)), Track(RETAIN_L2, "fine-tuning", (3, 16))))
    first = next_round(space, {})
    assert first is not None
    probed = Counter(t.configuration for t in first.trials)
    assert (probed[RETAIN], probed[RETAIN_L2]) == (1, len(MULTIPLES))


def test_rates_are_told_apart_by_log_loss_and_a_failed_one_is_never_the_best() -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8))

    def results(trial: Trial) -> Result:
        if trial.learning_rate > 0.02:
            return Result(trial, FAILED, 0.0)
        # By accuracy the lowest would be the best.
        return Result(trial, 0.6 - trial.learning_rate, 1.0 - 30 * trial.learning_rate)

    history: dict[str, Result] = {}
    while (found := next_round(space, history)) is not None:
        history |= {t.key: results(t) for t in found.trials}
    assert best_pair(space, history)[0] == 0.3


@pytest.mark.parametrize(("higher", "ratio"), [(0.51, 3.0), (0.52, 1.0)])
def test_rates_that_log_loss_cannot_tell_apart_are_the_higher_ones(higher: float, ratio: float) -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8))
    losses = {space.old_layer_rate(1.0): 0.5, space.old_layer_rate(3.0): higher}
    history: dict[str, Result] = {}
    while (found := next_round(space, history)) is not None and found.name in ("probes", "rates"):
        history |= {t.key: Result(t, 0.5, losses.get(t.learning_rate, 0.9)) for t in found.trials}
    assert best_pair(space, history) == (ratio, 1.0)


@pytest.mark.parametrize("search", SEARCHES)
def test_what_diverged_and_has_one_answer_for_all_images_decides_nothing(search: str) -> None:
    space = a_space(RETAIN, search=search, settings=TrainingSettings(epochs=8), guessing=0.2)

    def results(trial: Trial) -> Result:
        half, whole = space.old_layer_rate(0.1), space.old_layer_rate(0.01)
        diverged = trial.learning_rate > (half if trial.cut else whole) * 1.01
        return Result(trial, 0.2, 2.3) if diverged else Result(trial, 0.5, 1.0 - 0.1 * trial.learning_rate)

    history: dict[str, Result] = {}
    while (found := next_round(space, history)) is not None:
        history |= {t.key: results(t) for t in found.trials}
    assert best_pair(space, history) == (0.1, 1 / 3)
    assert 10.0 not in [ratio for ratio, _ in pairs_to_compare(space, history)]
    assert roles(space, history)["traditional"].learning_rate == space.old_layer_rate(0.01)


def test_where_nothing_learns_there_is_a_traditional_fine_tuning_all_the_same() -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8), guessing=0.5)
    history = searched(space, lambda t: 0.4 + 0.01 * (not t.cut and t.learning_rate == space.old_layer_rate(0.03)))
    assert roles(space, history)["traditional"].learning_rate == space.old_layer_rate(0.03)


def test_an_exhaustive_search_begins_traditional_fine_tuning_at_the_best_rates() -> None:
    space = a_space(RETAIN, search="exhaustive", settings=TrainingSettings(epochs=8))
    history: dict[str, Result] = {}
    while (found := next_round(space, history)) is not None and found.name in ("probes", "rates"):
        history |= {t.key: Result(t, by_rates(0.09, 1.0)(t), 0.5) for t in found.trials}
    assert found is not None
    whole = [t for t in found.trials if not t.cut and t.configuration == TRADITIONAL]
    assert [t.learning_rate for t in whole] == [space.old_layer_rate(r) for r in (3, 1, 0.3, 0.1, 0.03, 0.01, 10)]
    assert found.trials[0] in required(space, history)


def test_what_a_limit_made_a_study_train_does_not_stand_for_what_the_search_tries() -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8))
    history = searched(space, by_rates(0.009, 1.0))
    chosen = roles(space, history)["traditional"]
    extra = next(t for t in traditional_grid(space) if t.key not in history)
    assert roles(space, history | {extra.key: Result(extra, 0.99, 0.01)})["traditional"] == chosen


@pytest.mark.parametrize("guessing", [0.0, 0.01, 0.5, 0.9])
def test_estimates_imagine_that_the_usual_rates_are_best(guessing: float) -> None:
    space = a_space(REPLACE, RETAIN, settings=TrainingSettings(epochs=8), guessing=guessing)
    old = {t.learning_rate for t in expected_trials(space, {}) if t.learning_rate}
    assert old == {space.old_layer_rate(ratio) for ratio in (0.3, 1.0, 3.0)}


@pytest.mark.parametrize("stages", [2, 3])
def test_a_network_of_few_stages_is_searched_to_the_end(stages: int) -> None:
    space = a_space(REPLACE, RETAIN, settings=TrainingSettings(epochs=8), stages=stages)
    history = searched(space, by_rates(0.09, 1 / 3))
    assert {"traditional", "linear_probe", "retain_best_cut"} <= roles(space, history).keys()


def test_the_baselines_run_whatever_the_proposal_is() -> None:
    space = a_space(RETAIN, proposal=(Track(RETAIN, "l2-sp", (3,)),))
    history = searched(space, peak(6))
    assert {t.key for t in linear_probes(space)} <= history.keys()
    found = roles(space, history)
    assert {"retain_best_cut", "traditional", "linear_probe", "replace_best_cut"} == found.keys()
    assert found["retain_best_cut"].cut == 3
    assert found["retain_best_cut"].method == "l2-sp"
    assert found["traditional"].configuration == TRADITIONAL
    assert found["traditional"].cut == 0
    assert found["linear_probe"].cut == STAGES - 1
    assert 5 <= found["replace_best_cut"].cut <= 7


def test_restricted_cuts_are_all_tried_and_nothing_else() -> None:
    space = a_space(RETAIN, proposal=(Track(RETAIN, "fine-tuning", (2, 5, 16)),))
    history = searched(space, peak(9))
    assert {r.trial.cut for r in track_results(space.proposal[0], space, history)} == {2, 5, 16}


def test_what_is_left_out_is_not_proposed_again() -> None:
    space = a_space()
    first = next_round(space, {})
    assert first is not None
    later = next_round(space, {}, frozenset(t.key for t in first.trials[:2]))
    assert later is not None
    assert later.trials == first.trials[2:]


def test_no_round_begins_before_those_ahead_of_it_are_finished() -> None:
    space = a_space()
    first = next_round(space, {})
    assert first is not None
    history = {t.key: Result(t, 0.5, 0.5) for t in first.trials[1:]}
    assert next_round(space, history, frozenset({first.trials[0].key})) is None
    later = next_round(space, history | {first.trials[0].key: Result(first.trials[0], 0.5, 0.5)})
    assert later is not None
    assert later.name == "rates"


def test_neighbours_lie_half_way_to_the_tried_cuts() -> None:
    space = a_space(RETAIN)
    results = [Result(space.trial(space.proposal[0], cut), a, 0.5) for cut, a in ((0, 0.5), (8, 0.9), (16, 0.6))]
    assert neighbours(space, results) == [4, 12]


def test_between_cuts_that_the_validation_images_cannot_tell_apart_there_are_no_finer_ones() -> None:
    space = a_space(RETAIN)
    results = [Result(space.trial(space.proposal[0], cut), a, 0.5) for cut, a in ((4, 0.88), (8, 0.9), (16, 0.89))]
    assert neighbours(space, results) == [6, 12]
    assert neighbours(replace(space, validation=1000), results) == [6, 12]  # a standard error of 0.0095
    assert neighbours(replace(space, validation=100), results) == []
    # Where the best is the shallowest, the search goes on towards nothing frozen, if the one above is worse.
    assert neighbours(replace(space, validation=1000), results[1:]) == [3, 12]
    assert neighbours(replace(space, validation=100), results[1:]) == []


def test_where_all_are_right_nothing_is_to_be_found_by_finer_cuts() -> None:
    space = replace(a_space(RETAIN), validation=100)
    results = [Result(space.trial(space.proposal[0], cut), 1.0, 0.5) for cut in (4, 8, 16)]
    assert neighbours(space, results) == []


@pytest.mark.parametrize("cuts", [(0,), (0, 3), tuple(range(STAGES + 1))])
def test_a_restricted_baseline_with_nothing_frozen_is_the_traditional_fine_tuning(cuts: tuple[int, ...]) -> None:
    space = a_space(proposal=(Track(REPLACE, "fine-tuning", cuts),), settings=TrainingSettings(epochs=8))
    history = searched(space, lambda t: by_rates(0.03 if t.cut else 0.003, 1.0)(t) + 0.1 * (not t.cut))
    found = roles(space, history)
    assert found["replace_best_cut"] == found["traditional"]
    assert found["traditional"].learning_rate == pytest.approx(0.003)


def test_an_estimate_foresees_finer_cuts_although_it_imagines_equal_results() -> None:
    space = replace(a_space(RETAIN), validation=100)
    assert {t.key for t in expected_trials(space, {})} == {t.key for t in expected_trials(space.for_estimates, {})}
    cuts = {t.cut for t in expected_trials(space, {}) if t.configuration == RETAIN}
    assert cuts > set(space.coarse_cuts(space.proposal[0])[1:])


def test_nothing_is_expected_of_a_search_that_is_finished() -> None:
    space = replace(a_space(REPLACE, RETAIN, settings=TrainingSettings(epochs=8)), validation=100)
    history = searched(space, lambda _: 0.7)
    assert expected_trials(space, history) == []
    assert len({r.trial.cut for r in history.values() if r.trial.configuration == RETAIN}) < STAGES


def test_what_is_proposed_leads_its_graft_although_the_baseline_probes_better() -> None:
    for track in (Track(REPLACE, "fine-tuning", cuts=(2, 5)), Track(REPLACE, "co-tuning"), Track(REPLACE_L2, "l2-sp")):
        space = a_space(RETAIN)
        space = replace(space, proposal=(*space.proposal, track))
        history = searched(space, lambda t: 0.9 if t.configuration == REPLACE and t.method == "fine-tuning" else 0.5)
        assert track in leading_tracks(space, history)
        tried = {r.trial.cut for r in track_results(track, space, history)}
        assert tried >= set(track.cuts or space.coarse_cuts(track)[1:])


def test_traditional_fine_tuning_is_one_of_the_results_of_replacing_at_whatever_rates() -> None:
    space = a_space(REPLACE, settings=TrainingSettings(epochs=8))
    low = {t.key for t in traditional_grid(space) if t.learning_rate == pytest.approx(0.009)}
    history = searched(space, lambda t: 0.9 if t.key in low else by_rates(0.03, 1.0)(t))
    whole = [r.trial for r in track_results(space.baseline, space, history) if not r.trial.cut]
    assert [t.learning_rate for t in whole] == [pytest.approx(0.009)]
    assert best_of_graft(space, history)["replace"] == roles(space, history)["traditional"] == space.in_full(whole[0])


def test_rates_that_failed_half_frozen_are_not_among_the_best() -> None:
    space = a_space(settings=TrainingSettings(epochs=8))
    middle = space.middle
    history = searched(space, lambda t: FAILED if t.cut == middle and t.learning_rate > 0.004 else 0.5)
    assert best_pair(space, history)[0] <= 0.1
    history = searched(space, lambda t: FAILED if t.cut == middle else 0.5)
    assert best_pair(space, history) == (USUAL_RATIO, min(BESIDE_OLD_LAYERS))


def test_after_all_epochs_rates_are_compared_by_accuracy_before_that_by_log_loss() -> None:
    for search in SEARCHES:
        space = a_space(search=search, settings=TrainingSettings(epochs=8))
        pairs = [(1.0, 1.0), (3.0, 1.0)]
        trials = [space.rate_trials[pair] for pair in pairs]
        history = {t.key: Result(t, *found) for t, found in zip(trials, ((0.8, 0.9), (0.7, 0.8)), strict=True)}
        assert best_pair(space, history) == pairs[0 if space.exhaustive else 1]
        probes = [space.probe(space.proposal[1], multiple) for multiple in MULTIPLES[:2]]
        history = {t.key: Result(t, *found) for t, found in zip(probes, ((0.8, 0.9), (0.7, 0.8)), strict=True)}
        assert search_trials(space, space.proposal[1], [16], history)[0].new_layer_learning_rate == pytest.approx(0.03)


def test_where_no_old_layer_trains_the_baselines_new_ones_have_the_rate_that_probed_best() -> None:
    space = a_space(settings=TrainingSettings(epochs=8))

    def accuracy(trial: Trial) -> float:
        return 0.9 if trial.new_layer_learning_rate == pytest.approx(0.01 if trial.learning_rate else 0.09) else 0.5

    history = searched(space, accuracy)
    middle, deepest = search_trials(space, space.baseline, [5, STAGES - 1], history)
    assert middle.new_layer_learning_rate == pytest.approx(0.01)
    assert deepest.new_layer_learning_rate == pytest.approx(0.09)
    assert deepest.key in {r.trial.key for r in track_results(space.baseline, space, history)}


def test_of_every_graft_the_variant_that_probed_best_is_searched_first() -> None:
    space = a_space()
    history = searched(space, lambda t: 0.9 if t.configuration == RETAIN_L2 else 0.5)
    assert [t.configuration for t in ordered_tracks(space, history)] == [RETAIN_L2, REPLACE, RETAIN]


def coarse_order(accuracy: Callable[[Trial], float]) -> list[tuple[str, int]]:
    """Configuration and cut of the trials of the coarse round, in order."""
    space, history, order = a_space(), dict[str, Result](), list[tuple[str, int]]()
    while (found := next_round(space, history)) is not None and found.name != "finer cuts":
        trial = found.trials[0]
        if found.name == "coarse cuts" and trial not in traditional_trials(space, history):
            order.append((str(trial.configuration), trial.cut))
        history[trial.key] = Result(trial, accuracy(trial), 0.5)
    return order


def test_the_coarse_cuts_are_tried_from_the_deepest_up_and_first_by_what_keeps_the_layer() -> None:
    order = coarse_order(lambda t: 0.9 if t.configuration == RETAIN_L2 else 0.5)
    # The deepest are known from the probes, which have as many epochs here.
    assert order[:3] == [("retain, l2", 12), ("replace", 11), ("retain, l2", 8)]
    assert [cut for configuration, cut in order if configuration == "retain, l2"] == [12, 8, 4]


@pytest.mark.parametrize(("at", "tried"), [(0, True), (7, False), (16, False)])
def test_nothing_frozen_is_tried_by_a_contender_where_unfreezing_more_has_helped_so_far(at: int, tried: bool) -> None:
    assert 0 not in [cut for _, cut in coarse_order(peak(at))]
    space = a_space(REPLACE, RETAIN, JOINED)
    history = searched(space, peak(at))
    cuts = {t.configuration.graft: {r.trial.cut for r in track_results(t, space, history)} for t in space.tracks}
    assert (0 in cuts["retain"]) is tried
    assert 0 not in cuts["joined"]
    # Traditional fine-tuning is one of the trials of replacing, whatever its other cuts say.
    assert 0 in cuts["replace"]


def test_an_exhaustive_search_tries_the_next_rates_of_old_layers_where_a_track_did_best() -> None:
    space = a_space(search="exhaustive")

    def accuracy(trial: Trial) -> float:
        # A lower rate is best where the track did best at the usual one.
        return 0.9 if (trial.cut, trial.learning_rate) == (6, pytest.approx(0.009)) else peak(6)(trial)

    history = searched(space, accuracy)
    for track in (Track(RETAIN, "fine-tuning"), Track(RETAIN_L2, "fine-tuning")):
        by_cut: dict[int, set[float]] = {}
        for result in track_results(track, space, history):
            by_cut.setdefault(result.trial.cut, set()).add(result.trial.learning_rate)
        assert by_cut.pop(6) == set(old_layer_rates(space, history))
        assert all(len(rates) == 1 for rates in by_cut.values())
    assert best_of_graft(space, history)["retain"].learning_rate == pytest.approx(0.009)


def test_ties_go_to_the_lower_log_loss_then_to_the_deeper_cut() -> None:
    space = a_space(RETAIN)
    track = space.proposal[0]
    results = [Result(space.trial(track, cut), 0.9, loss) for cut, loss in ((2, 0.3), (4, 0.2), (8, 0.2))]
    assert best_of_graft(space, {r.trial.key: r for r in results})["retain"].cut == 8


def test_failed_trials_are_never_chosen() -> None:
    space = a_space(RETAIN)
    history = searched(space, lambda t: FAILED if t.cut not in (0, 16) else 0.4)
    assert best_of_graft(space, history)["retain"].cut in (0, 16)


def test_confirmation_uses_seeds_of_its_own_seed_by_seed_with_the_baselines_early() -> None:
    space = a_space(seeds=2)
    history = searched(space, peak(9))
    trials = list(Race(space, history).pending())
    assert {t.seed for t in trials} == {1, 2}
    assert [t.seed for t in trials] == sorted(t.seed for t in trials)
    found = roles(space, history)
    wanted = [found[f"{name}_best_cut"] for name in ("retain", "replace")]
    wanted += [found["traditional"], found["linear_probe"]]
    first = [confirmations(space, t)[0].key for t in wanted]
    assert [t.key for t in trials[:4]] == first
    assert Race(space, history).essential == 4


def test_the_choice_is_among_confirmed_candidates_over_the_seeds_that_all_have() -> None:
    space = a_space(REPLACE, RETAIN, seeds=3)
    history = searched(space, peak(9))
    best = best_of_graft(space, history)
    replaced, kept = confirmations(space, best["replace"]), confirmations(space, best["retain"])
    # The search preferred retain; one confirmation each says otherwise, and a second one of retain does not count yet.
    for trial, accuracy in ((replaced[0], 0.9), (kept[0], 0.7), (kept[1], 1.0)):
        history[trial.key] = Result(trial, accuracy, 0.5)
    choice = choose(space, history)
    assert choice is not None
    assert choice.trial == best["replace"]
    assert choice.confirmed
    history[replaced[1].key] = Result(replaced[1], 0.5, 0.5)
    later = choose(space, history)
    assert later is not None
    assert later.trial == best["retain"]
    assert [r.trial.seed for r in later.results] == [1, 2]


def test_what_replaces_the_layer_is_the_same_in_the_verdict_and_in_its_role() -> None:
    space = a_space(REPLACE, RETAIN, seeds=2)
    history = searched(space, peak(9))
    probe = roles(space, history)["linear_probe"]
    confirmed(space, history, lambda t: 0.9 if t.cut == probe.cut else 0.7)
    found = Race(space, history).found()
    assert found["replace_best_cut"] == found["linear_probe"] == Race(space, history).sides()[1]


@pytest.mark.parametrize("role", ["traditional", "linear_probe"])
def test_a_baseline_that_does_best_in_full_is_the_choice_whatever_the_search_thought_of_it(role: str) -> None:
    space = a_space(REPLACE, RETAIN, seeds=2)
    history = searched(space, peak(9))
    baseline = roles(space, history)[role]
    assert baseline not in best_of_graft(space, history).values()
    confirmed(space, history, lambda t: 0.9 if t.cut == baseline.cut else 0.7)
    choice = choose(space, history)
    assert choice is not None
    assert choice.trial == baseline
    narrowed = replace(space, proposal=(Track(RETAIN, "fine-tuning"),))
    chosen = choose(narrowed, history)
    assert chosen is not None
    assert chosen.trial.configuration == RETAIN


def test_without_confirmations_the_search_result_stands_and_says_so() -> None:
    space = a_space(RETAIN)
    choice = choose(space, searched(space, peak(4)))
    assert choice is not None
    assert not choice.confirmed
    assert choice.trial.cut == 4


def test_a_candidate_with_a_failed_confirmation_gives_way_to_one_without() -> None:
    space = a_space(REPLACE, RETAIN, seeds=3)
    history = searched(space, peak(9))
    best = best_of_graft(space, history)
    for graft, accuracies in (("replace", (0.8, 0.9, 0.9)), ("retain", (FAILED, FAILED, 0.99))):
        for trial, accuracy in zip(confirmations(space, best[graft]), accuracies, strict=True):
            history[trial.key] = Result(trial, accuracy, 0.5)
    choice = choose(space, history)
    assert choice is not None
    assert choice.trial == best["replace"]
    found = candidate(space, history, best["retain"])
    assert found is not None
    assert found.failed == 2


def test_candidates_are_compared_on_the_seeds_that_all_have() -> None:
    space = a_space(REPLACE, RETAIN, seeds=2)
    history = searched(space, peak(9))
    best = best_of_graft(space, history)
    again = {graft: confirmations(space, trial) for graft, trial in best.items()}
    # Seed 1 is kind to both; only replace has seed 2, which is not.
    for trial, accuracy in ((again["replace"][0], 0.9), (again["replace"][1], 0.1), (again["retain"][0], 0.8)):
        history[trial.key] = Result(trial, accuracy, 0.5)
    choice = choose(space, history)
    assert choice is not None
    assert choice.trial == best["replace"]


def test_a_candidate_that_could_not_be_confirmed_does_not_lose_to_one_that_was_cheap_to_confirm() -> None:
    space = a_space(REPLACE, RETAIN, seeds=2)
    history = searched(space, peak(0))
    best = best_of_graft(space, history)
    cheap = confirmations(space, best["replace"])[0]
    history[cheap.key] = Result(cheap, 0.7, 0.5)
    choice = choose(space, history)
    assert choice is not None
    assert choice.trial == best["retain"]
    assert not choice.confirmed


def test_everybody_runs_the_race_and_only_leaders_and_baselines_get_all_seeds() -> None:
    space = a_space(REPLACE_L2, REPLACE, RETAIN, JOINED, seeds=4)
    history = searched(space, peak(3, "retain"))
    confirmed(space, history, peak(3, "joined"))
    found = {role: candidate(space, history, t) for role, t in roles(space, history).items()}
    seeds = {role: [r.trial.seed for r in c.results] for role, c in found.items() if c}
    assert found == Race(space, history).found()
    assert seeds == {
        "joined_best_cut": [1, 2, 3, 4], "retain_best_cut": [1, 2], "replace_best_cut": [1, 2, 3, 4],
        "traditional": [1, 2, 3, 4], "linear_probe": [1, 2, 3, 4],
    }  # fmt: skip
    choice, (kept, replaced) = choose(space, history), Race(space, history).sides()
    assert choice == kept == found["joined_best_cut"]
    assert replaced == found["replace_best_cut"]


def test_while_the_baselines_run_their_further_seeds_that_of_the_leaders_is_likely_to_follow() -> None:
    space = a_space(RETAIN, REPLACE_L2)
    accuracy = peak(6)
    history = searched(space, accuracy)
    proposed = []
    while (pending := list(Race(space, history).pending())) and pending[0].seed <= space.seed + 2:
        assert Race(space, history).likely() == []
        history[pending[0].key] = Result(pending[0], accuracy(pending[0]), 1 - accuracy(pending[0]))
    likely = Race(space, history).likely()
    assert likely
    assert not {t.key for t in likely} & {t.key for t in pending}
    for trial in confirmed(space, history, accuracy):
        proposed.append(trial.key)
    assert {t.key for t in likely} <= set(proposed)


def test_a_leader_that_falls_back_with_a_further_seed_hands_the_race_on() -> None:
    space = a_space(RETAIN, REPLACE, seeds=3)
    history = searched(space, peak(3, "retain"))

    def falling(trial: Trial) -> float:
        return {"retain": 0.9, "replace": 0.7}[trial.configuration.graft] - (0.6 if trial.seed == 3 else 0.0)

    confirmed(space, history, falling)
    for trial in best_of_graft(space, history).values():
        found = candidate(space, history, trial)
        assert found is not None
        assert [r.trial.seed for r in found.results] == [1, 2, 3]


def test_before_anything_is_trained_in_full_there_is_nothing_to_choose_and_it_is_said_what_must_be_trained() -> None:
    space = a_space(settings=TrainingSettings(epochs=8), seeds=2)
    space = replace(space, proposal=(Track(RETAIN, "fine-tuning", cuts=(3, 5)),))  # so that no probe has all epochs
    every = required(space, {})
    assert linear_probes(space)[0] in every
    assert {t.settings.epochs for t in every if t.cut == 0} == {4, 8}
    history = searched(space, peak(3, "retain"))
    assert choose(space, history) is None
    found = roles(space, history)
    assert required(space, history) == [confirmations(space, found[r])[0] for r in ("traditional", "retain_best_cut")]
    confirmed(space, history, peak(3))
    assert required(space, history) == []
    assert choose(space, history) is not None


def test_what_fails_in_full_with_every_seed_gives_way_to_the_next_best_of_the_search() -> None:
    space = a_space(RETAIN, settings=TrainingSettings(epochs=8), seeds=2)
    history = searched(space, peak(3, "retain"))
    first = roles(space, history)
    confirmed(space, history, lambda t: FAILED if t.cut == first["retain_best_cut"].cut else 0.5)
    found = roles(space, history)
    assert found["retain_best_cut"] != first["retain_best_cut"]
    choice = choose(space, history)
    assert choice is not None
    assert choice.trial == found["retain_best_cut"]
    assert choice.confirmed


def test_seeds_that_a_stopped_study_trained_for_a_leader_that_leads_no_more_do_not_count() -> None:
    space = a_space(RETAIN, JOINED, seeds=3)
    history = searched(space, peak(3, "retain"))
    confirmed(space, history, peak(3, "joined"))
    best = best_of_graft(space, history)
    extra = confirmations(space, best["retain"])[2]
    assert extra.key not in history
    history[extra.key] = Result(extra, 0.99, 0.01)
    found = Race(space, history).found()["retain_best_cut"]
    assert [r.trial.seed for r in found.results] == [1, 2]


def test_finer_cuts_follow_from_the_waves_before_them_whatever_else_was_left_out() -> None:
    space = a_space(RETAIN, REPLACE)
    history: dict[str, Result] = {}
    while (found := next_round(space, history)) is not None and found.name != "finer cuts":
        history[found.trials[0].key] = Result(found.trials[0], peak(7)(found.trials[0]), 0.5)
    assert found is not None
    first, second = [t for t in found.trials if t.configuration == RETAIN]
    assert (first.cut, second.cut) == (6, 10)
    history[second.key] = Result(second, 0.99, 0.01)
    later = next_round(space, history, frozenset({first.key}))
    assert later is not None
    assert not [t for t in later.trials if t.configuration == RETAIN]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("at", [0, 1, 7, STAGES])
@pytest.mark.parametrize("cuts", [None, (3, 5), (5,), (0, 5, 15, 16)])
@pytest.mark.parametrize(("old", "beside", "alone"), [(0.03, 1.0, 0), (0.03, 1 / 3, 0.3), (0.0009, 1 / 3, 0)])
def test_what_is_tried_does_not_depend_on_what_ran_first(
    at: int, search: str, cuts: tuple[int, ...] | None, old: float, beside: float, alone: float
) -> None:
    tracks = tuple(Track(c, "fine-tuning", cuts) for c in (REPLACE, REPLACE_L2, RETAIN, RETAIN_L2))
    space = a_space(proposal=tracks, search=search, settings=TrainingSettings(epochs=8))

    def accuracy(trial: Trial) -> float:
        variant = 0.05 * (trial.configuration == RETAIN_L2) * (trial.new_layer_learning_rate < 0.02)
        frozen = alone * (not trial.learning_rate)  # with it the search ends in the round with all epochs
        return peak(at)(trial) - 0.4 + by_rates(old, beside)(trial) / 3 + variant + frozen

    def trained(which: int) -> set[str]:
        history: dict[str, Result] = {}
        left: set[str] = set()
        while (found := next_round(space, history)) is not None:
            wanted = {t.key for t in found.trials}
            assert left <= wanted  # nothing is asked for and then not wanted any more
            trial = found.trials[which]
            history[trial.key] = Result(trial, accuracy(trial), 1 - accuracy(trial))
            left = wanted - {trial.key}
        assert not left
        return set(history)

    assert trained(0) == trained(-1)


def test_a_candidate_whose_first_seeds_fail_gets_the_further_ones_and_is_judged_by_them() -> None:
    space = a_space(RETAIN, JOINED, settings=TrainingSettings(epochs=8), seeds=3)
    for kept in ((RETAIN,), (RETAIN, JOINED)):
        space = replace(space, proposal=tuple(Track(c, "fine-tuning") for c in kept))
        history = searched(space, peak(3, "retain"))
        confirmed(space, history, lambda t: FAILED if t.configuration == RETAIN and t.seed < 3 else 0.5)
        assert required(space, history) == []
        race = Race(space, history)
        found = race.found()["retain_best_cut"]
        assert (found.failed, [r.trial.seed for r in found.results]) == (2, [3])
        assert race.choice() is not None


def test_a_candidate_that_fails_does_not_let_what_the_search_saw_of_the_others_count() -> None:
    space = a_space(REPLACE, RETAIN, JOINED, search="exhaustive", seeds=2)
    history = searched(space, lambda t: {RETAIN: 0.99, REPLACE: 0.5}.get(t.configuration, 0.4))
    again = {RETAIN: 0.7, REPLACE: 0.8}
    confirmed(space, history, lambda t: again.get(t.configuration, FAILED))
    choice = choose(space, history)
    assert choice is not None
    assert choice.trial.configuration == REPLACE


def test_where_the_first_of_the_proposal_fails_another_one_must_be_there() -> None:
    space = a_space(RETAIN, JOINED, settings=TrainingSettings(epochs=8))
    history: dict[str, Result] = {}
    # As where the time is up at once: what must be there is all that is trained.
    while wanted := required(space, history):
        fails = wanted[0].configuration == RETAIN
        history[wanted[0].key] = Result(wanted[0], FAILED if fails else 0.5, 0.5)
    choice = choose(space, history)
    assert choice is not None
    assert choice.trial.configuration == JOINED


def test_where_time_ended_before_any_cut_was_looked_at_the_probes_stand_for_their_graft() -> None:
    space = a_space(RETAIN, RETAIN_L2, settings=TrainingSettings(epochs=8), seeds=2)
    history = {}
    while (found := next_round(space, history)) is not None and found.name == "probes":
        history[found.trials[0].key] = Result(found.trials[0], peak(9)(found.trials[0]), 0.5)
    best = best_of_graft(space, history)["retain"]
    assert (best.cut, best.settings.epochs) == (STAGES, 8)
    choice = choose(space, history)
    assert choice is not None
    assert (choice.trial, choice.confirmed) == (best, False)
    later = searched(space, peak(3))
    assert best_of_graft(space, later)["retain"].cut < STAGES


def test_where_time_ended_before_the_best_of_a_graft_was_trained_in_full_its_best_probe_stands_for_it() -> None:
    space = a_space(REPLACE, RETAIN, RETAIN_L2, settings=TrainingSettings(epochs=8), seeds=2)
    history = searched(space, peak(3))
    best = best_of_graft(space, history)["retain"]
    assert (best.cut, best.settings.epochs) == (3, 8)
    probes = [
        history[space.probe(t, m).key] for t in space.proposal if t.configuration.graft == "retain" for m in MULTIPLES
    ]
    found = Race(space, history).found()
    assert found["retain_best_cut"].trial == max(probes, key=lambda r: r.merit).trial
    assert not found["retain_best_cut"].confirmed
    assert found["retain_best_cut"].trial in stand_ins(space, history)
    kept, replaced = Race(space, history).sides()
    assert kept == found["retain_best_cut"]
    assert replaced is not None
    assert "traditional" not in found  # a linear probe does not stand for it
    assert not Race(space, history).complete()
    for again in confirmations(space, best)[:1]:
        history[again.key] = Result(again, 0.1, 2.0)
    assert Race(space, history).found()["retain_best_cut"].trial == best
    assert all(t.configuration.graft != "retain" for t in stand_ins(space, history))
    confirmed(space, history, peak(3))
    assert Race(space, history).complete()
