"""SubTuning: stages are added one by one, each the one that brings most on images held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from methods_bench import a_task, adapted, labels, stored_for
from torch.nn import functional as F

from inarch.methods import Rates
from inarch.methods.subtuning import SubTuning, _apart
from inarch.network.adapted import AdaptedNetwork

RATES = Rates(old=0.02, new=0.2, weight_decay=0.001)


def training(network: AdaptedNetwork) -> set[int]:
    stages = range(1, 4)
    return {k for k in stages if any(p.requires_grad for p in network.staged.segment(k - 1, k).parameters())}


@pytest.mark.parametrize(
    ("worth", "most", "epsilon", "expected"),
    [
        ({(2,): 0.6, (1,): 0.5, (3,): 0.4, (2, 3): 0.7, (2, 1): 0.65, (2, 3, 1): 0.7}, 5, 0.0, {2, 3}),
        ({(2,): 0.6, (1,): 0.5, (3,): 0.4, (2, 3): 0.7, (2, 1): 0.65}, 1, 0.0, {2}),
        ({(2,): 0.6, (1,): 0.5, (3,): 0.4, (2, 3): 0.7, (2, 1): 0.65}, 5, 0.2, {2}),
        ({(3,): 0.3, (1,): 0.2, (2,): 0.1, (3, 1): 0.4, (3, 2): 0.5, (3, 2, 1): 0.6}, 5, 0.0, {1, 2, 3}),
    ],
)
def test_the_stage_that_brings_most_is_added_until_none_brings_more_than_epsilon(
    monkeypatch: pytest.MonkeyPatch, worth: dict[Sequence[int], float], most: int, epsilon: float, expected: set[int]
) -> None:
    by_subset = {frozenset(subset): accuracy for subset, accuracy in worth.items()}
    monkeypatch.setattr(
        SubTuning, "_accuracy", lambda self, network, rates, tried: by_subset[frozenset(training(network))]
    )
    network, method = adapted("retain", 0), SubTuning(most=most, epsilon=epsilon)
    method.prepare(network, a_task(network))
    groups = method.groups(network, RATES)
    assert training(network) == expected
    trained = [p for k in sorted(expected) for p in network.staged.segment(k - 1, k).parameters()]
    assert {id(p) for p in groups[0].parameters} == {id(p) for p in trained}


def test_a_choice_is_worth_its_accuracy_on_the_last_batches_after_training_on_the_others() -> None:
    network, method = adapted("retain", 0), SubTuning()
    # Batches that differ from each other, and labels that can be learned from them.
    tried = [(stored_for(network, n) + labels().view(-1, 1, 1, 1), labels()) for n in range(10)]
    task = replace(a_task(network), batches=lambda epoch: iter(tried))
    method.prepare(network, task)
    network.rest([1])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = method._accuracy(network, RATES, tried)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    # By hand: plain SGD with momentum on eight batches, then the two that were held out.
    old, new = network.old_parameters(), network.new_parameters()
    speeds = [torch.zeros_like(p) for p in (*old, *new)]
    network.train()
    network.staged.segment(0, 1).eval()
    for step, (stored, known) in enumerate(tried[:8]):
        gradients = torch.autograd.grad(F.cross_entropy(network.from_stored(stored), known), (*old, *new))
        with torch.no_grad():
            for place, (p, gradient) in enumerate(zip((*old, *new), gradients, strict=True)):
                speeds[place] = 0.9 * speeds[place] + gradient + 0.001 * p
                p.sub_(task.schedule(step, 8) * (0.02 if place < len(old) else 0.2) * speeds[place])
    network.eval()
    right = [network.from_stored(stored).argmax(dim=1) == known for stored, known in tried[8:]]
    assert found == pytest.approx(float(torch.cat(right).float().mean()))
    assert found > 0.3


def test_where_only_new_layers_train_nothing_is_chosen() -> None:
    network, method = adapted("retain", 3), SubTuning()
    method.prepare(network, replace(a_task(network), batches=lambda epoch: iter(())))
    assert [g.learning_rate for g in method.groups(network, RATES)] == [0.2]


@pytest.mark.parametrize(
    ("sizes", "learned", "held_out"),
    [
        # Two batches, as fifty images have: a fifth of the images, not one of the batches.
        ((32, 18), [32, 8], [10]), ((12,) * 10, [12] * 8, [12, 12]), ((4,), [3], [1]), ((32, 9), [32], [8]),
    ],
)  # fmt: skip
def test_a_fifth_of_the_images_is_held_out_whatever_the_batches(
    sizes: Sequence[int], learned: list[int], held_out: list[int]
) -> None:
    numbers = iter(torch.arange(sum(sizes)).split(list(sizes)))
    first, second = _apart([(n.view(-1, 1), n) for n in numbers])
    assert [len(labels) for _, labels in first] == learned
    assert [len(labels) for _, labels in second] == held_out
    assert all(torch.equal(stored[:, 0], labels) for stored, labels in (*first, *second))
    assert torch.cat([labels for _, labels in second]).tolist() == list(range(sum(sizes)))[-sum(held_out) :]


def test_few_images_are_passed_over_again_for_a_quarter_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    network, method = adapted("retain", 0), SubTuning()
    tried = [(stored_for(network, n), labels()) for n in range(2)]
    steps: list[tuple[int, int]] = []

    def schedule(step: int, of: int) -> float:
        steps.append((step, of))
        return 1.0

    method.prepare(network, replace(a_task(network), steps=60, schedule=schedule))
    method._accuracy(network, RATES, tried)
    assert sorted(set(steps)) == [(step, 15) for step in range(15)]
    steps.clear()
    method.prepare(network, replace(a_task(network), steps=1000, schedule=schedule))
    method._accuracy(network, RATES, tried)
    assert sorted(set(steps)) == [(step, 24) for step in range(24)]


@pytest.mark.parametrize("images", [0, 1, 4])
def test_with_fewer_images_than_can_be_held_out_of_no_old_stage_trains(images: int) -> None:
    network, method = adapted("retain", 0), SubTuning()
    few = [(stored_for(network)[:images], labels()[:images])] if images else []
    method.prepare(network, replace(a_task(network), batches=lambda epoch: iter(few)))
    (group,) = method.groups(network, RATES)
    assert group.learning_rate == RATES.new
    assert training(network) == set()
