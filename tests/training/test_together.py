"""Trials that are trained together: every one comes out as if it had been trained alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from workbench import SETTINGS, Doubled, deepest, needs_deeper, quick_selection, small, workbench  # noqa: F401

from inarch.errors import TrainingError
from inarch.features.store import PrefixStore
from inarch.launch.here import TRIAL, Workbench
from inarch.methods import METHODS, ParameterGroup, make_method
from inarch.network.adapted import AdaptedNetwork
from inarch.network.grafts import GRAFT_NAMES, Configuration
from inarch.network.layers import HARMONISERS
from inarch.training.fit import Trained, Watch, train, train_together
from inarch.training.learner import make_optimiser, supervised_losses
from inarch.training.members import Alone, Stack, as_members
from inarch.training.trial import TrainingSettings, Trial

RATES = (0.01, 0.03, 0.1)


def some_trials(
    *configurations: Configuration, settings: TrainingSettings = SETTINGS, method: str = "fine-tuning"
) -> list[Trial]:
    """Trials of only new layers, at several rates each."""
    return [Trial(c, deepest(c.graft), method, 0.0, rate, 1, settings) for rate, c in product(RATES, configurations)]


def configured(graft: str, harmonise: str) -> Configuration:
    sizes = {"deepen": (7, 5), "deepen-joined": (64,)}  # few units of the latter hardly move where nothing harmonises
    return Configuration(graft, harmonise, sizes[graft]) if graft in sizes else small(graft, harmonise)


def in_double(bench: Workbench, trials: list[Trial], *, together: bool) -> list[AdaptedNetwork]:
    """Trained networks in float64, each with source modules of its own."""
    networks = [copy.deepcopy(bench.network(trial)).double() for trial in trials]
    methods = [make_method(trial.method) for trial in trials]
    store: Any = Doubled(bench.store)
    if together:
        assert all(isinstance(found, Trained) for found in train_together(networks, trials, store, methods, Watch()))
    else:
        for network, trial, method in zip(networks, trials, methods, strict=True):
            train(network, trial, store, method, Watch())
    return networks


def assert_same_states(networks: list[AdaptedNetwork], others: list[AdaptedNetwork], tolerance: float) -> None:
    for network, other in zip(networks, others, strict=True):
        state, wanted = network.state_dict(), other.state_dict()
        assert state.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(state[name], value, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("harmonise", HARMONISERS)
@pytest.mark.parametrize("graft", GRAFT_NAMES)
def test_several_steps_together_equal_those_alone_in_float64(
    tmp_path: Path, graft: str, harmonise: str, optimiser: str
) -> None:
    trials = some_trials(configured(graft, harmonise), settings=replace(SETTINGS, optimiser=optimiser))
    with workbench(tmp_path, deeper=needs_deeper(graft)) as bench:
        start = bench.network(trials[0]).graft.classifier.weight.detach().clone().double()
        alone, together = (in_double(bench, trials, together=way) for way in (False, True))
    assert_same_states(together, alone, 1e-6)
    weights = [network.graft.classifier.weight.detach() for network in together]
    assert all(float((weight - start).abs().max()) > 1e-3 for weight in weights)
    assert not torch.allclose(weights[0], weights[1], atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"balance": "loss"},
        {"balance": "sampler"},
        {"label_smoothing": 0.0},
        {"weight_decay": 0.1},
        {"mixup": 0.4},
        {"ema": 0.7},
    ],
    ids=lambda changes: next(iter(changes)) + str(next(iter(changes.values()))),
)
@pytest.mark.parametrize("method", ["fine-tuning", "l2-sp"])
def test_different_configurations_and_every_setting_equal_training_alone_in_float64(
    tmp_path: Path, changes: dict[str, Any], method: str
) -> None:
    wanted = [Configuration("replace", "none"), Configuration("replace", "batch"), Configuration("joined", "l2")]
    trials = some_trials(*wanted, settings=replace(SETTINGS, **changes), method=method)
    with workbench(tmp_path) as bench:
        labels = bench.store.images.labels["train"]
        labels[: len(labels) // 2] = 0
        alone, together = (in_double(bench, trials, together=way) for way in (False, True))
    assert_same_states(together, alone, 1e-6)


@pytest.mark.parametrize("method", [m.name for m in METHODS if m.together and m.name not in ("fine-tuning", "l2-sp")])
def test_every_method_that_may_be_stacked_equals_training_alone_in_float64(tmp_path: Path, method: str) -> None:
    trials = some_trials(configured("deepen", "l2"), Configuration("retain", "batch"), method=method)
    with workbench(tmp_path) as bench:
        alone, together = (in_double(bench, trials, together=way) for way in (False, True))
        assert [type(some) for some in as_members(together)] == [Stack, Stack]
    assert_same_states(together, alone, 1e-6)


def test_records_of_a_batch_equal_those_of_single_trials_within_rounding(tmp_path: Path) -> None:
    trials = some_trials(*(configured(graft, h) for graft in ("retain", "deepen") for h in HARMONISERS))
    with workbench(tmp_path / "together") as bench:
        results = bench.run(trials, Watch())
        together = bench.folder.ledger.records(TRIAL)
        kept = sorted(file.stem for file in bench.folder.checkpoints.iterdir())
    with workbench(tmp_path / "alone") as bench:
        for trial in trials:
            bench.run([trial], Watch())
        alone = bench.folder.ledger.records(TRIAL)
    assert [r.trial for r in results] == trials
    assert [r.key for r in together] == [r.key for r in alone] == [t.key for t in trials]
    assert kept == sorted(t.key for t in trials)
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.arrays["validation"] - other.arrays["validation"]).max() < 1e-4
        losses = [[epoch["training_loss"] for epoch in r.outcome["epochs"]] for r in (one, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_batch_twice_gives_the_same_bits_and_so_does_a_checkpoint_made_anew(tmp_path: Path) -> None:
    trials = some_trials(Configuration("retain", "batch"), Configuration("deepen", "l2", (6,)))
    with workbench(tmp_path / "one") as bench, workbench(tmp_path / "other") as again:
        bench.run(trials, Watch())
        again.run(trials, Watch())
        first, second = (b.folder.ledger.records(TRIAL) for b in (bench, again))
        trained = bench.restore(trials[3]).state_dict()
        bench.keep_checkpoints([])
        anew = bench.restore(trials[3]).state_dict()
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.arrays["validation"], other.arrays["validation"])
    assert trained.keys() == anew.keys()
    assert all(torch.equal(value, anew[name]) for name, value in trained.items())


def test_a_member_that_diverges_leaves_the_averages_of_the_others_as_they_are(tmp_path: Path) -> None:
    trials = some_trials(configured("deepen", "batch"), settings=replace(SETTINGS, ema=0.7, mixup=0.4))
    wild = [trials[0], replace(trials[1], new_layer_learning_rate=1e30), trials[2]]
    with workbench(tmp_path / "calm") as bench:
        bench.run(trials, Watch())
        calm = bench.folder.ledger.records(TRIAL)
    with workbench(tmp_path / "wild") as bench:
        bench.run(wild, Watch())
        found = bench.folder.ledger.records(TRIAL)
    assert found[1].outcome["status"] == "failed"
    for i in (0, 2):
        assert np.array_equal(found[i].arrays["validation"], calm[i].arrays["validation"])
        assert found[i].outcome["epochs"] == calm[i].outcome["epochs"]


@pytest.mark.parametrize("harmonise", HARMONISERS)
@pytest.mark.parametrize("graft", GRAFT_NAMES)
def test_a_member_that_diverges_fails_with_its_reason_and_leaves_the_others_as_they_are(
    tmp_path: Path, graft: str, harmonise: str
) -> None:
    trials = some_trials(configured(graft, harmonise), settings=replace(SETTINGS, weight_decay=1.0))
    wild = [trials[0], replace(trials[1], new_layer_learning_rate=1e30), trials[2]]
    with workbench(tmp_path / "calm", deeper=needs_deeper(graft)) as bench:
        bench.run(trials, Watch())
        calm = bench.folder.ledger.records(TRIAL)
    with workbench(tmp_path / "wild", deeper=needs_deeper(graft)) as bench:
        results = bench.run(wild, Watch())
        found = bench.folder.ledger.records(TRIAL)
        files = {file.stem for file in bench.folder.checkpoints.iterdir()}
    assert found[1].outcome["status"] == "failed"
    assert "1e+30" in found[1].outcome["reason"]
    assert results[1].accuracy < 0
    assert files == {wild[0].key, wild[2].key}
    for i in (0, 2):
        assert np.array_equal(found[i].arrays["validation"], calm[i].arrays["validation"])
        assert found[i].outcome["epochs"] == calm[i].outcome["epochs"]


def test_where_all_members_diverge_training_ends_at_once(tmp_path: Path) -> None:
    trials = [
        replace(t, new_layer_learning_rate=1e30 * n, settings=replace(SETTINGS, weight_decay=1.0))
        for n, t in enumerate(some_trials(Configuration("retain", "none")), start=1)
    ]
    steps: list[int] = []
    watch = Watch(progress=lambda step, of: steps.append(step))
    with workbench(tmp_path) as bench:
        networks = [bench.network(trial) for trial in trials]
        methods = [make_method("fine-tuning") for _ in trials]
        found = train_together(networks, trials, bench.store, methods, watch)
    assert all(isinstance(outcome, TrainingError) for outcome in found)
    assert 1 <= len(steps) < 4


def test_every_read_of_stored_activations_serves_all_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = PrefixStore.read

    def counted(store: PrefixStore, cut: int, *arguments: Any) -> Any:
        reads.append(cut)
        return read(store, cut, *arguments)

    monkeypatch.setattr(PrefixStore, "read", counted)
    trials = some_trials(Configuration("replace", "l2"), Configuration("joined", "none"))
    with workbench(tmp_path) as bench:
        bench.run(trials[:1], Watch())
        once = len(reads)
        bench.run(trials[1:], Watch())
    assert len(reads) == 2 * once
    assert set(reads) == {2}


class Unknown(nn.Module):
    """A layer that no stack knows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.tanh()


def test_what_cannot_be_stacked_is_trained_beside_the_others_in_the_same_loop(tmp_path: Path) -> None:
    trials = some_trials(Configuration("retain", "none"))
    found = []
    with workbench(tmp_path) as bench:
        for together in (True, False):
            networks = [bench.network(trial) for trial in trials]
            for network in networks:
                network.graft.harmonise = Unknown()
            assert {type(some) for some in as_members(networks)} == {Alone}
            groups = [slice(0, 3)] if together else [slice(i, i + 1) for i in range(3)]
            for part in groups:
                methods = [make_method("fine-tuning") for _ in trials[part]]
                train_together(networks[part], trials[part], bench.store, methods, Watch())
            found.append(networks)
    assert_same_states(found[0], found[1], 1e-5)


def test_networks_whose_old_layers_train_or_that_read_other_activations_are_refused(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        trials = some_trials(Configuration("retain", "none"))
        assert [type(some) for some in as_members([bench.network(t) for t in trials])] == [Stack]
        with pytest.raises(ValueError, match="old layers"):
            as_members([bench.network(replace(t, cut=1)) for t in trials])
        with pytest.raises(ValueError, match="same activations"):
            as_members(
                [bench.network(t) for t in some_trials(Configuration("retain", "none"), configured("joined", "l2"))]
            )
        other = [trials[0], replace(trials[1], seed=2)]
        methods = [make_method("fine-tuning") for _ in other]
        with pytest.raises(ValueError, match="same seed"):
            train_together([bench.network(t) for t in other], other, bench.store, methods, Watch())


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 3.0])])
def test_the_loss_of_several_networks_is_the_mean_cross_entropy_of_each(weights: torch.Tensor | None) -> None:
    logits = torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(9) % 3
    expected = [nn.functional.cross_entropy(one, labels, weights, label_smoothing=0.1) for one in logits]
    torch.testing.assert_close(supervised_losses(logits, labels, weights, 0.1), torch.stack(expected))


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_step_of_the_optimiser_is_that_of_its_unfused_form_in_every_memory_format(optimiser: str) -> None:
    layer = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    twin = copy.deepcopy(layer)
    settings = TrainingSettings(epochs=1, optimiser=optimiser)
    ours = make_optimiser([ParameterGroup(list(layer.parameters()), 0.01, 0.1)], settings)
    kinds: dict[str, Any] = {"sgd": (torch.optim.SGD, {"momentum": 0.9}), "adamw": (torch.optim.AdamW, {})}
    kind, options = kinds[optimiser]
    plain = kind(twin.parameters(), lr=0.01, weight_decay=0.1, fused=False, **options)
    images = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    for _ in range(3):
        for network, how in ((layer, ours), (twin, plain)):
            how.zero_grad()
            network(images).square().sum().backward()
            how.step()
    torch.testing.assert_close(layer.weight, twin.weight)
    torch.testing.assert_close(layer.bias, twin.bias)
