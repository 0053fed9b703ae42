"""The training loop: frozen is frozen, equal trials are equal, and what goes wrong is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from workbench import SETTINGS, deepest, needs_deeper, quick_selection, small, workbench  # noqa: F401

from inarch.errors import UsageError
from inarch.features.store import PrefixStore
from inarch.launch.here import RANGE, TRIAL
from inarch.methods import make_method
from inarch.network.adapted import AdaptedNetwork
from inarch.network.grafts import GRAFT_NAMES, Configuration, graft_class
from inarch.training.fit import OutOfTimeError, Watch, train
from inarch.training.learner import probabilities
from inarch.training.order import class_weights, epoch_order, split_batches, view_number
from inarch.training.range_test import choose_rate, range_test
from inarch.training.schedule import default_epochs, warmup_cosine
from inarch.training.task import start_graft
from inarch.training.trial import TrainingSettings, Trial

RETAIN = Configuration("retain", "l2")


def a_trial(configuration: Configuration = RETAIN, cut: int = 1, **changes: object) -> Trial:
    trial = Trial(configuration, cut, "fine-tuning", 0.01, 0.05, 1, SETTINGS)
    return replace(trial, **changes)  # type: ignore[arg-type]


def all_cuts() -> list[tuple[str, int]]:
    return [(g, k) for g in GRAFT_NAMES for k in range(deepest(g) + 1)]


@pytest.mark.parametrize(("graft", "cut"), all_cuts())
def test_frozen_stages_are_bit_identical_after_training_and_the_rest_moves(
    tmp_path: Path, graft: str, cut: int
) -> None:
    with workbench(tmp_path, deeper=needs_deeper(graft)) as bench:
        trial = a_trial(small(graft, "batch"), cut)
        network = bench.network(trial)
        source = {name: value.clone() for name, value in bench._network.state_dict().items()}
        train(network, trial, bench.store, make_method("fine-tuning"), Watch())
        after = bench._network.state_dict()
        last = len(bench.staged.stages) - 1
        used = last + 1 if graft_class(graft).keeps_layer else last
        for stage in bench.staged.stages:
            names = bench.staged.parameter_names(stage.index)  # type: ignore[attr-defined]
            same = [torch.equal(source[name], after[name]) for name in names]
            if stage.index <= cut or stage.index > used:
                assert all(same), f"stage {stage.index} should not have moved"
            else:
                assert not any(s for s, name in zip(same, names, strict=True) if name.endswith("weight"))


def test_the_same_trial_twice_gives_the_same_bits_and_other_seeds_other_ones(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        found = [
            train(bench.network(trial), trial, bench.store, make_method("fine-tuning"), Watch()).validation
            for trial in (a_trial(cut=0), a_trial(cut=0), a_trial(cut=0, seed=2))
        ]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_training_leaves_the_random_state_as_it_was(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        trial = a_trial(cut=0)
        before = torch.get_rng_state()
        train(bench.network(trial), trial, bench.store, make_method("fine-tuning"), Watch())
        assert torch.equal(before, torch.get_rng_state())


def test_a_diverging_trial_is_recorded_as_failed_with_its_reason_and_rates(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        (result,) = bench.run([a_trial(cut=0, learning_rate=1e30, new_layer_learning_rate=1e30)], Watch())
        (record,) = bench.folder.ledger.records(TRIAL)
        (again,) = bench.run([a_trial(cut=0)], Watch())
    assert result.accuracy < 0
    assert record.outcome["status"] == "failed"
    assert "training loss became" in record.outcome["reason"]
    assert "1e+30" in record.outcome["reason"]
    assert again.accuracy >= 0


def test_a_trial_stops_at_its_deadline_and_leaves_no_record(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        with pytest.raises(OutOfTimeError):
            bench.run([a_trial()], Watch(deadline=time.monotonic() - 1))
        assert bench.folder.ledger.records(TRIAL) == []


def test_a_last_batch_of_one_image_joins_the_one_before() -> None:
    assert [len(b) for b in split_batches(np.arange(9), 4)] == [4, 5]
    assert [len(b) for b in split_batches(np.arange(10), 4)] == [4, 4, 2]
    assert [len(b) for b in split_batches(np.arange(1), 4)] == [1]


def test_a_training_set_of_one_more_than_a_batch_trains_with_batch_normalisation(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        images = len(bench.store.images.rows["train"])
        trial = a_trial(Configuration("retain", "batch"), settings=replace(SETTINGS, batch_size=images - 1))
        (result,) = bench.run([trial], Watch())
    assert result.accuracy >= 0


def test_class_weights_are_inverse_to_counts_and_have_mean_one_over_images() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = class_weights(labels, 3)
    torch.testing.assert_close(weights, torch.tensor([10 / 18, 10 / 9, 10 / 3]))
    assert float(weights[torch.from_numpy(labels)].mean()) == pytest.approx(1.0)


def test_the_balanced_sampler_draws_every_class_equally_often() -> None:
    labels = np.array([0] * 900 + [1] * 90 + [2] * 10)
    settings = TrainingSettings(epochs=1, balance="sampler")
    drawn = np.concatenate([labels[epoch_order(labels, settings, 0, epoch)] for epoch in range(20)])
    assert np.bincount(drawn) / len(drawn) == pytest.approx([1 / 3] * 3, abs=0.02)
    plain = epoch_order(labels, TrainingSettings(epochs=1), 0, 0)
    assert sorted(plain) == list(range(1000))


def test_the_balance_of_the_loss_changes_what_is_learned(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        bench.store.images.labels["train"][: len(bench.store.images.labels["train"]) // 2] = 0
        found = [
            bench.run([a_trial(settings=replace(SETTINGS, balance=balance))], Watch())[0].log_loss
            for balance in ("none", "loss")
        ]
    assert found[0] != found[1]


def test_no_two_seeds_share_a_view() -> None:
    views = {view_number(seed, epoch, 0) for seed in range(5) for epoch in range(100)}
    assert len(views) == 500
    repeated = [{view_number(seed, epoch, 4) for epoch in range(100)} for seed in range(5)]
    assert [len(views) for views in repeated] == [4] * 5
    assert len(set.union(*repeated)) == 20
    assert set.union(*repeated) <= views


def test_the_schedule_warms_up_and_ends_near_zero() -> None:
    rates = [warmup_cosine(step, 100, 0.1) for step in range(100)]
    assert rates[0] < rates[5] < rates[9] < rates[10] == 1.0
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] < 0.01
    assert warmup_cosine(0, 1, 0.1) == 1.0


def test_default_epochs_see_small_data_sets_more_often() -> None:
    assert [default_epochs(n, 32) for n in (100, 1000, 3000, 100_000)] == [30, 26, 9, 8]


def test_a_trial_comes_out_the_same_whether_or_not_it_is_validated_after_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[str] = []
    monkeypatch.setattr("inarch.training.learner.probabilities", counted(passes))
    with workbench(tmp_path, epochs=3) as bench:
        trial = a_trial(cut=0, settings=replace(SETTINGS, epochs=3))
        found = [
            train(bench.network(trial), trial, bench.store, make_method("fine-tuning"), Watch(every_epoch=every_epoch))
            for every_epoch in (True, False)
        ]
    assert [len(one.epochs) for one in found] == [3, 0]
    assert np.array_equal(found[0].validation, found[1].validation)
    assert passes == ["validation"] * (3 + 1)


def counted(passes: list[str]) -> Callable[..., np.ndarray]:
    def noted(members: Any, cut: int, store: PrefixStore, split: str) -> np.ndarray:
        passes.append(split)
        return probabilities(members, cut, store, split)

    return noted


def test_the_range_test_leaves_the_network_bit_identical_and_is_deterministic(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        trial = a_trial(Configuration("deepen", "batch", (6,)), cut=3)
        network = bench.network(trial).train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        first, again = (range_test(network, SETTINGS, 0, bench.store) for _ in range(2))
        after = network.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        assert network.graft.training
    assert first == again
    assert len(first.rates) > 20


def test_the_range_test_depends_on_the_size_of_the_new_layers(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        losses = [
            range_test(bench.network(a_trial(Configuration("deepen", "none", (size,)), 3)), SETTINGS, 0, bench.store)
            for size in (2, 256)
        ]
    assert losses[0].losses != losses[1].losses


def test_trials_and_range_tests_start_matched_scales_at_the_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with workbench(tmp_path) as bench:
        trial = a_trial(Configuration("retain", "l2-matched"), cut=3)
        network, rows = bench.network(trial), bench.store.images.rows["train"]
        with torch.no_grad():
            logits = network.prefix(bench.store.images.views.evaluation(rows))
        wanted = logits.norm(dim=1).mean()
        starts = []
        monkeypatch.setattr(
            "inarch.training.range_test._sweep", lambda network, *_: starts.append(scale(network)) or ([], [])
        )
        range_test(network, SETTINGS, 0, bench.store)
        assert (scale(network) == 20).all()  # as it was before
        start_graft(network, bench.store, 0)
        starts.append(scale(network))
    for start in starts:
        torch.testing.assert_close(start, wanted.expand(len(start)), rtol=0.01, atol=0)
    assert len(starts) == 2


def scale(network: AdaptedNetwork) -> torch.Tensor:
    return network.graft.get_parameter("harmonise.scale").detach().clone()


def test_the_range_test_takes_a_third_of_the_rate_with_the_lowest_loss() -> None:
    assert choose_rate([0.001, 0.01, 0.1, 1.0], [3.0, 2.0, 1.0, 5.0]) == pytest.approx(0.1 / 3)


def test_label_smoothing_is_that_of_cross_entropy() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    log = logits.log_softmax(dim=1)[0]
    expected = -(0.9 + 0.1 / 3) * log[0] - 0.1 / 3 * (log[1] + log[2])
    torch.testing.assert_close(F.cross_entropy(logits, labels, label_smoothing=0.1), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"views": -1}, "views is -1"),
        ({"classifier_start": -1}, "classifier_start is -1"),
        ({"stored_precision": "int4"}, "stored_precision is 'int4'.*fp32, bf16"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"optimiser": "lion"}, "sgd, adamw"),
        ({"balance": "focal"}, "none, loss, sampler"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainingSettings(**({"epochs": 1} | changes))  # type: ignore[arg-type]


def test_unknown_methods_name_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'magic'.*fine-tuning.*l2-sp"):
        make_method("magic")


def test_a_trial_survives_json_with_its_key() -> None:
    trial = a_trial(Configuration("deepen", "l2", (8, 4)), settings=replace(SETTINGS, label_smoothing=0.2))
    again = Trial.from_json(trial.to_json())
    assert again == trial
    assert again.key == trial.key
    assert replace(trial, seed=9).key != trial.key


def test_views_stored_precision_and_start_are_part_of_what_a_trial_is() -> None:
    changes = ({}, {"views": 2}, {"views": 0}, {"stored_precision": "fp32"}, {"classifier_start": 0.01})
    keys = [a_trial(settings=replace(SETTINGS, **change)).key for change in changes]  # type: ignore[arg-type]
    assert len(set(keys)) == len(keys)


def test_a_trial_from_before_views_were_numbered_reads_as_what_it_was() -> None:
    values = a_trial().to_json()
    del values["settings"]["views"], values["settings"]["stored_precision"]
    settings = Trial.from_json(values).settings
    assert (settings.views, settings.stored_precision, settings.classifier_start) == (0, "fp32", 1.0)


@pytest.mark.parametrize("graft", GRAFT_NAMES)
def test_a_classifier_begins_with_the_factor_of_its_settings_and_nothing_else_changes(
    tmp_path: Path, graft: str
) -> None:
    usual, smaller = ({"settings": replace(SETTINGS, classifier_start=factor)} for factor in (1.0, 0.25))
    with workbench(tmp_path, deeper=needs_deeper(graft)) as bench:
        before = {
            n: p.detach().clone() for n, p in bench.network(a_trial(small(graft), **usual)).graft.named_parameters()
        }
        after = dict(bench.network(a_trial(small(graft), **smaller)).graft.named_parameters())
    assert before.keys() == after.keys()
    scaled = {"classifier.weight", "classifier.bias"}
    for name, value in before.items():
        assert torch.equal(after[name], value * (0.25 if name in scaled else 1.0)), name
    assert bool((before["classifier.weight"] != 0).any())


def test_range_tests_see_classifiers_as_pytorch_draws_them_whatever_trials_begin_with(tmp_path: Path) -> None:
    found = []
    for factor in (1.0, 0.01):
        with workbench(tmp_path / str(factor)) as bench:
            settings = replace(SETTINGS, classifier_start=factor)
            found.append(bench.new_layer_rate(small("deepen"), settings, deepest("deepen"), 0))
            (record,) = bench.folder.ledger.records(RANGE)
            assert "classifier_start" not in record.subject["settings"]
    assert found[0] == found[1]


def test_the_default_start_says_next_to_nothing_and_gives_old_layers_a_gradient(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        trial = a_trial(small("replace", "none"), 0, settings=TrainingSettings(epochs=1))
        network = bench.network(trial)
        logits = network(bench.store.once(0, "train").__next__())
        classes = logits.shape[1]
        loss = F.cross_entropy(logits.float(), torch.arange(len(logits)) % classes)
        loss.backward()
    assert loss.item() == pytest.approx(np.log(classes), abs=0.05)
    assert all(bool((p.grad != 0).any()) for p in network.old_parameters() if p.grad is not None)
    assert any(p.grad is not None for p in network.old_parameters())


def test_views_are_taken_in_turn_and_no_epoch_asks_for_more_than_there_are() -> None:
    assert [view_number(0, epoch, 3) for epoch in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [view_number(0, epoch, 0) for epoch in range(7)] == list(range(7))
    counts = {(9, 4): 4, (3, 4): 3, (9, 0): 9}
    for (epochs, views), distinct in counts.items():
        settings = TrainingSettings(epochs=epochs, views=views)
        assert settings.distinct_views == distinct
        assert len({view_number(1, epoch, views) for epoch in range(epochs)}) == distinct


def test_with_nothing_frozen_every_epoch_has_a_fresh_view() -> None:
    settings = TrainingSettings(epochs=9, views=2)
    assert a_trial(cut=1, settings=settings).views == 2
    assert a_trial(cut=0, settings=settings).views == 0


def test_trials_and_range_tests_read_no_view_that_is_not_numbered_for_their_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, seen = PrefixStore.read, set[int | None]()

    def recorded(store: PrefixStore, cut: int, split: str, positions: np.ndarray, view: int | None) -> torch.Tensor:
        seen.update([view] if split == "train" else [])
        return read(store, cut, split, positions, view)

    monkeypatch.setattr(PrefixStore, "read", recorded)
    settings = replace(SETTINGS, epochs=5, views=2)
    with workbench(tmp_path, epochs=5) as bench:
        range_test(bench.network(a_trial(cut=3)), settings, 1, bench.store)
        assert seen == {100_000, 100_001}
        bench.run([a_trial(settings=settings)], Watch())
        assert seen == {100_000, 100_001}
