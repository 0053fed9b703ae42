"""Trials run on this machine, one batch after the other, each becoming records as soon as it ends."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import nn

from inarch.errors import TrainingError
from inarch.features.store import PrefixStore
from inarch.launch.allocator import give_back
from inarch.launch.cost import Speeds, seconds_of
from inarch.methods import make_method, method_class
from inarch.network.adapted import AdaptedNetwork
from inarch.network.captured import Tape
from inarch.network.grafts import Configuration, Widths
from inarch.network.randomness import own_randomness
from inarch.network.stages import Stages, require_features
from inarch.network.weights import copy_of_weights, saved_weights, write_weights
from inarch.results.folder import TRIAL as TRIAL
from inarch.results.folder import RunFolder
from inarch.results.ledger import Record
from inarch.results.metrics import classification_metrics
from inarch.search.space import FAILED, TRADITIONAL, Result
from inarch.training.fit import Trained, Watch, predict, train_together
from inarch.training.range_test import range_test
from inarch.training.trial import PYTORCH_START, TrainingSettings, Trial, digest

RANGE, TEST = "range-test", "test"


@final
class Workbench:
    """A source network, images and a run folder: everything that a trial needs.

    The network's modules are shared by all trials; each starts from the source weights, which are kept here.
    """

    def __init__(self, staged: Stages, network: nn.Module, store: PrefixStore, folder: RunFolder) -> None:
        self.staged = staged
        self.store = store
        self.folder = folder
        if store.machine.plan.recomputed:
            store.settle = give_back
        require_features(staged)
        # Weights and pixels must agree on the memory format, or every layer converts: tens of times slower here.
        self._network = network.to(memory_format=store.machine.plan.layout)
        self._tape = Tape() if store.machine.plan.captured else None
        self.source_weights = copy_of_weights(network)
        self.widths = Widths(staged.stages[-2].output_shape[0], staged.stages[-1].output_shape[0], store.images.classes)

    def network(self, trial: Trial) -> AdaptedNetwork:
        """The network of a trial before its first step."""
        with self.store.profile.section("building networks"):
            self._network.load_state_dict(self.source_weights)
            adapted = AdaptedNetwork(self.staged, trial.configuration, self.widths, cut=trial.cut, seed=trial.seed)
            adapted.graft.scale_classifier(trial.settings.classifier_start)
            adapted.recompute(self.store.machine.plan.recomputed)
            if self._tape is not None:
                if method_class(trial.method).same_passes and not adapted.taps:
                    adapted.play_back(self._tape, trial.settings.batch_size)
                else:
                    self._tape.clear()
            return adapted.to(self.store.machine.device)

    def run(self, batch: Sequence[Trial], watch: Watch) -> list[Result]:
        """Trains trials together and records them in one transaction.

        A trial that cannot be trained is recorded as failed with its reason.
        """
        return self.take(batch, self.trained(batch, watch))

    def trained(self, batch: Sequence[Trial], watch: Watch) -> list[Record]:
        """Trains trials together; their weights are written, but their records are not."""
        start = time.monotonic()
        self.store.tick = watch.check
        try:
            networks, outcomes = self._train(batch, watch)
        finally:
            self.store.tick = lambda: None
        for trial, network, outcome in zip(batch, networks, outcomes, strict=True):
            if isinstance(outcome, Trained):
                self._save(trial, network)
        seconds = (time.monotonic() - start) / len(batch)
        together = [trial.key for trial in batch]
        return [
            Record(trial.key, TRIAL, trial.to_json(), self._outcome(o) | {"together": together}, _arrays(o), seconds)
            for trial, o in zip(batch, outcomes, strict=True)
        ]

    def take(self, batch: Sequence[Trial], records: list[Record]) -> list[Result]:
        """Records what `trained` gave, in one transaction."""
        self._record(*records)
        return [result_of(trial, record) for trial, record in zip(batch, records, strict=True)]

    def took(self, batch: Sequence[Trial]) -> float:
        """Seconds that recorded trials took, together."""
        records = [self.folder.ledger.get(trial.key) for trial in batch]
        return sum(record.seconds for record in records if record)

    def _train(
        self, batch: Sequence[Trial], watch: Watch
    ) -> tuple[list[AdaptedNetwork], list[Trained | TrainingError]]:
        networks = [self.network(trial) for trial in batch]
        methods = [make_method(trial.method, trial.strength) for trial in batch]
        with self.store.profile.section("training"):
            return networks, train_together(networks, batch, self.store, methods, watch)

    def _outcome(self, outcome: Trained | TrainingError) -> dict[str, Any]:
        if isinstance(outcome, TrainingError):
            return {"status": "failed", "reason": str(outcome)}
        members = {"members": [asdict(member) for member in outcome.members]} if outcome.members else {}
        return members | {
            "status": "finished",
            "validation": classification_metrics(outcome.validation, self.store.images.labels["validation"]),
            "epochs": [asdict(epoch) for epoch in outcome.epochs],
        }

    def new_layer_rate(
        self, configuration: Configuration, settings: TrainingSettings, cut: int, seed: int, shots: int = 0
    ) -> float:
        """The rate that the range test finds for a configuration, at the cut where no old layer trains.

        Classifiers begin as PyTorch draws them, whatever they begin with in trials: behind new hidden layers one near
        zero learns so little at first that these seem to bear rates several times as high (docs/lab-notebook.md).
        """
        settings = replace(settings, classifier_start=PYTORCH_START)
        subject = {"configuration": configuration.to_json(), "settings": settings.to_json(), "cut": cut, "seed": seed}
        if shots:
            subject["shots"] = shots
        key = f"{RANGE}-{digest(subject)}"
        record = self.folder.ledger.get(key)
        if record is None:
            start = time.monotonic()
            trial = Trial(configuration, cut, "fine-tuning", 0.0, 0.0, seed, settings)
            network = self.network(trial)
            with self.store.profile.section("range tests"):
                found = range_test(network, settings, seed, self.store)
            record = Record(key, RANGE, subject, asdict(found), {}, time.monotonic() - start)
            self._record(record)
        return float(record.outcome["chosen"])

    def test(self, trial: Trial) -> np.ndarray:
        """Probabilities [images, classes] on the test split of a finished trial, recorded once."""
        found = recorded_test(self.folder, trial)
        if found is None:
            start = time.monotonic()
            found = predict(self.restore(trial), self.store, "test").astype(np.float32)
            seconds = time.monotonic() - start
            self._record(Record(_test_key(trial), TEST, trial.to_json(), {}, {"test": found}, seconds))
        return found

    def validation(self, trial: Trial) -> np.ndarray:
        """Probabilities [images, classes] on the validation split of a finished trial, as they were recorded."""
        record = self.folder.ledger.get(trial.key)
        assert record is not None, "a trial that was chosen is recorded"
        return record.arrays["validation"]

    def source_logits(self, split: str) -> Iterator[np.ndarray]:
        """What the original network makes of the evaluation view of a split: float32 [images, source classes] a batch.

        The store has a network of its own, so it does not matter what was trained in the meantime.
        """
        for logits in self.store.once(len(self.staged.stages), split):
            yield logits.float().cpu().numpy()

    def restore(self, trial: Trial) -> AdaptedNetwork:
        """The trained network of a finished trial, from its checkpoint; without a whole one it is trained again.

        Then together with the same trials as before, or its last bits would differ.
        """
        with self.store.profile.section("checkpoints"):
            state = saved_weights(self._checkpoint(trial))
        if state is not None:
            network = self.network(trial)
            network.load_state_dict(state, strict=False)
            return network.eval()
        record = self.folder.ledger.get(trial.key)
        keys = record.outcome.get("together", []) if record else []
        records = [found for key in keys if (found := self.folder.ledger.get(key))]
        batch = [Trial.from_json(found.subject) for found in records] or [trial]
        networks, outcomes = self._train(batch, Watch(every_epoch=False))
        for one, network, outcome in zip(batch, networks, outcomes, strict=True):
            if isinstance(outcome, Trained):
                self._save(one, network)
        return networks[batch.index(trial)].eval()

    def keep_checkpoints(self, trials: list[Trial], *, writing: bool = False) -> None:
        """Deletes the checkpoints of all other trials, and what is half-written unless somebody else is `writing`."""
        with self.store.profile.section("checkpoints"):
            kept = {self._checkpoint(trial).name for trial in trials}
            for file in self.folder.checkpoints.iterdir():
                # Files that are not whole yet have hidden names, ours as well as those of safetensors.
                if file.name not in kept and not (writing and file.name.startswith(".")):
                    file.unlink(missing_ok=True)

    def _checkpoint(self, trial: Trial) -> Path:
        return self.folder.checkpoints / f"{trial.key}.safetensors"

    def _save(self, trial: Trial, network: AdaptedNetwork) -> None:
        # The frozen prefix is the source network's and need not be written again.
        with self.store.profile.section("checkpoints"):
            state = {k: v.contiguous().cpu() for k, v in network.state_dict().items() if not k.startswith("prefix.")}
            write_weights(self._checkpoint(trial), state)

    def _record(self, *records: Record) -> None:
        with self.store.profile.section("ledger"):
            self.folder.ledger.add_all(records)

    def measure(self, settings: TrainingSettings) -> Speeds:
        """Speeds of this network on this machine, over a few batches; no weight and no random state changes."""
        images, batch = self.store.images, settings.batch_size
        rows = images.rows["train"][: min(batch, len(images.rows["train"]))]
        pixels = self.store.machine.place(images.seen(rows, 0, self.store.machine.device))
        labels = torch.zeros(len(rows), dtype=torch.long, device=pixels.device)
        network = self.network(Trial(TRADITIONAL, 0, "fine-tuning", 0.0, 0.0, 0, settings))

        def view() -> None:
            images.seen(rows, 0, self.store.machine.device)
            self.store.machine.wait()

        def step() -> None:
            network.train()
            with self.store.machine.autocast():
                logits = network(pixels)
            nn.functional.cross_entropy(logits.float(), labels).backward()
            network.zero_grad(set_to_none=True)
            self.store.machine.wait()

        def forward() -> None:
            network.eval()
            with torch.no_grad(), self.store.machine.autocast(frozen=True):
                network(pixels)
            self.store.machine.wait()

        with self.store.profile.section("measuring"), own_randomness():
            speeds = Speeds(
                training=seconds_of(step) / len(rows),
                view=seconds_of(view) / len(rows),
                forward=seconds_of(forward) / len(rows),
                head=0.004,
            )
        self.store.settle()
        return speeds


def recorded_test(folder: RunFolder, trial: Trial) -> np.ndarray | None:
    """What `Workbench.test` recorded of a trial; None where it was not tested yet."""
    record = folder.ledger.get(_test_key(trial))
    return record.arrays["test"] if record else None


def _test_key(trial: Trial) -> str:
    return f"{TEST}-{trial.key}"


def _arrays(outcome: Trained | TrainingError) -> dict[str, np.ndarray]:
    return {"validation": outcome.validation.astype(np.float32)} if isinstance(outcome, Trained) else {}


def result_of(trial: Trial, record: Record) -> Result:
    """What the search sees of a record."""
    if record.outcome["status"] == "failed":
        return Result(trial, FAILED, math.inf)
    validation = record.outcome["validation"]
    return Result(trial, validation["accuracy"], validation["log_loss"])
