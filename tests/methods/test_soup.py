"""Greedy model soup against an independent one, made from fine-tunings of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from workbench import SETTINGS, quick_selection, workbench  # noqa: F401

from inarch.errors import TrainingError
from inarch.launch.cost import CostModel, Speeds
from inarch.launch.here import TRIAL, Workbench
from inarch.methods import make_method
from inarch.methods.soup import Soup
from inarch.network import head2toe
from inarch.network.adapted import AdaptedNetwork
from inarch.network.grafts import Configuration
from inarch.training.fit import Watch, predict, train, train_together
from inarch.training.trial import Trial

TRIAL_ = Trial(Configuration("deepen", "batch", (6,)), 1, "soup", 0.05, 0.2, 1, replace(SETTINGS, epochs=3))


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


@pytest.mark.parametrize(
    ("accuracies", "taken"),
    [
        # By validation: 1, then 2 (as good: stays), then 0 (worse: goes).
        ({(0,): 0.5, (1,): 0.8, (2,): 0.7, (1, 2): 0.8, (1, 2, 0): 0.79}, [1, 2]),
        # What did not fit first does not keep the next one out.
        ({(0,): 0.9, (1,): 0.8, (2,): 0.7, (0, 1): 0.85, (0, 2): 0.95}, [0, 2]),
        # The soup's accuracy is what the next one is measured by, not that of the best member.
        ({(0,): 0.8, (1,): 0.8, (2,): 0.8, (0, 1): 0.9, (0, 1, 2): 0.85}, [0, 1]),
        ({(0,): 0.6, (1,): 0.7, (2,): 0.8, (2, 1): 0.8, (2, 1, 0): 0.9}, [2, 1, 0]),
    ],
)
def test_members_are_added_best_first_as_long_as_the_accuracy_does_not_fall(
    accuracies: dict[tuple[int, ...], float], taken: list[int]
) -> None:
    def accuracy(members: Sequence[int]) -> float:
        return accuracies[tuple(members)]

    assert list(Soup().taken(3, accuracy)) == taken


def test_seeds_of_members_are_the_trials_own_and_others_that_no_trial_has() -> None:
    found = [Soup().seeds(seed, True) for seed in range(50)]
    assert [seeds[0] for seeds in found] == list(range(50))
    assert {len(seeds) for seeds in found} == {3}
    assert len({seed for seeds in found for seed in seeds}) == 150
    assert min(seed for seeds in found for seed in seeds[1:]) > 10_000
    assert Soup().seeds(7, False) == (7,)


def judged(bench: Workbench, trial: Trial, state: dict[str, Tensor]) -> tuple[float, np.ndarray]:
    """Accuracy and probabilities on the validation split of a network with these weights."""
    network = bench.network(trial)
    network.load_state_dict(state)
    probabilities = predict(network, bench.store, "validation")
    return float((probabilities.argmax(axis=1) == bench.store.images.labels["validation"]).mean()), probabilities


def mean_of(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([state[name].double() for state in states]).mean(dim=0) for name in states[0]}


def test_a_soup_is_that_of_an_independent_implementation_from_fine_tunings_of_one_start(tmp_path: Path) -> None:
    found = []
    # Rates and seeds at which some soups have all members and some leave one out.
    for rate, seed_of_all in ((0.05, 1), (0.05, 3), (0.5, 1), (1.0, 3)):
        trial = replace(TRIAL_, learning_rate=rate, seed=seed_of_all)
        with workbench(tmp_path, epochs=3) as bench:
            start = copied(bench.network(trial).state_dict())
            states = []
            for seed in Soup().seeds(trial.seed, True):
                member = replace(trial, method="fine-tuning", seed=seed)
                network = bench.network(member)
                network.load_state_dict(start)
                train(network, member, bench.store, make_method("fine-tuning"), Watch())
                states.append(copied(network.state_dict()))
            ranking = sorted(states, key=lambda state: -judged(bench, trial, state)[0])
            soup, best = [ranking[0]], judged(bench, trial, ranking[0])
            for state in ranking[1:]:
                tried = judged(bench, trial, mean_of([*soup, state]))
                if tried[0] >= best[0]:
                    soup, best = [*soup, state], tried
            network = bench.network(trial)
            outcome = train(network, trial, bench.store, make_method("soup"), Watch())
            left = copied(network.state_dict())
        assert [member.taken for member in outcome.members] == [any(state is s for s in soup) for state in states]
        np.testing.assert_allclose(outcome.validation, best[1], atol=1e-5)
        for name, expected in mean_of(soup).items():
            if not name.endswith("num_batches_tracked"):
                torch.testing.assert_close(left[name].double(), expected, rtol=1e-5, atol=1e-6)
        found.append(sum(member.taken for member in outcome.members))
    assert 3 in found
    assert min(found) < 3


def test_members_begin_alike_and_the_first_is_plain_fine_tuning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Tensor]] = []
    monkeypatch.setattr(Soup, "prepare", lambda self, network, task: begun.append(copied(network.state_dict())))
    with workbench(tmp_path, epochs=3) as bench:
        plain = replace(TRIAL_, method="fine-tuning")
        first = train(bench.network(plain), plain, bench.store, make_method("fine-tuning"), Watch())
        outcome = train(bench.network(TRIAL_), TRIAL_, bench.store, make_method("soup"), Watch())
    assert len(begun) == 3
    assert all(torch.equal(value, other[name]) for other in begun[1:] for name, value in begun[0].items())
    assert outcome.members[0].seed == 1
    assert outcome.members[0].validation_accuracy == first.epochs[-1].validation_accuracy
    assert len({epochs.training_loss for epochs in outcome.epochs}) == 3


def test_members_have_the_features_that_the_trials_own_seed_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head2toe, "BATCH", 4)  # so that the seed has a say in what is chosen
    begun, trial = list[Tensor](), replace(TRIAL_, configuration=Configuration("head2toe", "none"))

    def prepared(self: Soup, network: AdaptedNetwork, task: object) -> None:
        begun.append(network.graft.body.get_buffer("chosen").clone())  # type: ignore[union-attr]

    monkeypatch.setattr(Soup, "prepare", prepared)
    with workbench(tmp_path, epochs=3) as bench:
        network, plain = bench.network(trial), replace(trial, method="fine-tuning")
        train(network, trial, bench.store, make_method("soup"), Watch())
        alone = bench.network(plain)
        train(alone, plain, bench.store, make_method("fine-tuning"), Watch())
    assert len(begun) == 3
    chosen = (n.graft.body.get_buffer("chosen") for n in (network, alone))  # type: ignore[union-attr]
    assert all(torch.equal(begun[0], other) for other in (*begun[1:], *chosen))


def test_where_no_old_layer_trains_it_is_plain_fine_tuning(tmp_path: Path) -> None:
    found = []
    for method in ("fine-tuning", "soup"):
        trial = replace(TRIAL_, method=method, cut=3, learning_rate=0.0)
        with workbench(tmp_path, epochs=3) as bench:
            found.append(train(bench.network(trial), trial, bench.store, make_method(method), Watch()))
    assert np.array_equal(found[0].validation, found[1].validation)
    assert found[1].members == ()


def test_a_record_names_the_members_and_a_soup_made_anew_is_the_same(tmp_path: Path) -> None:
    with workbench(tmp_path, epochs=3) as bench:
        bench.run([TRIAL_], Watch())
        (record,) = bench.folder.ledger.records(TRIAL)
        saved = copied(bench.restore(TRIAL_).state_dict())
        bench.keep_checkpoints([])
        anew = copied(bench.restore(TRIAL_).state_dict())
    members = record.outcome["members"]
    assert [member["seed"] for member in members] == list(Soup().seeds(1, True))
    assert any(member["taken"] for member in members)
    assert record.outcome["validation"]["accuracy"] >= max(m["validation_accuracy"] for m in members)
    assert all(torch.equal(value, anew[name]) for name, value in saved.items())


def test_members_that_fail_are_left_out_and_where_all_fail_the_trial_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = replace(TRIAL_, learning_rate=1e30, new_layer_learning_rate=1e30)
    calls: list[int] = []

    def sometimes(self: Soup, network: object, number: int) -> None:
        calls.append(number)
        if len(calls) == 5:  # in the first member
            with torch.no_grad():
                network.graft.classifier.weight.fill_(float("nan"))  # type: ignore[attr-defined]

    with workbench(tmp_path, epochs=3) as bench:
        (failed,) = train_together([bench.network(wild)], [wild], bench.store, [make_method("soup")], Watch())
        monkeypatch.setattr(Soup, "begin", sometimes)
        outcome = train(bench.network(TRIAL_), TRIAL_, bench.store, make_method("soup"), Watch())
    assert isinstance(failed, TrainingError)
    assert "1e+30" in str(failed)
    assert [member.seed for member in outcome.members] == list(Soup().seeds(1, True)[1:])
    assert np.isfinite(outcome.validation).all()


def test_progress_and_the_estimate_count_all_members(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    watch = Watch(progress=lambda step, steps: seen.append((step, steps)))
    plain = replace(TRIAL_, method="fine-tuning")
    with workbench(tmp_path, epochs=3) as bench:
        costs = CostModel(bench.staged, bench.store, Speeds(0.001, 0.01, 0.03, 0.001))
        three, one = costs.raw(TRIAL_), costs.raw(plain)
        probe = replace(TRIAL_, cut=3, learning_rate=0.0)
        assert costs.raw(probe) == costs.raw(replace(probe, method="fine-tuning"))
        train(bench.network(TRIAL_), TRIAL_, bench.store, make_method("soup"), watch)
    assert [step for step, _ in seen] == list(range(1, len(seen) + 1))
    assert {steps for _, steps in seen} == {len(seen)}
    assert 2.5 * one < three < 3.01 * one
