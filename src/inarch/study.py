"""The story of a study: from a folder of labelled images and a source network to an adapted network with evidence.

Readable from `fit` downwards: what is opened, what is searched, what is confirmed, what is written.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inarch.command import command
from inarch.data import DataSet
from inarch.errors import UsageError
from inarch.evidence import SOURCE_PASS, write_evidence
from inarch.features.store import PrefixStore
from inarch.launch.clock import Clock
from inarch.launch.here import RANGE, TRIAL, Workbench
from inarch.launch.progress import Progress
from inarch.launch.runner import TrialRunner
from inarch.model import Delivered, write_model
from inarch.network.adapted import stage
from inarch.network.source import Source, SourceOptions, load_source
from inarch.options import StudyOptions, cut_indices, require_method, space_of
from inarch.outcome import Outcome
from inarch.preparation import (
    as_images,
    keeping,
    open_images,
    planned_machine,
    recorded_environment,
    same_threads_afterwards,
)
from inarch.profile import Profile
from inarch.report import write_report
from inarch.results.folder import RunFolder
from inarch.results.unknown import Known, measured
from inarch.training.trial import TrainingSettings


def fit(
    data: Path,
    source: str,
    out: Path,
    options: StudyOptions,
    source_options: SourceOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Runs or continues the study of a data set and returns what `results.json` holds.

    Errors that a user can cause are `InarchError`s; what was computed before one stays in the run folder.
    """
    clock, profile = Clock(options.time_limit), Profile()
    if out.resolve().is_relative_to(data.resolve()):
        raise UsageError(f"--out {out} lies inside the data set {data}.", "Choose a folder outside of it.")
    with same_threads_afterwards(), RunFolder(out) as folder, ExitStack() as open_store:
        environment = recorded_environment(folder, options, progress)
        with profile.section("source network"):
            loaded = load_source(source, source_options, announce=progress.announce)
            by_hand = options.stages or None
            staged = stage(loaded.network, loaded.classification_layer, loaded.input.example(), by_hand)
            # A mistake in them must not decide what the run folder is.
            cut_indices(options.cuts, staged)
            require_method(options, staged)
        with profile.section("reading images"):
            dataset = open_images(data, loaded, options, folder, progress)
        with profile.section("measuring"):
            machine = planned_machine(folder, environment, loaded, staged, options, progress)
        settings = options.settings(len(dataset.train), machine.plan)
        folder.require_identity(identity_of(loaded, dataset, options, settings))
        images = as_images(dataset, loaded, settings)
        kept = keeping(staged, images, loaded, settings, options, folder, progress)
        store = PrefixStore(staged, images, machine, kept)
        open_store.callback(store.close)
        store.profile = profile
        bench = Workbench(staged, loaded.network, store, folder)
        with profile.section("search and estimates"):
            runner = TrialRunner(bench, space_of(options, staged, settings), clock, progress)
            runner.run()
            runner.require_enough()
        outcome = Outcome(runner.space, runner.history, staged, dataset, bench.store.images.labels["test"], bench.test)
        results = outcome.to_json() | {
            "source": {"name": loaded.name, "digest": loaded.digest, "classes": len(loaded.classes)},
            "settings": asdict(settings) | {"seed": options.seed, "seeds": options.seeds},
            "left_out": runner.left_out(),
        }
        first = outcome.chosen.results[0].trial
        known = Known.of(bench.validation(first), images.labels["validation"], dataset.classes)
        results["unknown"] = measured(known, bench.test(first), images.labels["test"], dataset.classes)
        network = bench.restore(first)
        delivered = Delivered(network, dataset.classes, options.stages, machine.plan, known, bench.source_weights)
        with profile.section("model and report"):
            write_model(folder.path / "model", loaded, delivered)
            # Right before the results: a report must not show the errors of one model beside the figures of another.
            write_evidence(bench, outcome, dataset, loaded.classes)
            results["cost"] = cost(folder, clock, runner.trained, profile) | {
                "command": command(data, source, options, source_options)
            }
            folder.write_json("results.json", results)
            write_report(folder.path)
        # Once more, for the profile to hold the time that all this took.
        results["cost"]["profile"] = profile.seconds()
        file = folder.write_json("results.json", results)
        written: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return written


def identity_of(source: Source, dataset: DataSet, options: StudyOptions, settings: TrainingSettings) -> dict[str, Any]:
    """Everything that a run folder's results depend on, but for the machine."""
    return {
        "source": source.name,
        "source digest": source.digest,
        "source arguments": dict(source.card.arguments),
        "classification layer": source.classification_layer,
        "python file": source.card.python.digest if source.card.python else None,
        "adapted": source.card.adapted,
        "data digest": dataset.digest,
        "image size": [source.input.height, source.input.width],
        "input": source.input.to_card(),
        **options.identity(),
        "epochs": settings.epochs,
    }


def cost(folder: RunFolder, clock: Clock, trained: int, profile: Profile) -> dict[str, Any]:
    """All that may differ between identical runs; `trained`: trials of this call, `profile`: where its time went."""
    trials = folder.ledger.records(TRIAL)
    return {
        "seconds": clock.passed(),
        "training_seconds": sum(r.seconds for r in trials),
        "range_test_seconds": sum(r.seconds for r in folder.ledger.records(RANGE)),
        "source_pass_seconds": sum(r.seconds for r in folder.ledger.records(SOURCE_PASS)),
        "trials": len(trials),
        "trials_this_call": trained,
        "profile": profile.seconds(),
        "environment": folder.ledger.get_meta("environment"),
    }
