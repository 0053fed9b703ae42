"""What every method must keep to, on every graft: frozen is frozen, runs repeat, losses fall, states load."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from workbench import SETTINGS, deepest, method_trial, needs_deeper, quick_selection, small, workbench  # noqa: F401

from inarch.catalogue import METHODS as ENTRIES
from inarch.errors import UsageError
from inarch.features.plan import Plan
from inarch.features.shelf import Shelf
from inarch.features.store import Keeping
from inarch.launch.here import TRIAL, Workbench
from inarch.methods import METHODS, make_method, method_class
from inarch.network.card import InputSpec
from inarch.network.grafts import DEFAULT_GRAFTS, GRAFT_NAMES, Configuration, graft_class
from inarch.network.stages import stage_network
from inarch.training.fit import OutOfTimeError, Watch, predict, train
from inarch.training.trial import Trial

EPOCHS = 6
NAMES = [method.name for method in METHODS]
# With grafts beyond those that `fit` tries first, a disk is tried by the methods that look into the network alone.
LOOKING = ("fine-tuning", "delta", "lora", "bi-tuning")


def a_trial(method: str, graft: str, cut: int = 1) -> Trial:
    return method_trial(method, graft, cut, EPOCHS)


def hooks(bench: Workbench) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in bench._network.modules())


@pytest.mark.parametrize("graft", GRAFT_NAMES)
@pytest.mark.parametrize("method", NAMES)
def test_frozen_stays_frozen_the_loss_falls_and_a_checkpoint_predicts_what_was_recorded(
    tmp_path: Path, method: str, graft: str
) -> None:
    trial = a_trial(method, graft)
    with workbench(tmp_path, epochs=EPOCHS, deeper=needs_deeper(graft)) as bench:
        source = {name: value.clone() for name, value in bench._network.state_dict().items()}
        bench.run([trial], Watch())
        after = {name: value.clone() for name, value in bench._network.state_dict().items()}
        (record,) = bench.folder.ledger.records(TRIAL)
        restored = predict(bench.restore(trial), bench.store, "validation")
        pickled = predict(pickle.loads(pickle.dumps(bench.restore(trial))), bench.store, "validation")
        left = hooks(bench)
        stages = bench.staged.stages
        used = len(stages) if graft_class(graft).keeps_layer else len(stages) - 1
        names = {s.index: bench.staged.parameter_names(s.index) for s in stages}  # type: ignore[attr-defined]
    moved = 0
    for index, inside in names.items():
        same = [torch.equal(source[name], after[name]) for name in inside]
        if index <= trial.cut or index > used:
            assert all(same), f"stage {index} should not have moved"
        elif not all(same):
            moved += 1
            weights = [s for s, name in zip(same, inside, strict=True) if source[name].ndim >= 2]
            assert not any(weights), f"stage {index} should have moved"
    assert moved == used - trial.cut or (method == "subtuning" and moved > 0)
    losses = [epoch["training_loss"] for epoch in record.outcome["epochs"]]
    # In the middle the last layer of RIFLE starts anew, and half of the epochs are left.
    begun, least = (losses[EPOCHS // 2], 0.0) if method == "rifle" else (losses[0], 0.05)
    if graft != "residual":  # which starts at a solution, on features that the toy's running statistics are none of
        assert losses[-1] < begun - least
    assert np.array_equal(restored.astype(np.float32), record.arrays["validation"])
    assert np.array_equal(pickled, restored)
    assert left == 0


@pytest.mark.parametrize("graft", GRAFT_NAMES)
@pytest.mark.parametrize("method", NAMES)
def test_runs_are_equal_with_activations_in_memory_on_a_disk_and_computed_anew(
    tmp_path: Path, method: str, graft: str
) -> None:
    trial = a_trial(method, graft)
    trial = replace(trial, settings=replace(trial.settings, epochs=3))
    found, ways = [], [Keeping((1, 2, 3)), Keeping(())]
    if graft in DEFAULT_GRAFTS or method in LOOKING:
        ways.append(Keeping((1, 2, 3), shelf=Shelf(tmp_path / "shelf")))
    for keeping in ways:
        with workbench(tmp_path, epochs=3, keeping=keeping, deeper=needs_deeper(graft)) as bench:
            network = bench.network(trial)
            train(network, trial, bench.store, make_method(method), Watch())
            found.append({name: value.clone() for name, value in network.state_dict().items()})
    for other in found[1:]:
        assert found[0].keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in found[0].items())


@pytest.mark.parametrize("method", [name for name in NAMES if not method_class(name).deepest_only])
def test_with_nothing_frozen_every_method_trains(tmp_path: Path, method: str) -> None:
    trial = replace(a_trial(method, "retain", cut=0), settings=replace(SETTINGS, epochs=EPOCHS))
    with workbench(tmp_path, epochs=EPOCHS) as bench:
        epochs = train(bench.network(trial), trial, bench.store, make_method(method), Watch()).epochs
    assert epochs[-1].training_loss < epochs[0].training_loss - 0.05


@pytest.mark.parametrize("method", NAMES)
def test_every_method_trains_in_bf16(tmp_path: Path, method: str) -> None:
    trial = a_trial(method, "joined")
    trial = replace(trial, settings=replace(trial.settings, precision="bf16", frozen_precision="bf16"))
    with workbench(tmp_path, epochs=EPOCHS, plan=Plan(frozen="bf16", trained="bf16")) as bench:
        epochs = train(bench.network(trial), trial, bench.store, make_method(method), Watch()).epochs
    assert epochs[-1].training_loss < epochs[0].training_loss - 0.05


@pytest.mark.parametrize("after", [0.0, 0.6])
@pytest.mark.parametrize("method", NAMES)
def test_training_that_is_stopped_leaves_nothing_behind_and_comes_out_the_same_when_it_goes_on(
    tmp_path: Path, method: str, after: float
) -> None:
    def stop(step: int, steps: int) -> None:
        if step >= after * steps:
            raise OutOfTimeError

    trial = a_trial(method, "retain")
    trial = replace(trial, settings=replace(trial.settings, epochs=3))
    found = []
    for stopped in (False, True):
        with workbench(tmp_path / str(stopped), epochs=3) as bench:
            if stopped:
                with pytest.raises(OutOfTimeError):
                    bench.run([trial], Watch(progress=stop))
                assert hooks(bench) == 0
                assert not list(bench.folder.ledger.records(TRIAL))
            bench.run([trial], Watch())
            (record,) = bench.folder.ledger.records(TRIAL)
            found.append((record.arrays["validation"], record.outcome["epochs"]))
    assert np.array_equal(found[0][0], found[1][0])
    assert [e["training_loss"] for e in found[0][1]] == [e["training_loss"] for e in found[1][1]]


def test_a_method_that_trains_new_layers_alone_refuses_another_cut(tmp_path: Path) -> None:
    trial = replace(a_trial("linear-probe", "retain"), cut=1)
    with workbench(tmp_path) as bench, pytest.raises(UsageError, match="at cut 1 old ones train"):
        train(bench.network(trial), trial, bench.store, make_method("linear-probe"), Watch())


class Flat(nn.Module):
    """A network without convolutions and without batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize(("name", "message"), [("delta", "feature maps"), ("stochnorm", "batch normalisation")])
def test_methods_that_have_nothing_to_act_on_are_refused_before_training(name: str, message: str) -> None:
    spec = InputSpec(3, 16, 16, (0.5,) * 3, (0.5,) * 3)
    staged = stage_network(Flat().eval(), "layers.4", spec.example())
    with pytest.raises(UsageError, match=message):
        make_method(name).require(Configuration("retain", "none"), staged)


def test_the_catalogue_names_every_method_in_order_each_once() -> None:
    assert [entry.name for entry in ENTRIES] == NAMES
    assert len(set(NAMES)) == len(NAMES)
    assert all(entry.line and entry.paper for entry in ENTRIES)
