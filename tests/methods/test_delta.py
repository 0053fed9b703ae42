"""DELTA: attended distances of feature maps, and how channels get their attention."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from methods_bench import a_task, adapted, added, labels, moved, stored_for, weights_of_new
from torch import Tensor, nn
from torch.nn import functional as F

from inarch.methods.delta import DELTA, channel_attention, fitted_graft, regularised


def test_delta_adds_the_attended_distance_of_feature_maps_and_the_decay_of_new_weights() -> None:
    network, method = adapted("retain", 0), DELTA(alpha=0.02, beta=0.04)
    original = copy.deepcopy(network).eval()
    method.prepare(network, a_task(network))
    attention = dict(method._attention)
    assert [len(w) for w in attention.values()] == [8, 12]
    moved(network)
    network.eval()
    expected = 0.04 / 2 * weights_of_new(network)
    for name, weights in attention.items():
        maps = []
        for one in (original, network):
            convolution = one.suffix.get_submodule(name)
            kept: list[Tensor] = []
            handle = convolution.register_forward_hook(lambda m, i, output, kept=kept: kept.append(output.detach()))
            one.suffix(stored_for(network))
            handle.remove()
            maps.append(kept[0].double())
        images, channels, height, width = maps[0].shape
        for image in range(images):
            for c in range(channels):
                distance = float((maps[1][image, c] - maps[0][image, c]).square().sum())
                expected += 0.02 / 2 * channels * float(weights[c]) / (height * width) * distance
    assert added(method, network) == pytest.approx(expected, rel=1e-4)
    method.release()


def test_channel_attention_is_a_softmax_of_standardised_growths_of_the_loss_without_each_filter() -> None:
    network = adapted("replace", 0).eval()
    task = a_task(network)
    names = regularised(network, 4)
    found = channel_attention(network, task, names, images=7)
    graft = fitted_graft(network, task)
    stored, known = stored_for(network, 0)[:7], labels()[:7]

    def loss() -> float:
        with torch.no_grad():
            return float(F.cross_entropy(graft(network.suffix(stored), None), known))

    assert list(found) == ["0", "4"]
    for name in found:
        convolution = network.suffix.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        before, whole, growths = convolution.weight.detach().clone(), loss(), []
        for channel in range(convolution.out_channels):
            with torch.no_grad():
                convolution.weight[channel] = 0.0
            growths.append(loss() - whole)
            with torch.no_grad():
                convolution.weight.copy_(before)
        standard = (np.array(growths) - np.mean(growths)) / np.std(growths)
        expected = np.exp(standard / 5) / np.exp(standard / 5).sum()
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-3)
        assert torch.equal(before, convolution.weight)


def test_the_judging_of_filters_ends_when_time_is_up_and_leaves_their_weights() -> None:
    network = adapted("replace", 0)
    weights = {name: p.detach().clone() for name, p in network.suffix.named_parameters()}
    calls: list[int] = []

    def tick() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        DELTA().prepare(network, replace(a_task(network), tick=tick))
    assert all(torch.equal(weights[name], p) for name, p in network.suffix.named_parameters())


def test_the_new_layers_by_which_filters_are_judged_fit_the_frozen_features_and_are_not_those_that_train() -> None:
    network = adapted("replace", 1)
    task = a_task(network)
    before = [p.detach().clone() for p in network.new_parameters()]
    graft = fitted_graft(network, task)
    features = network.eval().suffix(next(iter(task.evaluation()))).detach()
    fitted, fresh = (float(F.cross_entropy(g(features, None), labels()).detach()) for g in (graft, network.graft))
    assert fitted < 0.2 < fresh
    assert all(torch.equal(a, b) for a, b in zip(before, network.new_parameters(), strict=True))


def test_delta_leaves_the_classification_layer_and_what_is_frozen_out() -> None:
    assert regularised(adapted("retain", 0), 4) == {1: "0", 2: "4"}
    assert regularised(adapted("retain", 0), 1) == {2: "4"}
    assert regularised(adapted("retain", 1), 4) == {2: "4"}
    assert regularised(adapted("retain", 2), 4) == {}
