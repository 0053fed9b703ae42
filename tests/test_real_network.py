"""What holds for the toy network to the last bit or within rounding holds for real networks too: slow, and once."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import linked
from workbench import SETTINGS, Doubled, Real, workbench

from inarch.features.plan import Plan
from inarch.features.store import Keeping
from inarch.launch.here import TRIAL
from inarch.methods import make_method
from inarch.network.adapted import AdaptedNetwork
from inarch.network.grafts import Configuration
from inarch.network.source import SourceOptions, load_source
from inarch.training.fit import Watch, train, train_together
from inarch.training.trial import Trial

# With normalisation and a linear classification layer, and without any and with a convolution for one.
NETWORKS = ("mobilenetv1_025_128", "squeezenet1_1")
# By classification layer.
CUTS = {"classifier": (0, 1, 7, 13, 14, 15), "classifier.1": (0, 1, 5, 9, 10)}
SIDE, A_CLASS = 64, 4
# Under fp32 only the order of sums differs. Where that flips a ReLU a gradient changes at once, so that steps of a deep
# network differ by about the root of what its activations do, not by as much as these.
FP32 = 5e-3
PLANS = [
    Plan("contiguous"), Plan("contiguous", recomputed=3), Plan("channels_last", "bf16", "bf16"),
    Plan("contiguous", "bf16", "fp32"), Plan("channels_last", "fp32", "bf16", 4),
]  # fmt: skip


@pytest.fixture(scope="module", params=NETWORKS)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Real:
    """A real network on some images of each kind of clothing, small ones."""
    card = shared / "weights" / f"{request.param}.in1k.json"
    source = load_source(str(card), SourceOptions(image_size=SIDE), announce=lambda _: None)
    images = linked(shared / "data" / "clothing", tmp_path_factory.mktemp("clothing") / "images", A_CLASS)
    return Real(source.network, source.classification_layer, source.input, images)


def fresh(real: Real) -> Real:
    """With a network of its own, since trials train the modules themselves."""
    return replace(real, network=copy.deepcopy(real.network))


def rounded(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """What a layer gives, as bf16 has it; its gradient too, since it goes back the same way."""
    return output.bfloat16().float()


def a_step(folder: Path, real: Real, plan: Plan, cut: int, *, by_hand: bool = False) -> Tensor:
    """How far one step moves every parameter. by_hand: what every layer gives is rounded to bf16."""
    own = fresh(real)
    for module in own.network.modules():
        if by_hand and not list(module.children()):
            module.register_forward_hook(rounded)
    with workbench(folder, real=own, epochs=1, plan=plan) as bench:
        settings = replace(SETTINGS, epochs=1, batch_size=len(bench.store.images.rows["train"]), warmup=0.0)
        trial = Trial(Configuration("deepen", "l2", (16,)), cut, "fine-tuning", 1e-3, 1e-3, 1, settings)
        for module in bench._network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # which units it drops follows their order in memory
        network = bench.network(trial)
        before = {name: value.clone() for name, value in network.named_parameters()}
        train(network, trial, bench.store, make_method("fine-tuning"), Watch())
        return torch.cat([(value - before[name]).flatten() for name, value in network.named_parameters()]).detach()


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: "-".join(map(str, plan.to_json().values())))
def test_a_training_step_agrees_with_fp32_within_the_rounding_of_the_precision(
    tmp_path: Path, real: Real, plan: Plan
) -> None:
    cut = CUTS[real.layer][2] if plan.recomputed == 0 else 0
    expected, found = (a_step(tmp_path / name, real, p, cut) for name, p in (("fp32", Plan()), ("plan", plan)))
    error = float((found - expected).norm() / expected.norm())
    if "bf16" not in plan.precisions:
        assert error < FP32
        return
    # Normalisation over a batch multiplies rounding where a channel hardly varies, so that how much a step may differ
    # is what the same network shows in fp32 with every layer rounded.
    by_hand = a_step(tmp_path / "by hand", real, Plan(), cut, by_hand=True)
    assert FP32 < error < 1.5 * float((by_hand - expected).norm() / expected.norm())


def test_stored_activations_equal_recomputed_ones_at_every_kind_of_cut(tmp_path: Path, real: Real) -> None:
    cuts = CUTS[real.layer]
    with (
        workbench(tmp_path / "kept", real=fresh(real), keeping=Keeping(cuts[1:])) as kept,
        workbench(tmp_path / "anew", real=fresh(real), keeping=Keeping(())) as anew,
    ):
        everything = np.arange(len(kept.store.images.rows["train"]))
        for cut in cuts[1:]:
            for view in (None, 0, 3):
                stored, again = (bench.store.read(cut, "train", everything, view) for bench in (kept, anew))
                assert torch.equal(stored, again)
                assert float(stored.abs().max()) > 0


def test_trainings_of_new_layers_as_one_equal_each_alone_in_float64(tmp_path: Path, real: Real) -> None:
    deepest = CUTS[real.layer][-1]
    trials = [
        Trial(Configuration(graft, harmonise, sizes), deepest, "fine-tuning", 0.0, rate, 1, SETTINGS)
        for graft, harmonise, sizes in (("deepen", "l2", (32,)), ("retain", "batch", ()))
        for rate in (0.01, 0.1)
    ]
    found: list[list[AdaptedNetwork]] = []
    with workbench(tmp_path, real=fresh(real), keeping=Keeping((deepest,))) as bench:
        store: Any = Doubled(bench.store)
        for together in (False, True):
            networks = [copy.deepcopy(bench.network(trial)).double() for trial in trials]
            methods = [make_method("fine-tuning") for _ in trials]
            if together:
                train_together(networks, trials, store, methods, Watch())
            else:
                for network, trial, method in zip(networks, trials, methods, strict=True):
                    train(network, trial, store, method, Watch())
            found.append(networks)
    for alone, one in zip(*found, strict=True):
        state = one.state_dict()
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-6, atol=1e-6, msg=name)


def test_what_is_trained_does_not_depend_on_the_store_and_comes_out_again(tmp_path: Path, real: Real) -> None:
    cuts = CUTS[real.layer]
    trials = [Trial(Configuration("joined", "l2"), cut, "fine-tuning", 1e-4, 0.01, 1, SETTINGS) for cut in cuts[1:-1]]
    found = []
    for name, keeping in (("one", Keeping(cuts[1:])), ("two", Keeping(cuts[1:])), ("none", Keeping(()))):
        with workbench(tmp_path / name, real=fresh(real), keeping=keeping) as bench:
            for trial in trials:
                bench.run([trial], Watch())
            found.append([record.arrays["validation"] for record in bench.folder.ledger.records(TRIAL)])
    assert len(found[0]) == len(trials)
    assert all(np.array_equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    # Behind a stored cut a chunk is a batch of another size, which rounds otherwise.
    assert max(float(np.abs(a - b).max()) for a, b in zip(found[0], found[2], strict=True)) < 0.01
