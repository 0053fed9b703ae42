"""Inarch as study.py and the other benchmarks call it; each function here runs in a process of its own."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, final
from unittest import mock

import numpy as np
import torch

import inarch
import inarch.study
from inarch.data import Augmentation, open_dataset
from inarch.launch.here import Workbench
from inarch.launch.progress import Progress
from inarch.network.adapted import stage
from inarch.network.grafts import Configuration
from inarch.network.source import Source, SourceOptions, load_source
from inarch.options import StudyOptions
from inarch.preparation import Opened, opened
from inarch.search.space import Space
from inarch.training.fit import Watch
from inarch.training.trial import TrainingSettings, Trial

HIDDEN = 512
Found = TypeVar("Found")


def study(manifest: str, card: str, run: str, options: dict[str, Any]) -> dict[str, Any]:
    """A whole study: its seconds, its choice as `results.json` says it, and what it trained."""
    start = time.monotonic()
    results = inarch.fit(manifest, source=card, out=run, **options)
    return {
        "seconds": time.monotonic() - start,
        "chosen": results["chosen"],
        "validation_standard_error": results["validation_standard_error"],
        "test": {role: found["accuracy"] for role, found in results["test"].items()},
        "left_out": len(results["left_out"]),
        "cost": results["cost"],
    }


@dataclass(frozen=True)
class Wanted:
    """Data, source and options, as a study takes them.

    options: fields of `StudyOptions` that are not its defaults. colour_jitter: None for the default. pretrained: None
    for weights where a card has them, and random ones for a network that a library names, since no hub is asked.
    """

    data: Path
    source: str
    seed: int = 0
    image_size: int | None = None
    colour_jitter: float | None = None
    options: dict[str, Any] = field(default_factory=dict)
    pretrained: bool | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Wanted:
        """From what a benchmark hands to a child process."""
        return cls(Path(values["data"]), **{name: value for name, value in values.items() if name != "data"})

    def source_options(self) -> SourceOptions:
        has_weights = self.source.endswith(".json")
        return SourceOptions(
            image_size=self.image_size, pretrained=has_weights if self.pretrained is None else self.pretrained
        )

    def load(self) -> Source:
        return load_source(self.source, self.source_options(), announce=lambda _: None)


@final
@dataclass(frozen=True)
class _Options(StudyOptions):
    """A study's options with colour jitter of our own, which the command line does not have."""

    colour_jitter: float | None = None

    def settings(self, *given: Any, **named: Any) -> TrainingSettings:
        usual = super().settings(*given, **named)
        if self.colour_jitter is None:
            return usual
        return replace(usual, augmentation=Augmentation(colour_jitter=self.colour_jitter))


class _DoneError(Exception):
    """Ends a study that was set up for single trials."""


def in_study(wanted: Wanted, folder: Path, work: Callable[[Workbench, TrainingSettings], Found]) -> Found:
    """What `work` gives, done where a study would begin to search: everything is set up as `inarch fit` does it.

    `work` gets the bench and what all trials share; trials are run one after the other, with all threads. What a call
    that was stopped left in `folder` is thrown away, or half of the work would seem to take no time.
    """
    shutil.rmtree(folder, ignore_errors=True)
    found: list[Found] = []

    def in_place_of_the_search(bench: Workbench, space: Space, *_: Any) -> None:
        found.append(work(bench, space.settings))
        raise _DoneError

    options = _Options(**wanted.options, seed=wanted.seed, colour_jitter=wanted.colour_jitter)

    def one_at_a_time(*given: Any, **named: Any) -> Opened:
        return opened(*given, **named | {"side_by_side": False})

    with (
        mock.patch.object(inarch.study, "TrialRunner", in_place_of_the_search),
        mock.patch.object(inarch.study, "opened", one_at_a_time),
    ):
        try:
            inarch.study.fit(wanted.data, wanted.source, folder, options, wanted.source_options(), Progress())
        except _DoneError:
            return found[0]
    raise AssertionError("a study ended without searching")


def facts(wanted: dict[str, Any]) -> dict[str, Any]:
    """What a grid follows from: the share of the forward pass before each cut, and the numbers of images."""
    asked = Wanted.from_json(wanted)
    source = asked.load()
    staged = stage(source.network, source.classification_layer, source.input.example())
    dataset = open_dataset(asked.data, seed=asked.seed)
    shares = np.cumsum([0.0, *(one.cost for one in staged.stages)])
    counts = {split: len(dataset.split(split)) for split in ("train", "validation", "test")}
    return {"frozen_shares": [round(float(share), 6) for share in shares], "counts": counts}


def trial_of(graft: str, cut: int, seed: int, settings: TrainingSettings, rates: tuple[float, float]) -> Trial:
    """A trial without harmonising, at given rates (old, new)."""
    configuration = Configuration(graft, "none", (HIDDEN,) if graft == "deepen" else ())
    return Trial(configuration, cut, "fine-tuning", rates[0], rates[1], seed, settings)


def stored_trials(wanted: dict[str, Any], run: str, cuts: list[int], grafts: list[str]) -> dict[str, Any]:
    """Two trials in full at every cut: the first fills the store for that cut, the second only reads it."""
    found = []
    asked = Wanted.from_json(wanted)
    for cut in cuts:

        def both(bench: Workbench, settings: TrainingSettings, cut: int = cut) -> list[tuple[float, float]]:
            return [timed(bench, trial_of(graft, cut, asked.seed + 1, settings, (0.001, 0.01))) for graft in grafts]

        # A run and a store of its own for every cut: else one finds what another has filled.
        cache = Path(run) / f"cut-{cut}-cache"
        shutil.rmtree(cache, ignore_errors=True)
        os.environ["INARCH_CACHE"] = str(cache)
        (first, _), (again, accuracy) = in_study(asked, Path(run) / f"cut-{cut}", both)
        found.append({"cut": cut, "grafts": grafts, "first": first, "again": again, "accuracy": accuracy})
        # Gigabytes, which nothing reads again.
        shutil.rmtree(cache, ignore_errors=True)
    return {"trials": found, "threads": torch.get_num_threads()}


def timed(bench: Workbench, trial: Trial) -> tuple[float, float]:
    """Seconds of a trial, and its validation accuracy."""
    start = time.monotonic()
    accuracy = bench.run([trial], Watch())[0].accuracy
    return time.monotonic() - start, accuracy
