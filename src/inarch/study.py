"""The story of a study: from a folder of labelled images and a source network to an adapted network with evidence.

Readable from `fit` downwards: what is opened, what is searched, what is confirmed, what is written.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from inarch.command import command
from inarch.environment import enough_memory, same_settings_afterwards
from inarch.evidence import SOURCE_PASS, write_evidence
from inarch.features.store import PrefixStore
from inarch.launch.clock import Clock
from inarch.launch.here import RANGE, TRIAL, Workbench
from inarch.launch.progress import Progress
from inarch.launch.runner import TrialRunner
from inarch.model import Delivered, write_model
from inarch.network.source import SourceOptions
from inarch.options import StudyOptions, space_of
from inarch.outcome import Outcome
from inarch.preparation import as_images, identity_of, keeping, opened, require_apart
from inarch.profile import Profile, peak_memory
from inarch.report import write_report
from inarch.results.folder import RunFolder
from inarch.results.unknown import Known, measured


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
    require_apart(out, data)
    with same_settings_afterwards(), enough_memory(), RunFolder(out) as folder, ExitStack() as open_store:
        start = opened(data, source, options, source_options, folder, progress, profile, side_by_side=True)
        loaded, staged, dataset, machine = start.source, start.staged, start.dataset, start.machine
        settings = options.settings(len(dataset.train), machine.plan)
        folder.require_identity(identity_of(loaded, dataset, options.identity(), settings.epochs))
        images = as_images(dataset, loaded, settings)
        kept = keeping(staged, images, loaded, settings, options, folder, progress)
        store = PrefixStore(staged, images, machine, kept)
        open_store.callback(store.close)
        store.profile = profile
        bench = Workbench(staged, loaded.network, store, folder)
        with profile.section("search and estimates"):
            space = space_of(options, staged, settings, dataset.labels("validation"))
            runner = TrialRunner(bench, space, clock, progress)
            runner.run()
            runner.require_enough()
        outcome = Outcome(runner.space, runner.history, staged, dataset, bench.store.images.labels["test"], bench.test)
        results = outcome.to_json() | {
            "source": {"name": loaded.name, "digest": loaded.digest, "classes": len(loaded.classes)},
            "settings": settings.to_json() | {"seed": options.seed, "seeds": options.seeds},
            "left_out": runner.left_out(),
        }
        first = outcome.chosen.results[0].trial
        known = Known.of(bench.validation(first), images.labels["validation"], dataset.classes)
        results["unknown"] = measured(known, bench.test(first), images.labels["test"], dataset.classes)
        network = bench.restore(first)
        delivered = Delivered(network, dataset.classes, options.stages, machine.plan, known, bench.source_weights)
        with profile.section("model and evidence"):
            write_model(folder.path / "model", loaded, delivered)
            # Right before the results: a report must not show the errors of one model beside the figures of another.
            write_evidence(bench, outcome, dataset, loaded.classes)
            results["cost"] = cost(folder, clock, runner.trained, profile) | {
                "command": command(data, source, options, source_options)
            }
        # The page shows this profile, so drawing it comes after.
        results["cost"]["profile"] = profile.seconds()
        file = folder.write_json("results.json", results)
        write_report(folder.path)
        written: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return written


def cost(folder: RunFolder, clock: Clock, trained: int, profile: Profile) -> dict[str, Any]:
    """All that may differ between identical runs; `trained`: trials of this call, `profile`: where its time went."""
    trials, memory = folder.ledger.records(TRIAL), peak_memory()
    return {
        "seconds": clock.passed(),
        "training_seconds": sum(r.seconds for r in trials),
        "range_test_seconds": sum(r.seconds for r in folder.ledger.records(RANGE)),
        "source_pass_seconds": sum(r.seconds for r in folder.ledger.records(SOURCE_PASS)),
        "trials": len(trials),
        "trials_this_call": trained,
        "peak_memory_bytes": None if memory is None else memory + profile.memory_beside,
        "profile": profile.seconds(),
        "environment": folder.ledger.get_meta("environment"),
    }
