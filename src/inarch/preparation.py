"""What a study opens before its first trial: the machine as recorded, and the images as the network wants them."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch

from inarch import __version__
from inarch.data import SPLITS, DataSet, PixelSize, Views, open_dataset
from inarch.errors import UsageError
from inarch.features.machine import Machine
from inarch.features.store import Images
from inarch.launch.progress import Progress
from inarch.network.source import Source
from inarch.options import StudyOptions, chosen_device
from inarch.results.folder import RunFolder
from inarch.training.trial import TrainingSettings


def recorded_machine(folder: RunFolder, options: StudyOptions, progress: Progress) -> Machine:
    """Device, precision and threads of this run: those of its first call, since they change the numbers.

    A call that failed before it was known what the run is decides nothing.
    """
    environment = folder.ledger.get_meta("environment") if folder.begun else None
    versions = {"inarch": __version__} | {n: version(n) for n in ("torch", "torchvision", "timm", "numpy")}
    if environment is None:
        environment = {
            "device": chosen_device(options.device),
            "precision": options.precision,
            "threads": options.threads or torch.get_num_threads(),
            "versions": versions,
            "processor": platform.machine(),
        }
        folder.ledger.set_meta("environment", environment)
    elif options.threads not in (None, environment["threads"]):
        raise UsageError(
            f"--threads {options.threads}: this run was begun with {environment['threads']}.",
            "Leave --threads away to go on, or choose another --out.",
        )
    elif options.device not in ("auto", environment["device"]):
        raise UsageError(
            f"--device {options.device}: this run was begun on {environment['device']}.",
            "Leave --device away to go on, or choose another --out.",
        )
    changed = [
        f"{n} {environment['versions'][n]} (now {v})" for n, v in versions.items() if environment["versions"][n] != v
    ]
    if changed:
        progress.announce(
            f"This run was begun with {', '.join(changed)}: new trials may differ slightly from old ones."
        )
    torch.set_num_threads(environment["threads"])
    # Momentum of units that no longer learn decays into denormal numbers, which processors work on many times slower.
    torch.set_flush_denormal(True)
    return Machine(chosen_device(environment["device"]), environment["precision"], environment["threads"])


@contextmanager
def same_threads_afterwards() -> Iterator[None]:
    """A study sets its own number of threads and flushes denormals; the program that called it gets its own back."""
    threads = torch.get_num_threads()
    flushed = float(torch.tensor(1e-308, dtype=torch.float64) / 10) == 0.0
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)


def open_images(data: Path, source: Source, options: StudyOptions, folder: RunFolder, progress: Progress) -> DataSet:
    """The data set with its images decoded once, large enough for every view."""
    wanted = source.input
    size = PixelSize(
        round(wanted.height / wanted.crop_pct), round(wanted.width / wanted.crop_pct), wanted.interpolation,
        folder=folder.path,
    )  # fmt: skip
    dataset = open_dataset(data, seed=options.seed, max_pixels=options.max_pixels, keep=size, progress=progress.images)
    for warning in dataset.warnings:
        progress.announce(warning)
    if dataset.set_aside:
        progress.announce(f"{len(dataset.set_aside)} files were set aside; `inarch check` names them.")
    return dataset


def as_images(dataset: DataSet, source: Source, settings: TrainingSettings) -> Images:
    """The data set as the training loop wants it."""
    assert dataset.pixels is not None
    return Images(
        Views(dataset.pixels, dataset.row_digests(), source.input, settings.augmentation),
        {split: dataset.rows(split) for split in SPLITS},
        {split: dataset.labels(split) for split in SPLITS},
        len(dataset.classes),
    )
