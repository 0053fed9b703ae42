"""What a study opens before its first trial: the machine as recorded, and the images as the network wants them."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from inarch import __version__
from inarch.data import SPLITS, DataSet, PixelSize, Views, open_dataset
from inarch.errors import UsageError
from inarch.features.machine import Machine
from inarch.features.place import default_limit, readable, store_folder
from inarch.features.plan import PRECISIONS, Plan, require_precision
from inarch.features.shelf import Shelf
from inarch.features.store import MEMORY, Images, Keeping
from inarch.features.what_to_store import Demand, cuts_to_store
from inarch.launch.allocator import keep_memory
from inarch.launch.beside import can_fork
from inarch.launch.memory import numbers_within_budget, within_budget
from inarch.launch.plan import Decision, candidates, measured_plan, measured_workers
from inarch.launch.progress import Progress
from inarch.launch.remembered import remembered, this_processor
from inarch.methods import make_method
from inarch.network.adapted import stage
from inarch.network.source import Source, SourceOptions, load_source
from inarch.network.stages import Stages
from inarch.options import AUTO, StudyOptions, chosen_device, cut_indices, require_method
from inarch.plural import counted
from inarch.profile import Profile
from inarch.report.words import plan_sentence
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


def recorded_environment(folder: RunFolder, options: StudyOptions, progress: Progress) -> dict[str, Any]:
    """Device, threads and plan of this run: those of its first trial, since they change the numbers.

    Before that one the plan is still to come (`planned_machine`): a call that ended earlier decides nothing.
    """
    kept = keep_memory()
    environment = folder.environment
    versions = {"inarch": __version__} | {n: version(n) for n in ("torch", "torchvision", "timm", "numpy")}
    if environment is None:
        environment = {
            "device": chosen_device(options.device),
            "threads": options.threads or torch.get_num_threads(),
            "versions": versions,
            "processor": platform.machine(),
            "store_limit": _store_limit(options),
            "allocator_keeps_memory": kept,
        }
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
    elif options.store_limit not in (None, environment.get("store_limit")):
        raise UsageError(
            f"--store-limit {readable(options.store_limit or 0)}: this run was begun with "
            f"{readable(environment.get('store_limit') or 0)}.",
            "Leave --store-limit away to go on, or choose another --out.",
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
    if options.precision != AUTO:
        remedy = "Leave --precision away, or give fp32."
        require_precision({options.precision}, environment["device"], f"--precision {options.precision}", remedy)
    return dict(environment)


def planned_machine(
    folder: RunFolder, environment: dict[str, Any], source: Source, staged: Stages, options: StudyOptions,
    progress: Progress, *, side_by_side: bool,
) -> Machine:  # fmt: skip
    """The machine with the execution plan of this run: the recorded one, or one that is measured now or was before."""
    device = chosen_device(environment["device"])
    if "plan" not in environment:
        decision = _decided(environment, source, staged, options, progress)
        environment["plan"] = (decision if side_by_side else replace(decision, workers=1)).to_json()
        folder.keep_environment(environment)
        progress.announce(plan_sentence(environment["plan"]))
    decision = Decision.from_json(environment["plan"])
    plan, workers = decision.plan, decision.workers
    require_precision(
        plan.precisions, device, "This run was begun in bf16",
        "Go on with it where it was begun, or choose another --out.",
    )  # fmt: skip
    machine = Machine(device, plan, environment["threads"] // workers, workers)
    # Also for what is not done side by side: last bits must not depend on which process computed them.
    torch.set_num_threads(machine.threads)
    return machine


def _decided(
    environment: dict[str, Any], source: Source, staged: Stages, options: StudyOptions, progress: Progress
) -> Decision:
    device, batch = chosen_device(environment["device"]), options.batch_size
    example = source.input.example(batch)
    subject = this_processor(device) | {
        "threads": environment["threads"],
        "allocator_keeps_memory": environment["allocator_keeps_memory"],
        "torch": version("torch"),
        "network": source.digest,
        "input": [source.input.channels, source.input.height, source.input.width],
        "batch_size": batch,
        "precision": options.precision,
    }

    def measure() -> Decision:
        progress.note("Measuring which memory format and which precision are fastest here.")
        runners = candidates(device, PRECISIONS if options.precision == AUTO else (options.precision,))
        again = {}
        for precision in dict.fromkeys(precision for _, precision in runners):
            try:
                again[precision] = bounded(Plan(trained=precision)).recomputed
            except RuntimeError:  # an operation of this network has no version for this precision
                if precision == runners[0][1]:
                    raise
        able = [runner for runner in runners if runner[1] in again]
        decision = measured_plan(source.network, staged, example, device, able, again)
        if not can_fork(device):
            return decision
        threads, plan = environment["threads"], decision.plan
        numbers = numbers_within_budget(plan, source.network, staged, example, device, threads)
        workers = measured_workers(plan, source.network, staged, example, threads, numbers) if numbers else 1
        return replace(decision, workers=workers)

    def bounded(plan: Plan) -> Plan:
        return within_budget(plan, source.network, staged, example, device)

    found = remembered(subject, measure, progress.announce)
    return replace(found, plan=bounded(found.plan))


def _store_limit(options: StudyOptions) -> int:
    return default_limit(store_folder(options.store)) if options.store_limit is None else options.store_limit


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


@contextmanager
def same_settings_afterwards() -> Iterator[None]:
    """A study sets its own number of threads, flushes denormals, and computes on GPUs the same way every time, in TF32
    where PyTorch does so by default; the program that called it gets its own settings back."""
    threads = torch.get_num_threads()
    flushed = float(torch.tensor(1e-308, dtype=torch.float64) / 10) == 0.0
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    products = torch.get_float32_matmul_precision()
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, True
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before
        torch.set_float32_matmul_precision(products)
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)


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
