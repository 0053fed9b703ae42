"""Bi-Tuning: contrastive losses of classifier and projector, the queues, and the key encoder."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from methods_bench import IMAGES, a_step, a_task, adapted, labels, moved
from torch import Tensor

from inarch.methods.bi_tuning import BiTuning, Queue, contrast
from inarch.network.adapted import AdaptedNetwork


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


def last_input(network: AdaptedNetwork, stored: Tensor) -> np.ndarray:
    """What the last layer of the network sees."""
    kept: list[Tensor] = []
    handle = network.graft.classifier.register_forward_pre_hook(lambda m, inputs: kept.append(inputs[0].detach()))
    network.from_stored(stored)
    handle.remove()
    return kept[0].double().numpy()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


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
