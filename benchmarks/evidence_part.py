"""One part of the evidence run: trained by the engine of `inarch compare`, chapter by chapter, each trial a record.

What is killed, or stopped by its time limit, loses the trial that it was in; the next call goes on behind the last
record, in the same run folder or, where that is gone, from the part's file.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np

import common
import evidence_design as design
from evidence_design import DRAWS, Part
from evidence_records import CHAPTER, DRAWN, PREFIX, RIGHT, SIMILARITY, WARNING, put_back, read_part, write_part
from evidence_source import Survival, source_classes
from inarch.comparison.benches import Benches
from inarch.environment import same_settings_afterwards
from inarch.errors import UsageError
from inarch.launch.clock import Clock
from inarch.launch.here import TRIAL, Workbench, result_of
from inarch.launch.progress import Progress
from inarch.network.grafts import Configuration
from inarch.network.source import SourceOptions
from inarch.options import StudyOptions
from inarch.preparation import Opened, identity_of, opened
from inarch.profile import Profile
from inarch.results.folder import RunFolder
from inarch.results.ledger import Record
from inarch.results.metrics import classification_metrics
from inarch.search.space import Result, Space
from inarch.search.together import batches
from inarch.training.fit import OutOfTimeError, Watch
from inarch.training.trial import PYTORCH_START, Trial, digest


@dataclass(frozen=True)
class Where:
    """Where a part finds and leaves things. data: its images; others: folders of other data sets. file: its records.
    work: for run folders and stored activations. options: of every study."""

    data: Path
    card: Path
    others: tuple[Path, ...]
    file: Path
    work: Path
    options: StudyOptions
    image_size: int | None = None
    chapters: tuple[str, ...] = design.CHAPTERS


def run_part(part: Part, where: Where, clock: Clock) -> bool:
    """Trains what is missing of a part as far as the time goes and writes its file; whether the part is finished."""
    watch = Watch(clock.deadline(0.0))
    with same_settings_afterwards(), RunFolder(where.work / part.name) as folder:
        if where.file.exists():
            put_back(read_part(where.file), folder, where.file)
        options = replace(where.options, seeds=DRAWS, store=where.work / "store")
        start = opened(
            where.data,
            str(where.card),
            options,
            SourceOptions(image_size=where.image_size),
            folder,
            Progress(),
            Profile(),
        )
        own = {"kind": "evidence", "shots": part.shots, "trials": design.TRIALS, "draws": DRAWS}
        identity = identity_of(start.source, start.dataset, own, options.epochs)
        folder.require_identity(identity)
        about = _about(part, start, folder, identity)
        runner = _Runner(part, where, start, folder, options, watch)
        try:
            for chapter in where.chapters:
                if runner.run(chapter):
                    write_part(where.file, about, folder)
                    common.say(f"{part.name}: {chapter} finished after {clock.passed():.0f} s")
        except OutOfTimeError:
            return False
        finally:
            runner.close()
            if folder.begun:
                write_part(where.file, about, folder)
    return True


def _about(part: Part, start: Opened, folder: RunFolder, identity: dict[str, Any]) -> dict[str, Any]:
    spec, data = start.source.input, start.dataset
    return {
        "part": {"data": part.data, "source": part.source, "shots": part.shots},
        "identity": identity,
        "environment": folder.ledger.get_meta("environment"),
        "image_size": [spec.height, spec.width],
        "stages": [stage.name for stage in start.staged.stages],
        "classes": list(data.classes),
        "labels": data.labels("test").tolist(),
        "counts": {split: len(data.split(split)) for split in ("train", "validation", "test")},
    }


@final
class _Runner:
    """The chapters of a part, in its run folder."""

    def __init__(
        self, part: Part, where: Where, start: Opened, folder: RunFolder, options: StudyOptions, watch: Watch
    ) -> None:
        self._part, self._where, self._start, self._folder = part, where, start, folder
        self._options, self._watch = options, watch
        # No methods are named: which activations are stored must not follow from how many this version knows.
        self._benches = Benches(start, options, (), folder, Progress(), Profile())
        settings = self._benches.settings(part.shots)
        self._space = Space(
            len(start.staged.stages), (), settings, {}, options.seed, DRAWS, shots=part.shots, parts=design.PARTS
        )
        trials = [(Trial.from_json(r.subject), r) for r in folder.ledger.records(TRIAL)]
        self._history: dict[str, Result] = {trial.key: result_of(trial, record) for trial, record in trials}
        self._survival = Survival(where.others, start)

    def close(self) -> None:
        self._benches.close()

    def run(self, chapter: str) -> bool:
        """Everything of a chapter that is missing, and the record that says what belongs to it; False if it is there.

        A chapter that was finished when fewer methods or grafts were known, or in another way, is gone through again.
        """
        self._space = replace(self._space, settings=design.settings_of(chapter, self._space.settings))
        done = {record.subject["chapter"] for record in self._folder.ledger.records(CHAPTER)}
        if lacking := [needed for needed in design.NEEDS.get(chapter, ()) if needed not in done]:
            raise UsageError(
                f"{self._part.name}: {chapter} goes on from {lacking[0]}, which is not finished.",
                f"Name {lacking[0]} too.",
            )
        subject: dict[str, Any] = {
            "chapter": chapter, "asked": design.names(chapter, self._space, self._start.staged),
            "old_layers": design.OLD_LAYERS,
        }  # fmt: skip
        start = self._space.settings.classifier_start
        if start != PYTORCH_START:
            subject["classifier_start"] = start
        key = f"{CHAPTER}-{digest(subject)}"
        if self._folder.ledger.get(key) is not None:
            return False
        self._test([r.trial for r in self._history.values()])  # what was stopped between training and test
        self._rate(design.to_be_rated(chapter, self._space, self._start.staged))
        if chapter == self._where.chapters[0]:
            self._look_at_source_classes()
        while trials := design.following(chapter, self._space, self._start.staged, self._history):
            for batch in batches(self._space, trials):
                missing = tuple(trial for trial in batch if trial.key not in self._history)
                if missing:
                    self._train(missing)
                    self._test(missing)
        if chapter == "warning":
            self._warn()
        self._folder.ledger.add(Record(key, CHAPTER, subject, self._contents(chapter)))
        return True

    def _rate(self, configurations: list[Configuration]) -> None:
        """The rates of new layers from range tests on the tuning draw; each configuration has one."""
        rates = dict(self._space.rates)
        for configuration in configurations:
            self._watch.check()
            bench = self._benches.bench(self._part.shots, self._space.seed)
            rates[configuration] = bench.new_layer_rate(
                configuration, self._space.settings, self._space.deepest(configuration), self._space.seed,
                self._part.shots,
            )  # fmt: skip
        self._space = replace(self._space, rates=rates)

    def _train(self, batch: tuple[Trial, ...]) -> None:
        self._watch.check()
        bench = self._benches.bench(self._part.shots, batch[0].seed)
        for result in bench.run(batch, replace(self._watch, every_epoch=False)):
            self._history[result.trial.key] = result
        if not batch[0].seed:
            bench.keep_checkpoints([])  # tuning reads no test image, so nobody asks for these weights

    def _test(self, trials: Sequence[Trial]) -> None:
        """Tests the trials on draws that are not tested yet, and deletes their weights."""
        bench = None
        for trial in trials:
            tested = self._folder.ledger.get(PREFIX[DRAWN] + trial.key) is not None
            if trial.seed and not tested and self._history[trial.key].accuracy >= 0:
                self._watch.check()
                bench = self._benches.bench(self._part.shots, trial.seed)
                self._record_draw(bench, trial)
        if bench is not None:
            bench.keep_checkpoints([])

    def _record_draw(self, bench: Workbench, trial: Trial) -> None:
        start, labels = time.monotonic(), bench.store.images.labels["test"]
        probabilities = bench.test(trial)
        metrics = classification_metrics(probabilities, labels)
        outcome = {
            "test": {name: metrics[name] for name in ("accuracy", "log_loss", "calibration_error")},
            # Where no old layer trained, all of it is there still.
            "survival": self._survival.of(bench, trial) if trial.learning_rate else None,
        }
        right = np.packbits(probabilities.argmax(axis=1) == labels)
        key, seconds = PREFIX[DRAWN] + trial.key, time.monotonic() - start
        self._folder.ledger.add(Record(key, DRAWN, trial.to_json(), outcome, {RIGHT: right}, seconds))

    def _look_at_source_classes(self) -> None:
        if self._folder.ledger.get(SIMILARITY) is None:
            start, bench = time.monotonic(), self._benches.bench(self._part.shots, self._space.seed)
            rows = source_classes(bench, self._start)
            seconds = time.monotonic() - start
            self._folder.ledger.add(Record(SIMILARITY, SIMILARITY, {}, {"classes": rows}, {}, seconds))

    def _warn(self) -> None:
        """Trains contestants on the first draw once more with the test split in place of the validation split.

        In a run folder of its own, so that nothing of it can be chosen: each epoch's accuracy on test images is what
        the best epoch would have been picked by.
        """
        wanted = design.warned(self._space, self._start.staged, self._history)
        # What the part depends on, and its machine: a folder of other images or another source answers nothing.
        identity = {**self._folder.ledger.get_meta("identity"), "environment": self._folder.environment}
        with RunFolder(self._where.work / f"{self._part.name}-warning") as folder:
            if not folder.begun:
                folder.keep_environment(self._folder.environment)
            folder.require_identity({**identity, "kind": "warning"})
            benches = Benches(self._start, self._options, (), folder, Progress(), Profile(), validated_on="test")
            with closing(benches):
                for trial in wanted.values():
                    self._record_warning(benches, folder, trial)

    def _record_warning(self, benches: Benches, folder: RunFolder, trial: Trial) -> None:
        key = PREFIX[WARNING] + trial.key
        if self._folder.ledger.get(key) is not None:
            return
        self._watch.check()
        bench = benches.bench(self._part.shots, trial.seed)
        if folder.ledger.get(trial.key) is None:
            bench.run((trial,), self._watch)
            bench.keep_checkpoints([])
        record = folder.ledger.get(trial.key)
        assert record is not None
        epochs = [epoch["validation_accuracy"] for epoch in record.outcome.get("epochs", [])]
        self._folder.ledger.add(Record(key, WARNING, trial.to_json(), {"epochs": epochs}, {}, record.seconds))

    def _contents(self, chapter: str) -> dict[str, Any]:
        """What belongs to a chapter, by the keys of its trials."""
        space, staged, history = self._space, self._start.staged, self._history
        if chapter == "rates":
            rows = design.at_rates(space)
            return {
                "rates": [
                    {
                        "name": str(c),
                        "multiple": m,
                        "rate": some[0].new_layer_learning_rate,
                        "draws": [t.key for t in some],
                    }
                    for c, m, some in rows
                ]
            }
        if chapter == "depth":
            rows_at = design.at_cuts(space, staged, history)
            return {"cuts": [{"name": n, "cut": k, "draws": [t.key for t in some]} for n, k, some in rows_at]}
        if chapter == "warning":
            return {"trials": {name: trial.key for name, trial in design.warned(space, staged, history).items()}}
        found = design.compared(design.everybody(chapter, space, staged), space, history)
        return {"contestants": {name: [trial.key for trial in some] for name, some in found.items()}}
