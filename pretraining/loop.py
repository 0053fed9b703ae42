"""The training of a recipe: one loop that saves itself, what it leaves behind, and how many steps an hour holds."""

from __future__ import annotations

import hashlib
import itertools
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from formulas import source_classes
from inarch.network.weights import write_weights
from recipe import Recipe, write_json
from stream import Batch, scaled, training_batches, validation_batches

WEIGHTS, CLASSES, CARD, RECORD = "weights.safetensors", "classes.json", "card.json", "record.json"
CHECKPOINT = "checkpoint.pt"
# Eight of each class.
VALIDATION_IMAGES = 2560
# Steps between two checkpoints; how many points the curve has, and the least steps between two of them.
CHECKPOINT_STEPS = 250
POINTS = 20
LEAST_APART = 50
# To turn hours into steps: steps that are not timed, and those that are.
WARMING, TIMED = 20, 160


@final
@dataclass(frozen=True)
class Place:
    """Where a run computes. stop_after: a step behind which it stops, as if it had been killed after saving."""

    device: torch.device
    workers: int
    stop_after: int | None = None


@final
@dataclass
class Progress:
    """How far a run is. seconds: in all calls. loss: summed over the `counted` steps since the curve's last point."""

    step: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    counted: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)


@final
class Training:
    """Network, optimiser and schedule of a recipe."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        network: Any = recipe.network().to(device)
        self.network: nn.Module = network.to(memory_format=torch.channels_last)
        self.optimiser = create_optimizer_v2(
            self.network, "sgd", lr=recipe.rate, weight_decay=recipe.weight_decay, momentum=recipe.momentum
        )
        self.schedule = CosineLRScheduler(
            self.optimiser, recipe.steps, t_in_epochs=False, warmup_t=min(recipe.warm_up, recipe.steps // 10)
        )
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)

    def step(self, number: int, batch: Batch) -> float:
        """One step at the rate of its number; the loss."""
        images, labels = batch
        self.schedule.step_update(number)
        self.network.train()
        with self._autocast():
            logits = self.network(scaled(images, self.device))
        loss: Tensor = self.loss(logits.float(), labels.to(self.device))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

    def accuracies(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Top-1 and top-5 accuracy, 0 to 1, in evaluation mode."""
        self.network.eval()
        right = {1: 0, 5: 0}
        with torch.no_grad(), self._autocast():
            for images, labels in batches:
                best = self.network(scaled(images, self.device)).topk(5, dim=1).indices.cpu()
                for k in right:
                    right[k] += int((best[:, :k] == labels[:, None]).sum())
        total = sum(len(labels) for _, labels in batches)
        return {"accuracy": round(right[1] / total, 4), "top5": round(right[5] / total, 4)}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def save(self, file: Path, progress: Progress) -> None:
        """Written beside and renamed, so that a kill leaves the last checkpoint or this one."""
        beside = file.with_suffix(".part")
        state = {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}
        torch.save(state | {"progress": vars(progress)}, beside)
        beside.replace(file)

    def load(self, file: Path) -> Progress:
        """How far the run is whose checkpoint this is; at its beginning where there is none."""
        if not file.exists():
            return Progress()
        held = torch.load(file, map_location=self.device, weights_only=True)
        self.network.load_state_dict(held["network"])
        self.optimiser.load_state_dict(held["optimiser"])
        return Progress(**held["progress"])


def train(folder: Path, recipe: Recipe, place: Place) -> bool:
    """Trains to the last step, from the last checkpoint on; whether it came to the last. Writes what it leaves."""
    start = time.monotonic()
    training = Training(recipe, place.device)
    progress = training.load(folder / CHECKPOINT)
    start -= progress.seconds
    validation = validation_batches(recipe, VALIDATION_IMAGES, place.workers) if progress.step < recipe.steps else []
    every = max(LEAST_APART, recipe.steps // POINTS)
    for batch in training_batches(recipe, progress.step, place.workers):
        progress.loss += training.step(progress.step, batch)
        progress.step, progress.counted = progress.step + 1, progress.counted + 1
        at_point = progress.step % every == 0 or progress.step == recipe.steps
        if at_point:
            loss = round(progress.loss / progress.counted, 4)
            progress.curve.append({"step": progress.step, "training_loss": loss} | training.accuracies(validation))
            progress.loss, progress.counted = 0.0, 0
            print(f"{progress.curve[-1]} after {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        stopping = progress.step == place.stop_after
        if at_point or stopping or progress.step % CHECKPOINT_STEPS == 0:
            progress.seconds = time.monotonic() - start
            training.save(folder / CHECKPOINT, progress)
        if stopping:
            return False
    if not (folder / RECORD).exists():
        export(folder, training)
        write_json(folder / RECORD, record(recipe, progress, place, folder / WEIGHTS))
    return True


def export(folder: Path, training: Training) -> None:
    """Weights (matrices and filters as float16), class names and card: a source network for Inarch."""
    kept = {
        name: tensor.detach().cpu().contiguous().to(torch.float16 if tensor.dim() > 1 else tensor.dtype)
        for name, tensor in training.network.state_dict().items()
    }
    write_weights(folder / WEIGHTS, kept)
    write_json(folder / CLASSES, [formula.name for formula in source_classes()])
    write_json(folder / CARD, training.recipe.card(WEIGHTS, CLASSES))


def record(recipe: Recipe, progress: Progress, place: Place, weights: Path) -> dict[str, Any]:
    """What is written down about a finished run and the weights that it left."""
    on_gpu = place.device.type == "cuda"
    return {
        "recipe": recipe.to_json(),
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "classes": len(source_classes()),
        "images": recipe.steps // recipe.passes * recipe.batch_size,
        "validation_images": VALIDATION_IMAGES,
        "cost": {
            "seconds": round(progress.seconds),
            "threads": torch.get_num_threads(),
            "workers": place.workers,
            "device": torch.cuda.get_device_name(place.device) if on_gpu else platform.machine(),
            "torch": torch.__version__,
        },
        "curve": progress.curve,
    }


def steps_in(hours: float, recipe: Recipe, place: Place) -> int:
    """How many steps fit into so many hours here, as measured over real steps that are thrown away."""
    trial = replace(recipe, steps=WARMING + TIMED)
    training = Training(trial, place.device)
    start = 0.0
    for step, batch in enumerate(itertools.islice(training_batches(trial, 0, place.workers), trial.steps)):
        if step == WARMING:
            start = time.monotonic()
        training.step(step, batch)
    return max(1, round(hours * 3600 * TIMED / (time.monotonic() - start)))
