"""Grafts compute the formulas that their docstrings give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from inarch.errors import UsageError
from inarch.network.grafts import Configuration, Deepen, Joined, Replace, Retain, Widths, build_graft, configurations
from inarch.network.layers import HARMONISERS, ScaledL2Normalisation, harmoniser, match_scales

WIDTHS = Widths(features=5, source_classes=7, classes=3)
FEATURES = torch.linspace(-1, 1, 20).reshape(4, 5)
LOGITS = torch.linspace(-2, 3, 28).reshape(4, 7).cos()


def l2(x: Tensor, scale: float = 20.0) -> Tensor:
    return scale * x / x.pow(2).sum(dim=1, keepdim=True).sqrt()


def test_scaled_l2_normalisation_gives_vectors_of_length_20_at_first_and_learns_a_scale_a_channel() -> None:
    layer = ScaledL2Normalisation(7)
    torch.testing.assert_close(layer(LOGITS).norm(dim=1), torch.full((4,), 20.0))
    with torch.no_grad():
        layer.scale[2] = 0.0
    assert (layer(LOGITS)[:, 2] == 0).all()
    assert layer.scale.shape == (7,)
    assert layer.scale.requires_grad


@pytest.mark.parametrize(("kind", "start"), [("l2", 20.0), ("l2-1", 1.0), ("l2-10", 10.0)])
def test_scales_start_where_their_name_says(kind: str, start: float) -> None:
    torch.testing.assert_close(harmoniser(kind, 7)(LOGITS), l2(LOGITS, start))


def test_matched_scales_start_at_the_mean_length_of_what_reaches_every_layer() -> None:
    graft = build_graft(Configuration("deepen", "l2-matched", (6, 4)), WIDTHS, 0).eval()
    assert isinstance(graft, Deepen)
    batches = [(None, LOGITS[:3]), (None, LOGITS[3:])]
    match_scales(graft, lambda: batches)
    x = LOGITS
    torch.testing.assert_close(scale_of(graft.harmonise), x.norm(dim=1).mean().expand(7))
    for layer in graft.hidden:
        assert isinstance(layer, torch.nn.Sequential)
        before = F.linear(x, layer[0].weight, layer[0].bias)
        torch.testing.assert_close(scale_of(layer[1]), before.norm(dim=1).mean().expand(before.shape[1]))
        x = before.relu()
    # Afterwards the layers normalise again, and their scales learn.
    assert graft(None, LOGITS).shape == (4, 3)
    torch.testing.assert_close(graft.harmonise(LOGITS), l2(LOGITS, float(LOGITS.norm(dim=1).mean())))
    assert scale_of(graft.harmonise).requires_grad


def scale_of(layer: object) -> Tensor:
    assert isinstance(layer, ScaledL2Normalisation)
    return layer.scale


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_a_matched_scale_that_nothing_can_match_starts_at_20(value: float) -> None:
    graft = build_graft(Configuration("retain", "l2-matched"), WIDTHS, 0)
    match_scales(graft, lambda: [(None, torch.full((4, 7), value))])
    assert isinstance(graft, Retain)
    assert (scale_of(graft.harmonise) == 20).all()


@pytest.mark.parametrize("kind", [kind for kind in HARMONISERS if kind != "l2-matched"])
def test_only_matched_scales_look_at_the_data(kind: str) -> None:
    graft = build_graft(Configuration("retain", kind), WIDTHS, 0)
    match_scales(graft, lambda: pytest.fail("the data was looked at"))


def test_a_zero_vector_stays_finite_under_l2() -> None:
    assert torch.isfinite(ScaledL2Normalisation(3)(torch.zeros(2, 3))).all()


@pytest.mark.parametrize(("kind", "h"), [("none", lambda x: x), ("l2", l2)])
def test_replace_retain_and_joined_are_linear_in_the_harmonised_vectors(kind: str, h: object) -> None:
    harmonise = h if callable(h) else None
    assert harmonise is not None
    replace = build_graft(Configuration("replace", kind), WIDTHS, 0)
    assert isinstance(replace, Replace)
    expected = F.linear(harmonise(FEATURES), replace.classifier.weight, replace.classifier.bias)
    torch.testing.assert_close(replace(FEATURES, None), expected)
    retain = build_graft(Configuration("retain", kind), WIDTHS, 0)
    assert isinstance(retain, Retain)
    expected = F.linear(harmonise(LOGITS), retain.classifier.weight, retain.classifier.bias)
    torch.testing.assert_close(retain(None, LOGITS), expected)
    joined = build_graft(Configuration("joined", kind), WIDTHS, 0)
    assert isinstance(joined, Joined)
    side_by_side = torch.cat([harmonise(FEATURES), harmonise(LOGITS)], dim=1)
    expected = F.linear(side_by_side, joined.classifier.weight, joined.classifier.bias)
    torch.testing.assert_close(joined(FEATURES, LOGITS), expected)


def test_deepen_appends_harmonised_hidden_layers_behind_the_harmonised_logits() -> None:
    deepen = build_graft(Configuration("deepen", "l2", (6, 4)), WIDTHS, 0)
    assert isinstance(deepen, Deepen)
    a = l2(LOGITS)
    for layer in deepen.hidden:
        linear = layer[0]
        a = F.relu(l2(F.linear(a, linear.weight, linear.bias)))
    expected = F.linear(a, deepen.classifier.weight, deepen.classifier.bias)
    torch.testing.assert_close(deepen(None, LOGITS), expected)
    assert [tuple(p.shape) for p in deepen.hidden.parameters() if p.ndim == 2] == [(6, 7), (4, 6)]


def test_feature_maps_are_averaged_before_a_new_classifier() -> None:
    maps = torch.arange(2 * 5 * 3 * 3, dtype=torch.float32).reshape(2, 5, 3, 3)
    replace = build_graft(Configuration("replace", "none"), WIDTHS, 0)
    torch.testing.assert_close(replace(maps, None), replace(maps.mean(dim=(2, 3)), None))


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (build_graft(Configuration("retain", "l2"), WIDTHS, seed) for seed in (1, 1, 2))
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert torch.equal(state, torch.get_rng_state())


def test_configurations_give_hidden_sizes_to_deepen_alone() -> None:
    found = configurations(("replace", "deepen"), ("none", "l2"), ((8,), (8, 4)))
    assert [str(c) for c in found] == [
        "replace", "replace, l2", "deepen 8", "deepen 8, l2", "deepen 8-4", "deepen 8-4, l2",
    ]  # fmt: skip


def test_unknown_graft_and_harmoniser_name_what_is_known() -> None:
    with pytest.raises(UsageError, match=r"'widen'.*replace, retain, deepen, joined"):
        configurations(("widen",), ("none",), ())
    with pytest.raises(UsageError, match=r"'layer'.*none, l2, .*batch"):
        harmoniser("layer", 3)
