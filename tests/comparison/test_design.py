"""The design of a comparison on made-up results: who is tuned with what, and what is trained on which draw."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from inarch.comparison.design import RATIOS, REFERENCE, Contestant, contestants, draws, expected, tuned, tuning, work
from inarch.network.grafts import Configuration
from inarch.search.space import FAILED, MULTIPLES, TRADITIONAL, Result, Space, Track
from inarch.training.trial import TrainingSettings, Trial

RETAIN, RETAIN_L2 = Configuration("retain", "none"), Configuration("retain", "l2")
STAGES = 16


def a_space(**changes: object) -> Space:
    tracks = tuple(Track(c, m) for m in ("fine-tuning", "l2-sp") for c in (TRADITIONAL, RETAIN, RETAIN_L2))
    rates = dict.fromkeys((TRADITIONAL, RETAIN, RETAIN_L2), 0.03)
    space = Space(STAGES, tracks, TrainingSettings(epochs=8), rates, seeds=3, shots=20)
    return replace(space, **changes)  # type: ignore[arg-type]


def named(space: Space, name: str) -> Contestant:
    return next(c for c in contestants(space) if c.name == name)


def test_each_method_meets_each_graft_and_traditional_fine_tuning_comes_first() -> None:
    found = contestants(a_space())
    assert [c.name for c in found] == [
        REFERENCE, "fine-tuning, replace", "fine-tuning, retain", "l2-sp, replace", "l2-sp, retain",
    ]  # fmt: skip
    assert found[0].cuts == (0,)
    assert named(a_space(), "l2-sp, retain").configurations == (RETAIN, RETAIN_L2)


def test_everybody_is_tuned_with_as_many_different_trials_and_the_first_has_the_defaults() -> None:
    space = a_space()
    for contestant in contestants(space):
        trials = tuning(contestant, space, 8)
        assert len({t.key for t in trials}) == len(trials) == 8
        first = trials[0]
        assert (first.cut, first.strength, first.new_layer_learning_rate) == (0, 1.0, 0.03)
        assert first.configuration == contestant.configurations[0]
        assert all((t.shots, t.seed, t.settings.epochs) == (20, space.seed, 4) for t in trials)


def test_every_level_of_every_factor_is_tried_about_equally_often() -> None:
    space = a_space()
    trials = tuning(named(space, "l2-sp, retain"), space, 16)
    for levels in (
        Counter(t.configuration for t in trials),
        Counter(t.cut for t in trials),
        Counter(t.new_layer_learning_rate for t in trials),
        Counter(t.strength for t in trials),
    ):
        assert max(levels.values()) - min(levels.values()) <= 3
    assert {t.configuration for t in trials} == {RETAIN, RETAIN_L2}
    assert {round(t.new_layer_learning_rate / 0.03, 4) for t in trials} == {round(m, 4) for m in MULTIPLES}
    ratios = {round(t.learning_rate / t.new_layer_learning_rate, 3) for t in trials if t.cut < STAGES}
    assert ratios == set(RATIOS)
    assert len({t.cut for t in trials}) == 5


def test_where_there_are_fewer_different_trials_all_of_them_are_tried() -> None:
    space = a_space()
    deepest = Contestant("probe", "fine-tuning", (TRADITIONAL,), (STAGES - 1,))
    trials = tuning(deepest, space, 8)
    assert {t.new_layer_learning_rate for t in trials} == {0.03, 0.01, 0.09}
    assert {t.learning_rate for t in trials} == {0.0}


def test_the_best_on_validation_is_trained_with_all_epochs_on_draws_that_tuning_did_not_see() -> None:
    space = a_space(seed=5)
    contestant = named(space, "fine-tuning, retain")
    trials = tuning(contestant, space, 8)
    assert tuned(contestant, space, 8, {}) is None
    history = {t.key: Result(t, 0.5 + 0.01 * n, 1.0) for n, t in enumerate(trials)}
    history[trials[-1].key] = Result(trials[-1], FAILED, 1.0)
    best = tuned(contestant, space, 8, history)
    assert best is not None
    assert best == space.in_full(trials[-2])
    assert [(t.seed, t.settings.epochs, t.shots) for t in draws(space, best)] == [(6, 8, 20), (7, 8, 20), (8, 8, 20)]


@pytest.mark.parametrize("number", [1, 4])
def test_all_are_tuned_before_the_first_draw_and_draw_follows_draw(number: int) -> None:
    space, history, order = a_space(), {}, []
    total = len(expected(space, number, history))
    while following := next(work(space, number, history), None):
        part, trial = following
        assert trial.key not in history
        history[trial.key] = Result(trial, 0.5, 1.0)
        order.append(part)
    assert not expected(space, number, history)
    # Traditional fine-tuning and layer-wise fine-tuning of the same graft share the trial with the defaults.
    keys = {t.key for c in contestants(space) for t in tuning(c, space, number)}
    assert Counter(order)["tuning"] == len(keys) < number * len(contestants(space))
    assert len(keys) < total <= number * len(contestants(space)) + 3 * len(contestants(space))
    assert Counter(order)["draw 1 of 3"] == Counter(order)["draw 2 of 3"] == Counter(order)["draw 3 of 3"] >= 4
    assert order == sorted(order, key=["tuning", "draw 1 of 3", "draw 2 of 3", "draw 3 of 3"].index)
    assert len({t.trial.seed for t in history.values()}) == 4


def test_a_trial_of_a_draw_has_a_key_of_its_own_and_one_of_all_images_the_key_it_always_had() -> None:
    space = a_space(shots=0)
    plain, drawn = space.trial(space.baseline, 0), a_space().trial(space.baseline, 0)
    assert plain.key != drawn.key
    assert {"shots", "strength"}.isdisjoint(plain.to_json())
    for trial in (plain, drawn, replace(drawn, strength=10.0)):
        assert Trial.from_json(trial.to_json()) == trial
