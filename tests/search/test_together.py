"""Which trials are trained together: a matter of the round alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from inarch.network.grafts import Configuration, configurations
from inarch.search.rates import traditional_grid
from inarch.search.rounds import next_round, probes
from inarch.search.space import Result, Space, Track
from inarch.search.together import LARGEST, batches, with_companions
from inarch.training.trial import TrainingSettings, Trial

STAGES = 9


def a_space(harmonisers: tuple[str, ...] = ("none", "l2")) -> Space:
    found = configurations(("replace", "retain", "deepen", "joined"), harmonisers, ((8,),))
    tracks = tuple(Track(c, "fine-tuning") for c in found)
    return Space(STAGES, tracks, TrainingSettings(epochs=1), dict.fromkeys(found, 0.03))


def probes_of(space: Space) -> list[Trial]:
    return list({trial.key: trial for trial in probes(space, {})}.values())


def test_only_new_layers_train_in_a_batch_and_all_of_it_read_the_same_activations() -> None:
    space = a_space()
    trials = [*probes_of(space), *traditional_grid(space), space.trial(space.proposal[0], 3)]
    found = batches(space, trials)
    assert sorted(t.key for batch in found for t in batch) == sorted(t.key for t in trials)
    together = [batch for batch in found if len(batch) > 1]
    reading = [{t.configuration.graft for t in batch} for batch in together]
    assert reading == [{"replace", "joined"}, {"retain", "deepen"}]
    assert [len(batch) for batch in together] == [14, 12]
    assert found[0][0] == trials[0]


def test_trials_with_another_seed_or_other_settings_are_not_in_the_batch() -> None:
    space = a_space()
    trial = space.trial(space.proposal[0], STAGES - 1)
    others = [replace(trial, seed=5), replace(trial, settings=TrainingSettings(epochs=2))]
    assert batches(space, [trial, *others]) == [(trial,), *((other,) for other in others)]


def test_a_method_that_cannot_be_stacked_is_trained_trial_by_trial() -> None:
    space = a_space()
    found = [replace(trial, method="bi-tuning") for trial in probes_of(space)]
    assert batches(space, found) == [(trial,) for trial in found]


def test_batches_are_limited_and_come_in_the_order_of_the_round() -> None:
    space = a_space(("none", "l2", "batch"))
    found = batches(space, probes_of(space))
    assert max(map(len, found)) == LARGEST
    place = {trial.key: n for n, trial in enumerate(probes_of(space))}
    assert [place[batch[0].key] for batch in found] == sorted(place[batch[0].key] for batch in found)


@pytest.mark.parametrize("harmonisers", [("none", "l2"), ("none", "l2", "batch")])
def test_whatever_batches_are_done_the_others_stay_as_they_are(harmonisers: tuple[str, ...]) -> None:
    space = a_space(harmonisers)
    whole = batches(space, probes_of(space))
    for size in range(1, len(whole)):
        for done in itertools.combinations(whole, size):
            history = {t.key: Result(t, 0.5, 1.0) for batch in done for t in batch}
            pending = next_round(space, history)
            assert pending is not None
            assert batches(space, pending.trials) == [batch for batch in whole if batch not in done]
            left_out = next_round(space, {}, frozenset(history))
            assert left_out is not None
            assert batches(space, left_out.trials) == [batch for batch in whole if batch not in done]


def test_trials_come_with_those_that_they_are_trained_with_each_batch_once() -> None:
    space = a_space()
    found = batches(space, probes_of(space))
    alone = space.trial(space.baseline, 0)
    wanted = [found[1][3], alone, found[1][0], found[0][2]]
    assert with_companions(wanted, found) == [found[1], (alone,), found[0]]


def test_configurations_that_differ_in_hidden_layers_are_one_batch() -> None:
    space = a_space()
    deep = [Configuration("deepen", "none", sizes) for sizes in ((8,), (8, 4))]
    trials = [Trial(c, STAGES, "fine-tuning", 0.0, 0.1, 0, space.settings) for c in deep]
    assert batches(space, trials) == [tuple(trials)]
