"""Mixup: worked values, the loop's loss against soft labels, and who refuses it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import pytest
import torch
from methods_bench import CLASSES, a_step, a_task, adapted, labels
from torch import Tensor
from torch.nn import functional as F
from workbench import SETTINGS, workbench

from inarch.comparison.options import CompareOptions
from inarch.errors import UsageError
from inarch.features.shelf import Shelf
from inarch.features.store import Keeping
from inarch.methods import METHODS, Method, Mixture, Step, make_method, over_labels
from inarch.methods.source_copy import SourceLogits
from inarch.network.adapted import AdaptedNetwork
from inarch.network.grafts import Configuration
from inarch.options import StudyOptions
from inarch.training.fit import Watch, train
from inarch.training.mixing import mixture_of
from inarch.training.order import course_of
from inarch.training.range_test import range_test
from inarch.training.trial import Trial

MIXED = replace(SETTINGS, mixup=0.4)


def a_trial(cut: int = 1, **changes: object) -> Trial:
    trial = Trial(Configuration("retain", "l2"), cut, "fine-tuning", 0.01, 0.05, 1, MIXED)
    return replace(trial, **changes)  # type: ignore[arg-type]


def test_a_worked_example() -> None:
    mixture = Mixture(0.25, torch.tensor([1, 2, 0]))
    images = torch.tensor([[4.0, 0.0], [8.0, 4.0], [0.0, 8.0]])
    assert mixture.of(images).tolist() == [[7.0, 3.0], [2.0, 7.0], [3.0, 2.0]]
    # Two classes with probabilities 3/4 and 1/4: -log of them is 0.28768 and 1.38629.
    logits = torch.tensor([3.0, 1.0]).log().expand(3, 2)
    found = over_labels(lambda these: F.cross_entropy(logits, these), torch.tensor([0, 0, 1]), mixture)
    # Own labels 0, 0, 1 give 0.65389; those of the partners 0, 1, 0 as well, and so does any mean of both.
    assert float(found) == pytest.approx(0.25 * 0.65389 + 0.75 * 0.65389, abs=1e-4)
    first = over_labels(lambda these: F.cross_entropy(logits[:1], these[:1]), torch.tensor([0, 1, 1]), mixture)
    assert float(first) == pytest.approx(0.25 * 0.28768 + 0.75 * 1.38629, abs=1e-4)
    assert over_labels(lambda these: these.sum(), torch.tensor([5, 6]), None) == 11


def test_shares_follow_the_beta_distribution_and_partners_are_a_permutation() -> None:
    found = [mixture_of(0.4, 3, number, 8) for number in range(4000)]
    shares = np.array([mixture.share for mixture in found if mixture])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.004)
    partners = torch.stack([mixture.partners for mixture in found if mixture])
    assert torch.equal(partners.sort(dim=1).values, torch.arange(8).expand(4000, 8))
    assert float((partners == torch.arange(8)).float().mean()) == pytest.approx(1 / 8, abs=0.01)
    assert len({tuple(row) for row in partners[:200].tolist()}) > 190
    assert mixture_of(0.0, 3, 0, 8) is None


def test_a_mixture_follows_from_seed_and_step_alone() -> None:
    one, again, later, other = (mixture_of(1.0, *where, 16) for where in ((1, 5), (1, 5), (1, 6), (2, 5)))
    assert one is not None
    assert again is not None
    assert one.share == again.share
    assert torch.equal(one.partners, again.partners)
    for different in (later, other):
        assert different is not None
        assert different.share != one.share


@final
@dataclass
class Recorder(Method):
    """Plain fine-tuning that remembers what each step saw."""

    name: ClassVar[str] = "recorder"

    def __post_init__(self) -> None:
        self.steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def loss(self, network: AdaptedNetwork, step: Step) -> Tensor:
        self.steps.append((step.stored, step.labels, step.logits.detach(), step.supervised.detach()))
        return step.supervised


@pytest.mark.parametrize("balance", ["none", "loss"])
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_the_loop_mixes_what_the_trained_part_reads_and_its_loss_has_soft_labels(
    tmp_path: Path, cut: int, balance: str
) -> None:
    trial, recorder = a_trial(cut, settings=replace(MIXED, balance=balance)), Recorder()
    with workbench(tmp_path) as bench:
        truth = bench.store.images.labels["train"]
        truth[:9] = 0
        course = course_of(trial, truth)
        train(bench.network(trial), trial, bench.store, recorder, Watch())
        positions = [(batch, course.views[epoch]) for epoch, some in enumerate(course.batches) for batch in some]
        plain = [bench.store.read(cut, "train", batch, view) for batch, view in positions]
    weights = np.bincount(truth).sum() / (CLASSES * np.bincount(truth)) if balance == "loss" else np.ones(CLASSES)
    assert len(recorder.steps) == len(plain) > 4
    for number, ((stored, seen, logits, supervised), before) in enumerate(zip(recorder.steps, plain, strict=True)):
        mixture = mixture_of(0.4, 1, number, len(before))
        assert mixture is not None
        share, partners = mixture.share, mixture.partners.numpy()
        values = before.double().numpy()
        np.testing.assert_allclose(stored.double(), share * values + (1 - share) * values[partners], atol=1e-5)
        # Smoothed one-hot labels of the image and of its partner, each weighted by its class.
        smooth = 0.9 * np.eye(CLASSES) + 0.1 / CLASSES
        log = logits.double().log_softmax(dim=1).numpy()
        each = [
            -(smooth[these] * weights * log).sum() / weights[these].sum()
            for these in (seen.numpy(), seen.numpy()[partners])
        ]
        assert float(supervised) == pytest.approx(share * each[0] + (1 - share) * each[1], rel=1e-5)


def test_mixing_changes_what_is_learned_the_same_way_each_time_from_memory_and_from_the_disk(tmp_path: Path) -> None:
    found = []
    for keeping in (Keeping((1, 2, 3)), Keeping((1, 2, 3), shelf=Shelf(tmp_path / "shelf")), Keeping(())):
        with workbench(tmp_path, keeping=keeping) as bench:
            trial = a_trial()
            found.append(train(bench.network(trial), trial, bench.store, make_method("fine-tuning"), Watch()))
    with workbench(tmp_path) as bench:
        plain = replace(trial, settings=SETTINGS)
        unmixed = train(bench.network(plain), plain, bench.store, make_method("fine-tuning"), Watch())
    assert all(np.array_equal(other.validation, found[0].validation) for other in found[1:])
    assert all(other.epochs == found[0].epochs for other in found[1:])
    assert not np.array_equal(unmixed.validation, found[0].validation)


def test_the_range_test_sees_mixed_images_too(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        network = bench.network(a_trial(3))
        mixed, plain = (range_test(network, settings, 1, bench.store) for settings in (MIXED, SETTINGS))
        assert range_test(network, MIXED, 1, bench.store) == mixed
    assert mixed.losses[0] != plain.losses[0]


def test_the_second_labels_of_co_tuning_are_mixed_like_the_first() -> None:
    network, method = adapted("retain"), make_method("co-tuning")
    task = a_task(network)
    method.prepare(network, task)
    step, mixture = a_step(network), Mixture(0.3, torch.randperm(12, generator=torch.Generator().manual_seed(1)))
    found = method.loss(network, replace(step, mixture=mixture)) - step.supervised
    relationship = method._relationship  # type: ignore[attr-defined]
    soft = 0.3 * relationship[labels()] + 0.7 * relationship[labels()[mixture.partners]]
    log = SourceLogits(network, task).of(step).log_softmax(dim=1)
    torch.testing.assert_close(found, 2.3 * -(soft * log).sum(dim=1).mean())


@pytest.mark.parametrize("method", [m.name for m in METHODS if m.bears_mixing and not m.deepest_only])
def test_every_method_that_bears_mixing_learns_from_mixed_images(tmp_path: Path, method: str) -> None:
    trial = a_trial(method=method, configuration=Configuration("retain", "batch"), settings=replace(MIXED, epochs=8))
    with workbench(tmp_path, epochs=8) as bench:
        epochs = train(bench.network(trial), trial, bench.store, make_method(method), Watch()).epochs
    assert sum(e.training_loss for e in epochs[-2:]) < sum(e.training_loss for e in epochs[:2])


def test_a_method_that_wants_one_label_an_image_is_refused_by_name(tmp_path: Path) -> None:
    said = r"bi-tuning compares images by their one label, and mixup \(0.2\) gives each image two"
    with pytest.raises(UsageError, match=said):
        StudyOptions(method="bi-tuning", mixup=0.2)
    with pytest.raises(UsageError, match=said):
        CompareOptions(("fine-tuning", "bi-tuning"), study=StudyOptions(mixup=0.2))
    trial = a_trial(method="bi-tuning")
    with workbench(tmp_path) as bench, pytest.raises(UsageError, match="bi-tuning compares"):
        train(bench.network(trial), trial, bench.store, make_method("bi-tuning"), Watch())
    assert StudyOptions(method="bi-tuning").mixup == 0
    assert [m.name for m in METHODS if not m.bears_mixing] == ["bi-tuning"]
