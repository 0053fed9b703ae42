"""What a study opens before its first trial: the source network, and the images as the network wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inarch.data import SPLITS, DataSet, PixelSize, Views, open_dataset
from inarch.environment import planned_machine, recorded_environment
from inarch.errors import UsageError
from inarch.features.machine import Machine
from inarch.features.place import store_folder
from inarch.features.shelf import Shelf
from inarch.features.store import MEMORY, Images, Keeping
from inarch.features.what_to_store import Demand, cuts_to_store
from inarch.launch.progress import Progress
from inarch.methods import make_method
from inarch.network.adapted import stage
from inarch.network.source import Source, SourceOptions, load_source
from inarch.network.stages import Stages, require_cut
from inarch.options import StudyOptions, cut_indices, require_method
from inarch.plural import counted
from inarch.profile import Profile
from inarch.results.folder import RunFolder
from inarch.training.trial import TrainingSettings


@dataclass(frozen=True)
class Opened:
    """What every trial of a run is made from."""

    source: Source
    staged: Stages
    dataset: DataSet
    machine: Machine


def opened(
    data: Path, source: str, options: StudyOptions, source_options: SourceOptions, folder: RunFolder,
    progress: Progress, profile: Profile, *, side_by_side: bool = False,
) -> Opened:  # fmt: skip
    """Opens source network, images and machine, in an order in which a mistake of the user is found early.

    side_by_side: whether whoever runs the trials can train several at once.
    """
    environment = recorded_environment(folder, options, progress)
    with profile.section("source network"):
        loaded = load_source(source, source_options, announce=progress.announce)
        by_hand = options.stages or None
        staged = stage(loaded.network, loaded.classification_layer, loaded.input.example(), by_hand)
        require_cut(staged, options.stages, loaded.classification_layer)
        # A mistake in them must not decide what the run folder is.
        cut_indices(options.cuts, staged)
        require_method(options, staged)
    with profile.section("reading images"):
        dataset = open_images(data, loaded, options, folder, progress)
    with profile.section("measuring"):
        machine = planned_machine(folder, environment, loaded, staged, options, progress, side_by_side=side_by_side)
    return Opened(loaded, staged, dataset, machine)


def identity_of(source: Source, dataset: DataSet, options: Mapping[str, Any], epochs: int | None) -> dict[str, Any]:
    """Everything that a run folder's results depend on, but for the machine; `options` are those that count."""
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
        **options,
        "epochs": epochs,
    }


def require_apart(out: Path, data: Path) -> None:
    """A run folder inside the data set would be taken for images of it."""
    if out.resolve().is_relative_to(data.resolve()):
        raise UsageError(f"--out {out} lies inside the data set {data}.", "Choose a folder outside of it.")


def keeping(
    staged: Stages, images: Images, source: Source, settings: TrainingSettings, options: StudyOptions,
    folder: RunFolder, progress: Progress, methods: Sequence[str] = (),
) -> Keeping:  # fmt: skip
    """What of the activations is stored, and where: decided by sizes, the study, and its own limit.

    methods: of a comparison, in place of the study's.
    """
    trainings = max(len(make_method(name).seeds(options.seed, True)) for name in methods or (options.method,))
    demand = Demand(
        training=len(images.rows["train"]),
        evaluated=sum(len(images.rows[split]) for split in ("validation", "test")),
        views=settings.distinct_views * trainings * (1 + options.seeds),
        epochs=settings.epochs,
        item=2 if settings.stored_precision == "bf16" else 4,
    )
    card = source.card
    environment = folder.ledger.get_meta("environment")
    limit: int = environment["store_limit"]
    # Where a training step saves memory, more segments are read from their files: a matter of cost alone.
    memory = MEMORY // 4 if environment["plan"].get("recomputed") else MEMORY
    return Keeping(
        cuts_to_store(staged.stages, demand, limit),
        settings.stored_precision,
        Shelf(store_folder(options.store), limit),
        memory,
        source={
            "network": card.network,
            "arguments": dict(card.arguments),
            "python": card.python.digest if card.python else None,
        },
        about=source.name,
        announce=progress.announce,
    )


def open_images(data: Path, source: Source, options: StudyOptions, folder: RunFolder, progress: Progress) -> DataSet:
    """The data set with its images decoded once, large enough for every view; what is wrong with it is announced."""
    dataset = read_images(data, pixel_size(source, folder.path), options, progress)
    announce_findings(dataset, progress)
    return dataset


def pixel_size(source: Source, folder: Path | None = None) -> PixelSize:
    """What decoded images must cover for every view of a source; `folder` as in `PixelSize`."""
    wanted = source.input
    height, width = round(wanted.height / wanted.crop_pct), round(wanted.width / wanted.crop_pct)
    return PixelSize(height, width, wanted.interpolation, folder=folder)


def read_images(data: Path, size: PixelSize, options: StudyOptions, progress: Progress) -> DataSet:
    """The data set with its images decoded to cover a size."""
    return open_dataset(data, seed=options.seed, max_pixels=options.max_pixels, keep=size, progress=progress.images)


def announce_findings(dataset: DataSet, progress: Progress) -> None:
    """Says what is wrong with a data set."""
    for warning in dataset.warnings:
        progress.announce(warning)
    if dataset.set_aside:
        files = counted(len(dataset.set_aside), "file was", "files were")
        progress.announce(f"{files} set aside; `inarch check` says which and why.")


def as_images(dataset: DataSet, source: Source, settings: TrainingSettings) -> Images:
    """The data set as the training loop wants it."""
    assert dataset.pixels is not None
    return Images(
        Views(dataset.pixels, dataset.row_digests(), source.input, settings.augmentation),
        {split: dataset.rows(split) for split in SPLITS},
        {split: dataset.labels(split) for split in SPLITS},
        len(dataset.classes),
        {split: tuple(item.digest for item in dataset.split(split)) for split in SPLITS},
        {"input": source.input.to_card(), "augmentation": settings.augmentation.to_json()},
    )
