"""Auto-RGN: rates by relative gradient norm, taken anew before every epoch."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from methods_bench import RATES, a_task, adapted
from torch.nn import functional as F

from inarch.methods.auto_rgn import AutoRGN


def test_rates_are_relative_gradient_norms_averaged_over_the_first_batches_of_an_epoch_the_largest_being_one() -> None:
    network, method = adapted("retain", 0), AutoRGN(batches=3)
    task = a_task(network, epochs=2, batches=5)
    method.prepare(network, task)
    groups = method.groups(network, RATES)
    named = {id(p): name for name, p in network.named_parameters()}
    assert [[named[id(p)] for p in g.parameters] for g in groups[:-1]] == [
        ["suffix.0.weight"], ["suffix.4.weight"], ["layer.10.weight"],
    ]  # fmt: skip
    for epoch in (0, 1):
        twin = copy.deepcopy(network).eval()
        weights = [twin.get_parameter(named[id(g.parameters[0])]) for g in groups[:-1]]
        found = []
        for stored, labels in islice(task.batches(epoch), 3):
            twin.zero_grad()
            F.cross_entropy(twin.from_stored(stored), labels).backward()
            found.append([float(w.grad.norm() / w.detach().norm()) for w in weights])  # type: ignore[union-attr]
        expected = np.mean(found, axis=0) / np.mean(found, axis=0).max()
        for step in range(5 * epoch, 5 * epoch + 5):
            method.begin(network, step)
            schedule = 0.5 * (1 + math.cos(math.pi * step / 10))
            factors = [g.factor(step) for g in groups[:-1] if g.factor is not None]
            np.testing.assert_allclose(factors, schedule * expected, rtol=1e-4)
        with torch.no_grad():
            groups[0].parameters[0].mul_(3.0)
    assert groups[-1].factor is None
    assert groups[-1].learning_rate == pytest.approx(0.1)


def test_looking_at_gradients_changes_no_statistics_no_gradient_and_no_random_state() -> None:
    network, method = adapted("joined", 0, harmonise="batch"), AutoRGN()
    method.prepare(network, a_task(network))
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    method.begin(network, 0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert network.graft.training
    assert network.suffix.training


def test_a_weight_of_zeros_stands_still_and_the_others_have_their_rates() -> None:
    network, method = adapted("retain", 0), AutoRGN()
    with torch.no_grad():
        network.get_parameter("suffix.4.weight").zero_()
    method.prepare(network, replace(a_task(network), epochs=1))
    groups = method.groups(network, RATES)
    method.begin(network, 0)
    factors = [g.factor(0) for g in groups[:-1] if g.factor is not None]
    assert factors[1] == 0.0
    assert max(factors) == pytest.approx(1.0)
    assert all(math.isfinite(f) for f in factors)
