"""The machine as a run records it: device, threads, versions and execution plan, which its numbers depend on."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch

from inarch import __version__
from inarch.errors import TrainingError, UsageError
from inarch.features.machine import Machine
from inarch.features.place import default_limit, readable, store_folder
from inarch.features.plan import PRECISIONS, Plan, require_precision
from inarch.launch.allocator import keep_memory
from inarch.launch.beside import can_fork
from inarch.launch.memory import numbers_within_budget, within_budget
from inarch.launch.plan import Decision, candidates, measured_plan, measured_workers
from inarch.launch.progress import Progress
from inarch.launch.remembered import remembered, this_processor
from inarch.network.source import Source
from inarch.network.stages import Stages
from inarch.options import AUTO, StudyOptions, chosen_device
from inarch.report.words import plan_sentence
from inarch.results.folder import RunFolder


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


@contextmanager
def enough_memory() -> Iterator[None]:
    """`TrainingError` in place of PyTorch's own where an accelerator has too little memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "The device has too little memory for this network and batch: " + str(error).partition("\n")[0],
            "End what else uses it and call again, which goes on from there; or begin anew with another --out and a "
            "smaller --batch-size or --image-size, or --device cpu.",
        ) from error


@contextmanager
def same_settings_afterwards() -> Iterator[None]:
    """A study sets its own number of threads, flushes denormals, and lets cuDNN compute the same way every time, in
    TF32 where PyTorch does so by default; the program that called it gets its own settings back.

    On a GPU that makes two runs of a convolutional network equal bit for bit. Of operations that PyTorch itself adds up
    in no fixed order (the backward passes of attention, of adaptive pooling over uneven windows) last bits may differ.
    """
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
