"""Methods that add a penalty: L2-SP, BSS, LwF, Co-Tuning, against their papers' formulas."""

from __future__ import annotations

import copy
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
import torch
from methods_bench import (
    RATES,
    SOURCE_CLASSES,
    a_step,
    a_task,
    adapted,
    added,
    labels,
    moved,
    stored_for,
    weights_of_new,
)
from torch import Tensor

from inarch.methods import co_tuning, make_method
from inarch.methods.bss import BSS
from inarch.methods.co_tuning import CoTuning, _calibration, category_relationship, other_direction
from inarch.methods.l2_sp import L2SP
from inarch.methods.lwf import LwF
from inarch.methods.source_copy import Teacher
from inarch.network.adapted import AdaptedNetwork

DEEPEST = [("retain", 3), ("deepen", 3), ("joined", 3), ("replace", 2)]


@pytest.mark.parametrize("name", ["bss", "lwf", "co-tuning"])
@pytest.mark.parametrize(("graft", "cut"), DEEPEST)
def test_where_no_old_layer_trains_there_is_nothing_to_add(name: str, graft: str, cut: int) -> None:
    network, method = adapted(graft, cut), make_method(name)
    method.prepare(network, a_task(network))
    assert [g.learning_rate for g in method.groups(network, RATES)] == [0.1]
    step = a_step(network)
    assert torch.equal(method.loss(network, step), step.supervised)


# L2-SP


def test_l2_sp_adds_the_pull_towards_the_start_and_of_new_weights_towards_zero() -> None:
    network, method = adapted("retain", 1, harmonise="l2"), L2SP()
    method.prepare(network, a_task(network))
    with torch.no_grad():
        for parameter in network.old_parameters():
            parameter.add_(0.5)
    moved_by = 0.25 * sum(p.numel() for p in network.old_parameters())
    assert added(method, network) == pytest.approx(0.1 / 2 * moved_by + 0.01 / 2 * weights_of_new(network), rel=1e-5)
    assert all(g.weight_decay == 0.0 for g in method.groups(network, RATES))


# BSS


def test_bss_adds_eta_times_the_squares_of_the_smallest_singular_values() -> None:
    network = adapted("replace", 1)
    step = a_step(network)
    # Squares of singular values are the eigenvalues of the Gram matrix, smallest first.
    gram = step.features.detach().double() @ step.features.detach().double().T
    smallest = torch.linalg.eigvalsh(gram)[:2].sum()
    assert added(BSS(eta=0.5, k=2), network) == pytest.approx(float(0.5 * smallest), rel=1e-2)


def test_bss_of_a_worked_matrix_and_its_gradient() -> None:
    features = torch.diag(torch.tensor([3.0, 2.0, 0.5])).requires_grad_(True)
    network = adapted("replace", 1)
    step = replace(a_step(network), features=features, supervised=torch.tensor(1.0))
    loss = BSS(eta=0.1, k=2).loss(network, step)
    assert float(loss.detach()) == pytest.approx(1 + 0.1 * (4.0 + 0.25))
    (gradient,) = torch.autograd.grad(loss, features)
    torch.testing.assert_close(gradient, torch.diag(torch.tensor([0.0, 0.4, 0.1])))  # 2 eta sigma for the smallest


def test_bss_sees_feature_maps_averaged_over_the_image() -> None:
    maps = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    network = adapted("replace", 1)
    step = replace(a_step(network), features=maps, supervised=torch.tensor(0.0))
    expected = torch.linalg.svd(maps.detach().mean(dim=(2, 3)))[1][-1] ** 2
    torch.testing.assert_close(BSS(eta=1.0).loss(network, step).detach(), expected)


# LwF and Co-Tuning


def source_logits(network: AdaptedNetwork, stored: Tensor) -> Tensor:
    """Source logits of the network as it is, in the mode it is in."""
    return network.staged.segment(2, 3)(network.suffix(stored))


@pytest.mark.parametrize("graft", ["retain", "replace", "joined"])
def test_lwf_adds_the_cross_entropy_of_softened_source_probabilities(graft: str) -> None:
    network = adapted(graft, 1).eval()
    original = copy.deepcopy(network)
    method = LwF(weight=0.7, temperature=2.0)
    method.prepare(network, a_task(network))
    method.groups(network, RATES)
    moved(network)
    stored = stored_for(network)
    before, after = (source_logits(n, stored).detach().double().softmax(dim=1) for n in (original, network))
    # The paper's own form: probabilities to the power of 1 / T, normalised.
    old, new = (p**0.5 / (p**0.5).sum(dim=1, keepdim=True) for p in (before, after))
    expected = -0.7 * float((old * new.log()).sum(dim=1).mean())
    assert added(method, network) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["lwf", "co-tuning"])
def test_where_the_layer_is_replaced_a_copy_of_it_is_trained_along_and_the_network_stays_as_it_is(name: str) -> None:
    network, method = adapted("replace", 1), make_method(name)
    names = set(network.state_dict())
    layer = network.staged.segment(2, 3)
    method.prepare(network, a_task(network))
    groups = method.groups(network, RATES)
    assert [g.learning_rate for g in groups] == [0.01, 0.1, 0.01]
    head = groups[2].parameters
    assert [p.shape for p in head] == [p.shape for p in layer.parameters()]
    assert all(p.data_ptr() != q.data_ptr() for p, q in zip(head, layer.parameters(), strict=True))
    method.loss(network, a_step(network)).backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in head if p.grad is not None)
    assert all(p.grad is not None for p in head)
    assert set(network.state_dict()) == names


@pytest.mark.parametrize("graft", ["retain", "deepen", "joined"])
def test_where_the_layer_is_kept_its_own_logits_are_pulled(graft: str) -> None:
    network, method = adapted(graft, 2), make_method("lwf")
    method.prepare(network, a_task(network))
    assert len(method.groups(network, RATES)) == 2
    step = a_step(network)
    (method.loss(network, step) - step.supervised).backward()
    assert network.layer is not None
    assert all(p.grad is not None for p in network.layer.parameters())


def test_co_tuning_adds_lambda_times_the_cross_entropy_with_the_related_source_classes() -> None:
    network = adapted("retain", 1)
    task = a_task(network)
    method = CoTuning(weight=2.3)
    method.prepare(network, task)
    teacher = Teacher(network, task).logits(next(iter(task.evaluation())))
    related = category_relationship(teacher.double().softmax(dim=1).numpy(), labels().numpy(), 3, task.seed)
    assert related.shape == (3, SOURCE_CLASSES)
    moved(network)
    step = a_step(network)
    assert step.source_logits is not None
    log = step.source_logits.detach().double().log_softmax(dim=1).numpy()
    expected = -2.3 * float((related[labels().numpy()] * log).sum(axis=1).mean())
    assert float(method.loss(network, step).detach() - step.supervised.detach()) == pytest.approx(expected, rel=1e-5)


def drawn_task(seed: int = 0, images: int = 6000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source probabilities that are almost certain, labels drawn from a known p(target | source), and that table."""
    random = np.random.default_rng(seed)
    target_given_source = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.6, 0.3, 0.1]])
    source = random.choice(4, size=images, p=[0.4, 0.3, 0.2, 0.1])
    drawn = np.array([random.choice(3, p=target_given_source[s]) for s in source])
    probabilities = np.full((images, 4), 0.001)
    probabilities[np.arange(images), source] = 0.997
    return probabilities, drawn, target_given_source


def test_the_relationship_is_that_of_bayes_rule_where_the_joint_distribution_is_known() -> None:
    probabilities, drawn, target_given_source = drawn_task()
    joint = target_given_source * np.array([0.4, 0.3, 0.2, 0.1])[:, None]
    expected = (joint / joint.sum(axis=0)).T
    found = category_relationship(probabilities, drawn, 3, seed=1)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert np.abs(found - expected).max() < 0.03


def test_calibration_finds_the_factor_by_which_logits_are_too_small() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0.0, 1.0, (20_000, 4))
    chances = np.exp(2.5 * logits)
    chances /= chances.sum(axis=1, keepdims=True)
    labels = (random.random((len(logits), 1)) > chances.cumsum(axis=1)).sum(axis=1)
    assert _calibration(logits, labels) == pytest.approx(2.5, rel=0.03)
    assert _calibration(5.0 * logits, labels) == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize(("factor", "expected"), [(1e-9, "source"), (1e9, "certain")])
def test_the_relationship_is_as_sure_as_calibration_says(
    monkeypatch: pytest.MonkeyPatch, factor: float, expected: str
) -> None:
    probabilities, drawn, _ = drawn_task()
    monkeypatch.setattr(co_tuning, "_calibration", lambda logits, labels: factor)
    found = category_relationship(probabilities, drawn, 3, seed=1)
    if expected == "source":  # a classifier that says nothing leaves what the source says of all images
        np.testing.assert_allclose(found, np.tile(probabilities.mean(axis=0), (3, 1)), atol=1e-6)
    else:  # every source class belongs to one target class
        assert ((found > 1e-6).sum(axis=0) == 1).all()


def test_the_relationship_of_two_target_classes_is_one_as_well() -> None:
    probabilities, drawn, _ = drawn_task()
    two = np.minimum(drawn, 1)
    counts = np.array([[np.sum((probabilities.argmax(axis=1) == s) & (two == t)) for s in range(4)] for t in range(2)])
    found = category_relationship(probabilities, two, 2, seed=1)
    assert np.abs(found - counts / counts.sum(axis=1, keepdims=True)).max() < 0.03


def test_the_relationship_can_be_had_from_one_image_a_class() -> None:
    probabilities = np.full((3, 5), 0.05)
    probabilities[np.arange(3), np.arange(3)] = 0.8
    found = category_relationship(probabilities, np.arange(3), 3, seed=0)
    assert (found.argmax(axis=1) == np.arange(3)).all()


@pytest.mark.filterwarnings("error")
def test_a_target_class_that_is_improbable_for_every_source_class_has_a_relationship() -> None:
    """Two source classes, two images a class, and those of target class 1 halfway between those of the others."""
    share = np.repeat([0.55, 0.5, 0.45], 2)
    found = category_relationship(np.stack([share, 1 - share], axis=1), np.repeat([0, 1, 2], 2), 3, seed=0)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert found[0, 0] > 0.99
    assert found[2, 1] > 0.99
    assert 0.3 < found[1, 0] < 0.7


@pytest.mark.filterwarnings("error")
def test_bayes_rule_of_extreme_probabilities_is_that_of_exact_arithmetic() -> None:
    logits = np.array([[9000.0, -9000.0, -2.5], [-9000.0, 9000.0, 0.0], [0.0, 8000.0, -0.5]])
    source = np.array([0.7, 0.3 - 1e-200, 1e-200])
    joint = [[(Decimal(z).exp() / sum(Decimal(w).exp() for w in row)) * Decimal(p) for z in row]
             for row, p in zip(logits.tolist(), source.tolist(), strict=True)]  # fmt: skip
    sums = [sum(row[t] for row in joint) for t in range(3)]
    expected = [[float(row[t] / sums[t]) for row in joint] for t in range(3)]
    found = other_direction(logits, source)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-300)
    never = other_direction(np.zeros((3, 2)), np.array([0.5, 0.5, 0.0]))
    assert never.tolist() == [[0.5, 0.5, 0.0]] * 2
