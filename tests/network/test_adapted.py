"""Adapted networks: a source again, at every cut, with every graft on every graft."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toy import DEEPER, NETWORK, SIDE, toy_network

from inarch.network.adapted import AdaptedNetwork, stage, stored_cut
from inarch.network.grafts import Configuration, Widths, graft_class

EXAMPLE = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
GRAFTS = [
    Configuration("replace", "l2"),
    Configuration("retain", "batch"),
    Configuration("deepen", "l2", (5,)),
    Configuration("deepen", "none", (5, 4)),
    Configuration("joined", "l2"),
    Configuration("da-cnn", "l2", (5,)),
    Configuration("wa-cnn", "batch", (5,)),
    Configuration("dwa-cnn", "l2", (5, 4)),
    Configuration("wwa-cnn", "none", (5, 4)),
    Configuration("head2toe", "none"),
    Configuration("sharpened", "l2"),
    Configuration("residual", "l2"),
    Configuration("deepen-joined", "l2", (5, 4)),
]
# Everything on the first five grafts, and the first two on everything.
PAIRS = [(inner, outer) for inner in GRAFTS for outer in GRAFTS if inner in GRAFTS[:5] or outer in GRAFTS[:2]]
# How many stages each is when it is a source again, on the deeper toy network.
STAGES = {"replace": 4, "retain": 5, "joined": 4, "da-cnn": 5, "wa-cnn": 4, "dwa-cnn": 4, "wwa-cnn": 3, "head2toe": 3}


def adapted_once(configuration: Configuration, *, deeper: bool = False) -> AdaptedNetwork:
    """The toy network, or a deeper one, with a graft for four classes."""
    staged = stage(toy_network(DEEPER if deeper else NETWORK).eval(), "12" if deeper else "10", EXAMPLE)
    return AdaptedNetwork(staged, configuration, Widths(12, 6, 4), cut=0, seed=3).eval()


def widths_on(network: AdaptedNetwork) -> tuple[object, Widths]:
    staged = stage(network, "graft.classifier", EXAMPLE)
    return staged, Widths(staged.stages[-2].output_shape[0], 4, 3)


@pytest.mark.parametrize("inner", GRAFTS, ids=str)
def test_an_adapted_network_has_stages_that_give_its_output_at_every_cut(inner: Configuration) -> None:
    network = adapted_once(inner, deeper=True)
    staged = stage(network, "graft.classifier", EXAMPLE)
    count = len(staged.stages)
    assert staged.stages[-1].name == "classification-layer"
    assert len({s.name for s in staged.stages}) == count
    with torch.no_grad():
        whole = network(EXAMPLE)
        for cut in range(count + 1):
            stored = staged.segment(0, cut).eval()(EXAMPLE)
            before = stored.clone()
            assert torch.equal(staged.segment(cut, count).eval()(stored), whole)
            assert torch.equal(stored, before)
    expected = {"deepen": 5 + len(inner.hidden), "sharpened": 5, "residual": 4, "deepen-joined": 5} | STAGES
    assert count == expected[inner.graft]


@pytest.mark.parametrize(("inner", "outer"), PAIRS, ids=str)
def test_what_is_trained_at_any_cut_is_delivered_whole(inner: Configuration, outer: Configuration) -> None:
    network = adapted_once(inner, deeper=True)
    staged, widths = widths_on(network)
    count = len(staged.stages)  # type: ignore[attr-defined]
    if graft_class(outer.graft).taps(count)[:1] == (0,):
        pytest.skip("refused: the graft reads more stages than there are")
    for cut in range(count + graft_class(outer.graft).keeps_layer):
        cut_network = AdaptedNetwork(staged, outer, widths, cut=cut, seed=5).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            expected = cut_network(EXAMPLE)
            state = {name: value.clone() for name, value in cut_network.source_and_graft().items()}
        fresh = adapted_once(inner, deeper=True)
        with torch.no_grad():
            for parameter in fresh.parameters():
                parameter.zero_()
        whole = AdaptedNetwork(widths_on(fresh)[0], outer, widths, cut=0, seed=6).eval()  # type: ignore[arg-type]
        whole.load_state_dict(state)
        with torch.no_grad():
            torch.testing.assert_close(whole(EXAMPLE), expected)


@pytest.mark.parametrize("inner", GRAFTS, ids=str)
def test_a_layer_has_one_name_whatever_the_cut(inner: Configuration) -> None:
    network = adapted_once(inner, deeper=True)
    staged, widths = widths_on(network)
    names = []
    for cut in range(len(staged.stages)):  # type: ignore[attr-defined]
        found = AdaptedNetwork(staged, Configuration("retain", "none"), widths, cut=cut, seed=0)  # type: ignore[arg-type]
        names.append({name.partition(".")[2] for name in found.state_dict()})
    assert all(n == names[0] for n in names)


def test_the_stored_cut_lies_before_the_layer_where_the_graft_needs_its_input() -> None:
    assert stored_cut(Configuration("retain", "none"), 3, 3) == 3
    assert stored_cut(Configuration("joined", "none"), 3, 3) == 2
    assert stored_cut(Configuration("joined", "none"), 1, 3) == 1


def modes(network: AdaptedNetwork) -> dict[str, bool]:
    """Which layers that have a mode train, by their name in the source."""
    kinds = (torch.nn.BatchNorm2d, torch.nn.Dropout)
    parts = {**dict(network.prefix.named_modules()), **dict(network.suffix.named_modules())}
    return {name: module.training for name, module in parts.items() if isinstance(module, kinds)}


@pytest.mark.parametrize("graft", ["replace", "retain", "joined"])
def test_held_stages_stand_still_as_if_frozen_until_they_are_let_go(graft: str) -> None:
    network = adapted_once(Configuration(graft, "none")).at_cut(0).train()
    everything = [p.requires_grad for p in network.parameters()]
    assert modes(network) == {"1": True, "5": True, "7": True}
    network.hold(1)
    assert modes(network) == {"1": False, "5": True, "7": True}
    assert [k for k, p in network.suffix.named_parameters() if p.requires_grad] == [
        "4.weight", "4.bias", "5.weight", "5.bias",
    ]  # fmt: skip
    network.hold(3)
    assert set(modes(network).values()) == {False}
    assert network.old_parameters() == []
    assert all(p.requires_grad for p in network.new_parameters())
    network.train()
    assert set(modes(network).values()) == {False}
    network.hold(0)
    assert modes(network) == {"1": True, "5": True, "7": True}
    assert [p.requires_grad for p in network.parameters()] == everything


def test_any_stage_can_rest_not_only_the_first_ones() -> None:
    network = adapted_once(Configuration("retain", "none")).at_cut(0).train()
    network.rest([2])
    assert modes(network) == {"1": True, "5": False, "7": False}
    assert {name.partition(".")[0] for name, p in network.suffix.named_parameters() if p.requires_grad} == {"0", "1"}
    assert all(p.requires_grad for p in network.layer.parameters())  # type: ignore[union-attr]
    network.rest([3])
    assert modes(network) == {"1": True, "5": True, "7": True}
    assert not any(p.requires_grad for p in network.layer.parameters())  # type: ignore[union-attr]


def test_less_than_the_cut_cannot_be_let_go() -> None:
    network = adapted_once(Configuration("retain", "none")).at_cut(2).train()
    network.hold(3)
    network.hold(0)
    assert network.held == {1, 2}
    assert modes(network) == {"1": False, "5": False, "7": False}
    assert not any(p.requires_grad for p in network.prefix.parameters())
    assert all(p.requires_grad for p in network.layer.parameters())  # type: ignore[union-attr]


def test_what_trains_of_each_stage_is_everything_old_that_trains_each_once() -> None:
    for graft, cut, expected in (
        ("retain", 0, {1, 2, 3}),
        ("replace", 1, {2}),
        ("joined", 2, {3}),
        ("retain", 3, set()),
    ):
        network = adapted_once(Configuration(graft, "none")).at_cut(cut)
        stages = network.old_stages()
        assert set(stages) == expected
        found = [id(p) for parameters in stages.values() for p in parameters]
        assert sorted(found) == sorted(map(id, network.old_parameters()))


def test_what_is_no_module_s_moves_with_the_network_to_every_cut() -> None:
    class Normalising(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = toy_network()
            self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x - self.mean)

    staged = stage(Normalising().eval(), "body.10", EXAMPLE)
    network = AdaptedNetwork(staged, Configuration("retain", "none"), Widths(12, 6, 4), cut=0, seed=3).to("meta")
    for cut in range(3):
        at_cut = network.at_cut(cut)
        assert at_cut(EXAMPLE.to("meta")).device.type == "meta"
