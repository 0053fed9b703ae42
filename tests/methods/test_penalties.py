"""Methods that add to the loss: L2-SP, DELTA, BSS, LwF, Co-Tuning, Bi-Tuning, against their papers' formulas."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from methods_bench import IMAGES, SOURCE_CLASSES, a_step, a_task, adapted, labels, moved, stored_for
from torch import Tensor, nn
from torch.nn import functional as F

from inarch.errors import UsageError
from inarch.methods import Rates, make_method
from inarch.methods.bi_tuning import BiTuning, Queue, contrast
from inarch.methods.bss import BSS
from inarch.methods.co_tuning import CoTuning, category_relationship
from inarch.methods.delta import DELTA, channel_attention, fitted_graft, regularised
from inarch.methods.l2_sp import L2SP
from inarch.methods.lwf import LwF
from inarch.methods.source_copy import Teacher
from inarch.network.adapted import AdaptedNetwork
from inarch.network.card import InputSpec
from inarch.network.grafts import Configuration
from inarch.network.stages import stage_network

RATES = Rates(old=0.01, new=0.1, weight_decay=0.001)
DEEPEST = [("retain", 3), ("deepen", 3), ("joined", 3), ("replace", 2)]


def added(method: object, network: AdaptedNetwork) -> float:
    """What a method adds to the supervised loss of a batch."""
    step = a_step(network)
    return float(method.loss(network, step).detach() - step.supervised.detach())  # type: ignore[attr-defined]


def weights_of_new(network: AdaptedNetwork) -> float:
    return sum(float(p.detach().square().sum()) for p in network.new_parameters() if p.ndim >= 2)


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


# DELTA


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


# Bi-Tuning


def test_the_contrast_is_the_mean_over_positives_of_minus_log_softmax_over_all_keys() -> None:
    random = np.random.default_rng(0)
    current, queued, known = random.normal(size=2), random.normal(size=(2, 3, 4)), [2, 0]
    expected = []
    for image in range(2):
        everything = np.exp(np.append(queued[image].ravel(), current[image]) / 0.5).sum()
        positives = [*queued[image][known[image]], current[image]]
        expected.append(np.mean([-math.log(math.exp(p / 0.5) / everything) for p in positives]))
    found = contrast(torch.from_numpy(current), torch.from_numpy(queued), torch.tensor(known), 0.5)
    assert float(found) == pytest.approx(np.mean(expected))


def test_a_queue_takes_the_newest_keys_of_every_class_in_place_of_the_oldest() -> None:
    queue = Queue(2, 3, 2, torch.Generator().manual_seed(0), torch.device("cpu"))
    start = queue.keys.clone()
    torch.testing.assert_close(start.norm(dim=2), torch.ones(2, 3))
    keys = torch.arange(10.0).view(5, 2)
    queue.push(keys, torch.tensor([1, 1, 0, 1, 1]))
    assert torch.equal(queue.keys[0], torch.stack([keys[2], start[0, 1], start[0, 2]]))
    assert torch.equal(queue.keys[1], torch.stack([keys[4], keys[1], keys[3]]))


@pytest.mark.parametrize("graft", ["replace", "retain", "deepen", "joined"])
def test_bi_tuning_adds_both_contrastive_losses(graft: str) -> None:
    network, method = adapted(graft, 1).eval(), BiTuning(queue=4, projection=5, temperature=0.5, momentum=0.9)
    start = copy.deepcopy(network)
    method.prepare(network, a_task(network))
    projector, queues = method._projector, method._queues
    assert projector is not None
    assert queues is not None
    method._keys._network.eval()  # type: ignore[union-attr]
    moved(network)
    old = [q.keys.double().numpy() for q in queues]
    step = a_step(network)

    def last_input(one: AdaptedNetwork, stored: Tensor) -> np.ndarray:
        kept: list[Tensor] = []
        handle = one.graft.classifier.register_forward_pre_hook(lambda m, inputs: kept.append(inputs[0].detach()))
        one.from_stored(stored)
        handle.remove()
        return kept[0].double().numpy()

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    # The key encoder: nine tenths of what the network was, one of what it is.
    with torch.no_grad():
        for slow, now in zip(start.parameters(), network.parameters(), strict=True):
            slow.mul_(0.9).add_(0.1 * now)
    own, keyed = last_input(network, step.stored), last_input(start, step.another_view())
    weight, bias = (p.detach().double().numpy() for p in projector.parameters())
    h = unit(np.concatenate([own, np.ones((IMAGES, 1))], axis=1))
    z, z_key = unit(own @ weight.T + bias), unit(keyed @ weight.T + bias)
    layer = network.graft.classifier
    w = unit(np.concatenate([p.detach().double().numpy().reshape(3, -1) for p in layer.parameters()], axis=1))
    total = 0.0
    for image, label in enumerate(labels().tolist()):
        for current, similar in (
            (h[image] @ w[label], old[0] @ w[label]),
            (z[image] @ z_key[image], old[1] @ z[image]),
        ):
            everything = np.exp(similar / 0.5).sum() + math.exp(current / 0.5)
            positives = [current, *similar[label]]
            total += np.mean([-math.log(math.exp(p / 0.5) / everything) for p in positives]) / IMAGES
    assert float(method.loss(network, step).detach() - step.supervised.detach()) == pytest.approx(total, rel=1e-4)
    newest = unit(np.concatenate([keyed, np.ones((IMAGES, 1))], axis=1))
    np.testing.assert_allclose(queues[0].keys[0].numpy(), newest[labels().numpy() == 0], rtol=1e-4, atol=1e-5)
    method.release()
