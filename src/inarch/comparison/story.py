"""The story of a comparison: from images and a source network to a table of methods with intervals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from inarch.command import command
from inarch.comparison.benches import Benches
from inarch.comparison.design import contestants, expected, tuning
from inarch.comparison.options import CompareOptions
from inarch.comparison.outcome import FORMAT, mean_ranks, of_size, sentence
from inarch.comparison.runner import DrawRunner
from inarch.environment import enough_memory, same_settings_afterwards
from inarch.errors import UsageError
from inarch.launch.clock import Clock
from inarch.launch.here import RANGE, TRIAL, recorded_test
from inarch.launch.progress import Progress
from inarch.network.source import SourceOptions
from inarch.options import require
from inarch.plural import counted
from inarch.preparation import Opened, identity_of, opened, require_apart
from inarch.profile import Profile, peak_memory
from inarch.report import write_report
from inarch.results.comparison import COMPARISON
from inarch.results.folder import RunFolder
from inarch.search.space import Space, Track
from inarch.training.trial import Trial


def compare(
    data: Path, source: str, out: Path, options: CompareOptions, source_options: SourceOptions, progress: Progress
) -> dict[str, Any]:
    """Runs or continues a comparison and returns what `comparison.json` holds.

    Errors that a user can cause are `InarchError`s; what was computed before one stays in the run folder.
    """
    study = options.study
    clock, profile = Clock(study.time_limit), Profile()
    require_apart(out, data)
    with same_settings_afterwards(), enough_memory(), RunFolder(out) as folder:
        start = opened(data, source, study, source_options, folder, progress, profile)
        folder.require_identity(identity_of(start.source, start.dataset, options.identity(), study.epochs))
        _say_what_is_short(options.shots, start, progress)
        with closing(Benches(start, study, options.methods, folder, progress, profile)) as benches:
            spaces = [_space(options, start, benches, shots, progress) for shots in options.shots]
            runner = DrawRunner(spaces, options.trials, folder, benches, clock, progress)
            runner.run()
            runner.require_enough()
            sizes = [(space, _size(options, runner, space, start, benches, folder)) for space in runner.spaces]
        spaces, found = zip(*((space, size) for space, size in sizes if size is not None), strict=True)
        results = {
            "format": FORMAT,
            "sentence": sentence(found),
            "dataset": _dataset_json(start),
            "source": {"name": start.source.name, "digest": start.source.digest},
            "settings": {"trials": options.trials, "seed": study.seed, "seeds": study.seeds, **study.additions()},
            "sizes": list(found),
            "ranks": mean_ranks(found),
            "left_out": [str(trial) for trial in runner.left_out],
            "cost": {
                "seconds": clock.passed(),
                "trials": len(folder.ledger.records(TRIAL)),
                "training_seconds": sum(r.seconds for r in folder.ledger.records(TRIAL)),
                "range_test_seconds": sum(r.seconds for r in folder.ledger.records(RANGE)),
                "trials_this_call": runner.trained,
                "peak_memory_bytes": peak_memory(),
                "contestants": [_spent(options, runner, space, folder) for space in spaces],
                "environment": folder.ledger.get_meta("environment"),
                "command": command(data, source, study, source_options, "compare", options.own()),
                "profile": profile.seconds(),
            },
        }
        file = folder.write_json(COMPARISON, results)
        write_report(folder.path)
        written: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return written


def _say_what_is_short(shots: Sequence[int], start: Opened, progress: Progress) -> None:
    """Names draws that are larger than some classes: these give all that they have."""
    images = Counter(start.dataset.labels("train").tolist())
    for number in shots:
        if few := sum(count < number for count in images.values()):
            every = counted(len(images), "class", "classes")
            progress.announce(
                f"--shots {number}: {few} of {every} have fewer training images, and give all that they have."
            )


def _space(options: CompareOptions, start: Opened, benches: Benches, shots: int, progress: Progress) -> Space:
    """Every combination of method and configuration that makes sense, with rates that stand for those to be found."""
    tracks, refused = [], {}
    for method in options.methods:
        for configuration in options.study.configurations():
            try:
                require(method, configuration, start.staged)
                tracks.append(Track(configuration, method))
            except UsageError as error:
                refused[method, configuration.graft] = error.problem
    if shots == options.shots[0]:
        for problem in dict.fromkeys(refused.values()):
            progress.announce(f"Left out: {problem}")
    if not tracks:
        raise UsageError("None of the methods can be used with any of the grafts.", "`inarch methods` lists methods.")
    study = options.study
    space = Space(
        len(start.staged.stages), tuple(tracks), benches.settings(shots), {}, study.seed, study.seeds, study.search,
        shots,
    )  # fmt: skip
    return replace(space, rates={track.configuration: 1.0 for track in space.tracks})


def _size(
    options: CompareOptions, runner: DrawRunner, space: Space, start: Opened, benches: Benches, folder: RunFolder
) -> dict[str, Any] | None:
    """What is reported of draws of one size; None where time ended before the reference was trained on one."""
    compared = runner.compared(space)
    if not compared:
        return None

    def probabilities(trial: Trial) -> np.ndarray:
        # Trained draws are tested already: a workbench for each would be opened for nothing.
        recorded = recorded_test(folder, trial)
        return benches.bench(trial.shots, trial.seed).test(trial) if recorded is None else recorded

    test = start.dataset.labels("test")
    found = of_size(
        compared, test, probabilities, start.staged,
        runner.history,
    )  # fmt: skip
    tuned_with = {c.name: len(tuning(c, space, options.trials)) for c in contestants(space)}
    for row in found["contestants"]:
        row["tuning_trials"] = tuned_with[row["name"]]
    images = benches.bench(space.shots, space.seed).store.images
    counts = {split: len(images.rows[split]) for split in ("train", "validation", "test")}
    finished = not expected(space, options.trials, runner.history)
    return {
        "shots": space.shots or None,
        "counts": counts,
        "finished": finished,
        "failed": runner.failed(space),
        **found,
    }


def _spent(options: CompareOptions, runner: DrawRunner, space: Space, folder: RunFolder) -> dict[str, float]:
    """Seconds of all trials of each contestant, with draws of one size; those that two share count for both."""
    seconds = {record.key: record.seconds for record in folder.ledger.records(TRIAL)}
    compared = runner.compared(space)
    trials = {c.name: [*tuning(c, space, options.trials), *compared.get(c.name, [])] for c in contestants(space)}
    return {name: sum(seconds.get(trial.key, 0.0) for trial in some) for name, some in trials.items()}


def _dataset_json(start: Opened) -> dict[str, Any]:
    data = start.dataset
    return {
        "classes": list(data.classes),
        "counts": {split: len(data.split(split)) for split in ("train", "validation", "test")},
        "digest": data.digest,
        "set_aside": [{"path": s.path, "reason": s.reason} for s in data.set_aside],
        "warnings": list(data.warnings),
    }
