"""The loop that a careful user would write with timm or torchvision today: what study.py compares with.

A DataLoader with two workers (up to eight beside a GPU), torchvision's transforms, float32 in PyTorch's default memory
format and allocator, the
full forward pass at every step, frozen layers without gradients and in evaluation mode, SGD with momentum and a
warm-up cosine. Two switches add our execution plan and our kept pixels, so that each one's share can be seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from inarch.data import DataSet, PixelSize, Views, open_dataset
from inarch.features.machine import Machine
from inarch.features.plan import Plan
from inarch.launch.allocator import keep_memory
from inarch.network.adapted import stage
from inarch.network.source import Source
from inarch.training.schedule import warmup_cosine
from ours import Wanted

# Processes that read images: two, or more where a GPU waits for them and the processor has the cores.
WORKERS = max(2, min(8, len(os.sched_getaffinity(0)) // 2))
HIDDEN = 512
# Rates do not change what a step costs; these let the sampled trials learn.
OLD_RATE, NEW_RATE = 0.001, 0.01
MOMENTUM, WEIGHT_DECAY, WARMUP, LABEL_SMOOTHING = 0.9, 5e-4, 0.1, 0.1
SCALE, RATIO, JITTER = (0.35, 1.0), (3 / 4, 4 / 3), 0.2


@dataclass(frozen=True)
class Switches:
    """plan: allocator, denormals, memory format, precisions and gradients (network/depthwise.py) of Inarch's plan;
    precision `frozen` where no old layer trains, else `trained`. pixels: decoded once, augmented anew."""

    plan: bool = False
    pixels: bool = False
    memory_format: str = "channels_last"
    frozen: str = "fp32"
    trained: str = "fp32"
    device: str = "cpu"

    @property
    def layout(self) -> torch.memory_format:
        """The memory format: PyTorch's default without a plan."""
        channels_last = self.plan and self.memory_format == "channels_last"
        return torch.channels_last if channels_last else torch.contiguous_format

    def autocast(self, *, old_layers_train: bool) -> AbstractContextManager[None]:
        """The context of forward passes: with a plan, as Inarch has it."""
        if not self.plan:
            return nullcontext()
        machine = Machine(self.device, Plan(self.memory_format, self.frozen, self.trained))
        return machine.autocast(frozen=not old_layers_train)


@dataclass(frozen=True)
class Length:
    """epochs: of a trial in full. measured_epochs: those that are run, the first of them."""

    epochs: int
    measured_epochs: int
    batch_size: int


@final
class Files(Dataset[tuple[Tensor, int]]):
    """Image files with labels, decoded at every visit."""

    def __init__(self, files: list[Path], labels: list[int], transform: v2.Transform) -> None:
        self._files, self._labels, self._transform = files, labels, transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        with Image.open(self._files[place]) as image:
            return self._transform(image.convert("RGB")), self._labels[place]


@final
class Joined(nn.Module):
    """A classifier on the source logits and on what the classification layer sees, caught by a hook."""

    def __init__(self, network: nn.Module, layer: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.network, self.classifier = network, nn.Linear(width, classes)
        self._features: Tensor | None = None
        layer.register_forward_pre_hook(self._catch)

    def _catch(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0] if inputs[0].ndim == 2 else inputs[0].mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        assert self._features is not None
        return self.classifier(torch.cat([self._features, logits], dim=1))


def build(source: Source, graft: str, classes: int) -> tuple[nn.Module, list[nn.Parameter]]:
    """The target network of a graft as one would write it by hand, and the parameters of its new layers."""
    network, path = source.network, source.classification_layer
    layer = network.get_submodule(path)
    convolution = isinstance(layer, nn.Conv2d)
    features = layer.in_channels if isinstance(layer, nn.Conv2d) else int(layer.in_features)  # type: ignore[arg-type]
    outputs = len(source.classes)
    if graft == "replace":
        new: nn.Module = nn.Conv2d(features, classes, 1) if convolution else nn.Linear(features, classes)
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, new)
        return network, list(new.parameters())
    if graft == "joined":
        joined = Joined(network, layer, features + outputs, classes)
        return joined, list(joined.classifier.parameters())
    hidden = (nn.Linear(outputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes))
    head = nn.Sequential(*hidden) if graft == "deepen" else nn.Sequential(nn.Linear(outputs, classes))
    return nn.Sequential(network, head), list(head.parameters())


def freeze(network: nn.Module, names: set[str]) -> tuple[list[nn.Parameter], list[nn.Module]]:
    """Frees all parameters but the named ones; returns those that train, and modules to keep in evaluation mode."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in names)
    held = [
        module for path, module in network.named_modules()
        if (own := [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]) and set(own) <= names
    ]  # fmt: skip
    return [p for p in network.parameters() if p.requires_grad], held


@final
class Images:
    """Batches of one data set, from files at every visit or from kept pixels."""

    def __init__(self, manifest: Path, source: Source, switches: Switches, batch_size: int, seed: int) -> None:
        spec = source.input
        self.switches, self._batch_size, self._root = switches, batch_size, manifest.parent
        size = PixelSize(round(spec.height / spec.crop_pct), round(spec.width / spec.crop_pct), spec.interpolation)
        start = time.monotonic()
        self.dataset: DataSet = open_dataset(manifest, seed=seed, keep=size if switches.pixels else None)
        # What is once for a whole study; the plain loop needs no more of it than the list of files.
        self.seconds_once = time.monotonic() - start if switches.pixels else 0.0
        self._view = 0
        self._spec = spec
        normalise = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(spec.mean), list(spec.std))]
        crop = v2.RandomResizedCrop((spec.height, spec.width), scale=SCALE, ratio=RATIO)
        jitter = v2.ColorJitter(JITTER, JITTER, JITTER)
        self._training = v2.Compose([crop, v2.RandomHorizontalFlip(), jitter, *normalise])
        sides = (spec.height, spec.width)
        self._evaluation = v2.Compose([v2.Resize(round(spec.height / spec.crop_pct)), v2.CenterCrop(sides), *normalise])
        self._views = None
        if self.dataset.pixels is not None:
            self._views = Views(self.dataset.pixels, self.dataset.row_digests(), spec)

    def batches(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass: images [batch, 3, height, width] and labels [batch]; training in a new order, with new views."""
        training = split == "train"
        found = self._from_pixels(split, training) if self._views is not None else self._from_files(split, training)
        for images, labels in found:
            yield self.place(images), labels.to(self.switches.device)

    def place(self, images: Tensor) -> Tensor:
        return images.to(self.switches.device, memory_format=self.switches.layout, non_blocking=True)

    def _from_files(self, split: str, training: bool) -> Iterable[tuple[Tensor, Tensor]]:
        items = self.dataset.split(split)
        files = [Path(os.path.normpath(self._root / item.path)) for item in items]
        transform = self._training if training else self._evaluation
        data = Files(files, [item.label for item in items], transform)
        pinned = self.switches.device != "cpu"
        return DataLoader(data, self._batch_size, shuffle=training, num_workers=WORKERS, pin_memory=pinned)

    def _from_pixels(self, split: str, training: bool) -> Iterator[tuple[Tensor, Tensor]]:
        assert self._views is not None
        rows, labels = self.dataset.rows(split), torch.from_numpy(self.dataset.labels(split))
        order = torch.randperm(len(rows)).numpy() if training else np.arange(len(rows))
        self._view += training
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            views = self._views
            if training:
                images = views.training(rows[places], self._view, self.switches.device)
            else:
                images = views.evaluation(rows[places], self.switches.device)
            yield images, labels[places]


def measure(
    wanted: dict[str, Any], trials: list[dict[str, Any]], length: dict[str, int], switches: dict[str, Any]
) -> dict[str, Any]:
    """Trains every trial ({cut, graft}) as far as `length` says: its seconds in full, and the accuracy it got to."""
    asked, how_long = Wanted.from_json(wanted), Length(**length)
    chosen = Switches(**switches, device=asked.options.get("device", "cpu"))
    if chosen.plan:
        keep_memory()
        torch.set_flush_denormal(True)
    images = Images(asked.data, asked.load(), chosen, how_long.batch_size, asked.seed)
    found = []
    for trial in trials:
        torch.manual_seed(asked.seed)
        source = asked.load()
        staged = stage(source.network, source.classification_layer, source.input.example())
        names = {name for name, _ in staged.segment(0, trial["cut"]).named_parameters()}
        found.append(trial | train(source, names, trial["graft"], images, how_long))
    return {"trials": found, "seconds_once": images.seconds_once, "threads": torch.get_num_threads()}


def train(source: Source, names: set[str], graft: str, images: Images, length: Length) -> dict[str, Any]:
    """One trial: seconds of its first epochs, what all of them would take, and the validation accuracy it got to."""
    switches = images.switches
    frozen = {id(p) for name, p in source.network.named_parameters() if name in names}
    network, new = build(source, graft, len(images.dataset.classes))
    own_names = {name for name, p in network.named_parameters() if id(p) in frozen}
    trained, held = freeze(network, own_names)
    network.to(switches.device).to(memory_format=switches.layout)
    is_new = {id(p) for p in new}
    old = [p for p in trained if id(p) not in is_new]
    groups = [{"params": new, "lr": NEW_RATE}, *([{"params": old, "lr": OLD_RATE}] if old else [])]
    optimiser = torch.optim.SGD(groups, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    steps = length.epochs * -(-len(images.dataset.train) // length.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warmup_cosine(step, steps, WARMUP))
    loss_of = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    seconds, accuracy = [], 0.0
    for _ in range(length.measured_epochs):
        start = time.monotonic()
        network.train()
        for module in held:
            module.eval()
        for pixels, labels in images.batches("train"):
            with switches.autocast(old_layers_train=bool(old)):
                logits = network(pixels)
            loss = loss_of(logits.float(), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        accuracy = evaluate(network, images, partial(switches.autocast, old_layers_train=bool(old)))
        seconds.append(time.monotonic() - start)
    return {
        "seconds_of_epochs": seconds,
        "seconds": sum(seconds) / length.measured_epochs * length.epochs,
        "validation_accuracy": accuracy,
    }


def evaluate(network: nn.Module, images: Images, precision: Callable[[], AbstractContextManager[None]]) -> float:
    """Share of the validation images that the network is right on."""
    network.eval()
    right = 0
    with torch.no_grad():
        for pixels, labels in images.batches("validation"):
            with precision():
                right += int((network(pixels).argmax(dim=1) == labels).sum())
    return right / len(images.dataset.validation)
