"""Methods that decide what trains when, and how fast: linear probe, LP-FT, WiSE-FT, gradual, layer decay, RIFLE."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from methods_bench import RATES, a_task, adapted, moved
from torch import Tensor, nn
from workbench import SETTINGS, workbench

from inarch.errors import UsageError
from inarch.methods import Method, ParameterGroup, make_method
from inarch.methods.gradual import Gradual
from inarch.methods.layer_decay import LayerDecay
from inarch.methods.lp_ft import LPFT
from inarch.methods.method import Rates
from inarch.methods.rifle import RIFLE
from inarch.methods.wise_ft import WiSEFT
from inarch.network.adapted import AdaptedNetwork
from inarch.network.grafts import Configuration, build_graft
from inarch.training.fit import Watch, train
from inarch.training.trial import Trial


def prepared(method: Method, network: AdaptedNetwork, **task: int) -> list[ParameterGroup]:
    method.prepare(network, a_task(network, **task))
    return method.groups(network, RATES)


def rates_at(groups: list[ParameterGroup], step: int) -> list[float]:
    return [g.learning_rate * (1.0 if g.factor is None else g.factor(step)) for g in groups]


def cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def training(network: AdaptedNetwork) -> set[int]:
    """Stages of the source network of which something trains."""
    stages = range(1, 4)
    return {k for k in stages if any(p.requires_grad for p in network.staged.segment(k - 1, k).parameters())}


def test_the_linear_probe_stands_at_the_deepest_cut_alone() -> None:
    make_method("linear-probe").prepare(network := adapted("replace", 2), a_task(network))
    with pytest.raises(UsageError, match="linear-probe trains new layers alone, but at cut 1"):
        make_method("linear-probe").prepare(network := adapted("replace", 1), a_task(network))


def test_lp_ft_trains_new_layers_alone_first_and_then_all_at_the_rate_of_old_ones() -> None:
    network, method = adapted("retain", 1), LPFT(probe=0.5)
    groups = prepared(method, network, epochs=2, batches=10)
    assert [len(g.parameters) for g in groups] == [len(network.old_parameters()), len(network.new_parameters())]
    for step in range(20):
        method.begin(network, step)
        expected = set() if step < 10 else {2, 3}
        assert training(network) == expected
        old = 0.0 if step < 10 else 0.01 * cosine((step - 10) / 10)
        new = 0.1 * cosine(step / 10) if step < 10 else old
        assert rates_at(groups, step) == pytest.approx([old, new])


def test_in_the_second_phase_of_lp_ft_new_layers_learn_no_faster_than_they_bear() -> None:
    network, method = adapted("retain", 1), LPFT(probe=0.5)
    method.prepare(network, a_task(network, epochs=2, batches=10))
    groups = method.groups(network, Rates(0.3, 0.003, 0.0))
    assert rates_at(groups, 10) == pytest.approx([0.3, 0.003])


def test_lp_ft_lets_batch_normalisation_and_dropout_of_old_layers_rest_while_it_probes() -> None:
    network, method = adapted("retain", 0), LPFT()
    prepared(method, network, epochs=2, batches=10)
    network.train()
    kinds = (nn.BatchNorm2d, nn.Dropout)
    method.begin(network, 0)
    assert [m.training for m in network.suffix.modules() if isinstance(m, kinds)] == [False] * 3
    assert network.graft.training
    network.train()  # a new epoch
    assert [m.training for m in network.suffix.modules() if isinstance(m, kinds)] == [False] * 3
    method.begin(network, 10)
    assert [m.training for m in network.suffix.modules() if isinstance(m, kinds)] == [True] * 3


def test_in_its_first_half_lp_ft_learns_what_a_linear_probe_of_as_many_epochs_learns(tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=4, weight_decay=0.0, views=1)
    trial = Trial(Configuration("retain", "none"), 1, "lp-ft", 0.01, 0.05, 1, settings)
    probe = replace(trial, method="linear-probe", cut=3, learning_rate=0.0, settings=replace(settings, epochs=2))
    with workbench(tmp_path / "one", epochs=4) as bench:
        network = bench.network(trial)
        source = {name: p.detach().clone() for name, p in network.suffix.named_parameters()}
        seen: list[bool] = []
        new: list[dict[str, Tensor]] = []

        def look(step: int, steps: int) -> None:
            seen.append(all(torch.equal(source[name], p.detach()) for name, p in network.suffix.named_parameters()))
            new.append({name: p.detach().clone() for name, p in network.graft.named_parameters()})

        train(network, trial, bench.store, make_method("lp-ft"), Watch(progress=look))
    with workbench(tmp_path / "two", epochs=2) as bench:
        probed = bench.network(probe)
        begun = {name: p.detach().clone() for name, p in probed.graft.named_parameters()}
        train(probed, probe, bench.store, make_method("linear-probe"), Watch())
        learned = {name: p.detach().clone() for name, p in probed.graft.named_parameters()}
    half = len(seen) // 2
    assert seen == [True] * half + [False] * (len(seen) - half)
    assert learned.keys() == new[half - 1].keys()
    for name, value in learned.items():
        # The probe reads what was stored at the deepest cut, in half precision; lp-ft computes it from another cut.
        torch.testing.assert_close(new[half - 1][name], value, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(value, begun[name], atol=1e-3)
        assert not torch.allclose(new[-1][name], value, atol=1e-3)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_wise_ft_is_the_weighted_mean_of_weights_and_statistics_before_and_after_fine_tuning(alpha: float) -> None:
    network, method = adapted("retain", 1), WiSEFT(alpha=alpha)
    prepared(method, network, epochs=2, batches=10)
    method.begin(network, 0)
    with torch.no_grad():
        network.graft.classifier.weight.add_(1.0)  # what the probe learns
    method.begin(network, 10)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    moved(network)
    with torch.no_grad():
        network.graft.classifier.weight.mul_(3.0)
        for name, buffer in network.suffix.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(2.0)
    end = {name: value.clone() for name, value in network.state_dict().items()}
    method.finish(network)
    differing = 0
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        torch.testing.assert_close(value, (1 - alpha) * start[name] + alpha * end[name])
        differing += not torch.equal(start[name], end[name])
    assert differing > 5


def test_gradual_thaws_a_stage_every_epoch_from_the_last_to_the_cut() -> None:
    network, method = adapted("retain", 0), Gradual(by=1.0)
    groups = prepared(method, network, epochs=5, batches=4)
    assert len(groups) == 4
    seen = []
    for step in range(20):
        method.begin(network, step)
        seen.append(training(network))
    assert seen[:4] == [set()] * 4
    assert seen[4:8] == [{3}] * 4
    assert seen[8:12] == [{2, 3}] * 4
    assert seen[12:] == [{1, 2, 3}] * 8


def test_gradual_thaws_sooner_where_there_are_more_stages_than_epochs_and_never_beyond_the_cut() -> None:
    network, method = adapted("retain", 1), Gradual(by=0.5)
    prepared(method, network, epochs=1, batches=16)
    first = {}
    for step in range(16):
        method.begin(network, step)
        first.setdefault(frozenset(training(network)), step)
    assert first == {frozenset(): 0, frozenset({3}): 4, frozenset({2, 3}): 8}


def test_layer_decay_divides_the_rate_by_its_factor_from_each_stage_to_the_one_before() -> None:
    network = adapted("retain", 0)
    groups = prepared(LayerDecay(factor=2.6), network)
    assert [g.learning_rate for g in groups] == pytest.approx([0.01 / 2.6**2, 0.01 / 2.6, 0.01, 0.1])
    found = [p for g in groups for p in g.parameters]
    assert {id(p) for p in found} == {id(p) for p in [*network.old_parameters(), *network.new_parameters()]}
    assert len(found) == len({id(p) for p in found})


@pytest.mark.parametrize("graft", ["retain", "deepen"])
def test_rifle_starts_the_last_layer_anew_at_each_period_and_leaves_the_rest(graft: str) -> None:
    network, method = adapted(graft, 1), RIFLE(times=2)
    prepared(method, network, epochs=3, batches=4, seed=7)
    last = {"classifier.weight", "classifier.bias"}
    starts = []
    for step in range(12):
        with torch.no_grad():
            for parameter in network.new_parameters():
                parameter.fill_(float(step))
        method.begin(network, step)
        state = {name: p.detach().clone() for name, p in network.graft.named_parameters()}
        assert all(bool((state[name] == step).all()) for name in state.keys() - last)
        if step in (4, 8):
            starts.append(state["classifier.weight"])
            bound = 1 / math.sqrt(network.graft.classifier.in_features)  # of PyTorch's linear layers
            assert float(starts[-1].abs().max()) <= bound
            assert float(starts[-1].std()) > bound / 4
        else:
            assert all(bool((state[name] == step).all()) for name in last)
    initial = build_graft(network.configuration, network.widths, 7).classifier.weight
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], initial)


def test_rifle_runs_the_last_layers_rate_through_the_schedule_in_every_period() -> None:
    network, method = adapted("replace", 1), RIFLE(times=1)
    groups = prepared(method, network, epochs=3, batches=7)  # 21 steps: periods of 10 and 11
    assert [g.factor is None for g in groups] == [True, False]
    found = [rates_at(groups, step)[-1] for step in range(21)]
    expected = [0.1 * cosine(step / 10) for step in range(10)] + [0.1 * cosine(step / 11) for step in range(11)]
    assert found == pytest.approx(expected)
