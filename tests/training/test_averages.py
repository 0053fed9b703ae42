"""Moving averages of weights: hand-computed values, and what training, validation and methods see of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import DEEPER, SIDE, toy_network
from workbench import SETTINGS, deepest, needs_deeper, small, workbench

from inarch.errors import UsageError
from inarch.launch.here import TRIAL
from inarch.methods import METHODS, Method, make_method, trained_state
from inarch.network.adapted import AdaptedNetwork, stage
from inarch.network.grafts import GRAFT_NAMES, Configuration, Widths
from inarch.training.averages import Averages
from inarch.training.fit import Watch, predict, train
from inarch.training.learner import Learner
from inarch.training.trial import TrainingSettings, Trial

AVERAGED = replace(SETTINGS, ema=0.8)


def a_trial(cut: int = 1, **changes: object) -> Trial:
    trial = Trial(Configuration("retain", "batch"), cut, "fine-tuning", 0.05, 0.1, 1, AVERAGED)
    return replace(trial, **changes)  # type: ignore[arg-type]


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def test_averages_computed_by_hand_begin_with_the_first_update() -> None:
    weight, averages = torch.tensor([100.0]), None
    averages = Averages([weight], 0.75)
    for value in (4.0, 8.0, 0.0):
        weight.fill_(value)
        averages.update()
    with averages.in_use():
        # 4, then 3/4 of 4 and 1/4 of 8, then 3/4 of 5 and 1/4 of 0
        assert weight.tolist() == [3.75]
    assert weight.tolist() == [0.0]
    averages.leave()
    assert weight.tolist() == [3.75]


@pytest.mark.parametrize("graft", GRAFT_NAMES)
def test_what_trains_and_nothing_that_is_frozen_is_the_state_that_is_averaged(graft: str) -> None:
    staged = stage(toy_network(DEEPER).eval(), "12", torch.randn(2, 3, SIDE, SIDE))
    for cut in range(deepest(graft) + 2 - needs_deeper(graft)):
        network = AdaptedNetwork(staged, small(graft, "batch"), Widths(12, 6, 4), cut=cut, seed=0)
        found = {id(network.get_parameter(name)) for name in trained_state(network) if name in names_of(network)}
        assert found == {id(p) for p in network.parameters() if p.requires_grad}
        statistics = {name for name in trained_state(network) if name.endswith("running_mean") and "graft" not in name}
        used = {"suffix.1.running_mean": cut < 1, "suffix.7.running_mean": cut < 3}
        assert statistics == {name for name, trains in used.items() if trains}
        network.hold(4)  # rests for a while, as in the first phase of some methods
        assert found == {
            id(network.get_parameter(name)) for name in trained_state(network) if name in names_of(network)
        }


def names_of(network: AdaptedNetwork) -> set[str]:
    return {name for name, _ in network.named_parameters()}


@final
@dataclass
class Recorder(Method):
    """Plain fine-tuning that remembers the weights before every step, and those that `finish` sees."""

    name: ClassVar[str] = "recorder"

    def __post_init__(self) -> None:
        self.before: list[dict[str, Tensor]] = []
        self.finished: dict[str, Tensor] = {}

    def begin(self, network: AdaptedNetwork, number: int) -> None:
        self.before.append(copied(network.state_dict()))

    def finish(self, network: AdaptedNetwork) -> None:
        self.finished = copied(network.state_dict())


def test_what_is_left_is_the_average_over_all_steps_and_training_goes_on_with_the_weights_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last: dict[str, Tensor] = {}
    finish = Learner.finish

    def remember(learner: Learner) -> None:
        last.update(copied(learner._networks[0].state_dict()))
        finish(learner)

    monkeypatch.setattr(Learner, "finish", remember)
    averaged, plain = Recorder(), Recorder()
    with workbench(tmp_path) as bench:
        network = bench.network(a_trial())
        source = copied(bench._network.state_dict())
        outcome = train(network, a_trial(), bench.store, averaged, Watch())
        left, trajectory = copied(network.state_dict()), [*averaged.before[1:], dict(last)]
        again = predict(network, bench.store, "validation")
        frozen = copied(bench._network.state_dict())
        unaveraged = replace(a_trial(), settings=SETTINGS)
        train(bench.network(unaveraged), unaveraged, bench.store, plain, Watch())
    for one, other in zip(averaged.before, plain.before, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    names = [name for name, value in left.items() if not name.startswith("prefix.") and value.is_floating_point()]
    assert any("running_var" in name for name in names)
    for name in names:
        expected = trajectory[0][name].double()
        for state in trajectory[1:]:
            expected = 0.8 * expected + 0.2 * state[name].double()
        torch.testing.assert_close(left[name].double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(averaged.finished[name], left[name])
    assert any(not torch.equal(left[name], last[name]) for name in names)
    counts = [name for name in left if name.endswith("num_batches_tracked") and not name.startswith("prefix.")]
    assert counts
    assert all(torch.equal(left[name], last[name]) for name in counts)
    first_stage = [name for name in source if name.split(".")[0] in "0123"]
    assert first_stage
    assert all(torch.equal(source[name], frozen[name]) for name in first_stage)
    assert np.array_equal(outcome.validation, again)


def test_every_epoch_is_validated_with_the_averages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[np.ndarray, np.ndarray]] = []
    validate = Learner.validate

    def both(learner: Learner) -> np.ndarray:
        averaged = validate(learner)
        kept, learner._averages = learner._averages, None
        found.append((averaged, validate(learner)))
        learner._averages = kept
        return averaged

    monkeypatch.setattr(Learner, "validate", both)
    trial = a_trial(settings=replace(AVERAGED, epochs=3))
    with workbench(tmp_path, epochs=3) as bench:
        outcome = train(bench.network(trial), trial, bench.store, make_method("fine-tuning"), Watch())
        truth = bench.store.images.labels["validation"]
    for epoch, (averaged, _) in zip(outcome.epochs, found, strict=True):
        assert epoch.validation_accuracy == float((averaged[0].argmax(axis=1) == truth).mean())
    assert [np.array_equal(averaged, plain) for averaged, plain in found] == [False, False, True]


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_two_runs_are_equal_and_so_is_a_checkpoint_made_anew(tmp_path: Path, cut: int) -> None:
    records, states = [], []
    for place in ("one", "other"):
        with workbench(tmp_path / place) as bench:
            bench.run([a_trial(cut)], Watch())
            records += bench.folder.ledger.records(TRIAL)
            states.append(copied(bench.restore(a_trial(cut)).state_dict()))
            bench.keep_checkpoints([])
            states.append(copied(bench.restore(a_trial(cut)).state_dict()))
    assert np.array_equal(records[0].arrays["validation"], records[1].arrays["validation"])
    assert all(torch.equal(value, other[name]) for other in states[1:] for name, value in states[0].items())


def test_wise_ft_interpolates_the_averages(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        found = {}
        for alpha in (1.0, 0.5, 0.0):
            method = make_method("wise-ft")
            method.alpha = alpha  # type: ignore[attr-defined]
            network = bench.network(a_trial())
            train(network, a_trial(), bench.store, method, Watch())
            found[alpha] = copied(trained_state(network))
    for name, value in found[0.5].items():
        torch.testing.assert_close(value, (found[0.0][name] + found[1.0][name]) / 2)


@pytest.mark.parametrize("name", [method.name for method in METHODS if not method.deepest_only])
def test_with_every_method_the_averages_are_what_is_saved_and_nothing_frozen_moves(tmp_path: Path, name: str) -> None:
    trial = a_trial(method=name, learning_rate=0.002)
    with workbench(tmp_path) as bench:
        source = copied(bench._network.state_dict())
        bench.run([trial], Watch())
        after = copied(bench._network.state_dict())
        (record,) = bench.folder.ledger.records(TRIAL)
        restored = predict(bench.restore(trial), bench.store, "validation")
        plain = replace(trial, settings=SETTINGS)
        bench.run([plain], Watch())
        unaveraged = bench.folder.ledger.records(TRIAL)[1]
    assert np.array_equal(restored.astype(np.float32), record.arrays["validation"])
    assert not np.array_equal(unaveraged.arrays["validation"], record.arrays["validation"])
    assert all(torch.equal(value, after[key]) for key, value in source.items() if key.split(".")[0] in "0123")


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan")])
def test_a_decay_that_cannot_be_is_refused(decay: float) -> None:
    with pytest.raises(UsageError, match="ema is"):
        TrainingSettings(epochs=1, ema=decay)
