"""One ordinary fine-tuning of all layers, by Inarch and by the tools that it is compared with.

Each as its documentation tells a user, on the same folder of class folders (`train`, `val`, `test`), with the same
weights, batch, epochs and augmentation (random-resized crop and flip), SGD with momentum, and two loading processes, up
to eight where there are more processors. Peers in float32, their default; Inarch on the plan that it measures. A
contestant is a function of a `Job` that trains and gives its network back for the test; the clock runs from the first
look at the images to the end of the last epoch, validation after every epoch included.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from inarch.features.machine import Machine
from inarch.launch.here import Workbench
from inarch.training.fit import Watch
from inarch.training.trial import TrainingSettings
from job import Finished, Job, evaluation, test
from ours import Wanted, in_study, trial_of
from plain import LABEL_SMOOTHING, MOMENTUM, RATIO, SCALE, WEIGHT_DECAY, WORKERS
from roofline import Work, fastest_product

WARMUP = 0.1
WARM_STEPS, RANDOM_STEPS = 3, 30


def fine_tune(contestant: str, **values: Any) -> dict[str, Any]:
    """Seconds, images a second and test accuracy of one contestant."""
    job = Job(images=Path(values.pop("images")), run=Path(values.pop("run")), **values)
    torch.manual_seed(job.seed)
    job.loaded.network.train()  # loaded before the clock runs
    start = time.monotonic()
    finished = CONTESTANTS[contestant](job)
    trained = len(job.files("train"))
    seconds = [after - before for before, after in pairwise([start, *finished.stamps])]
    later = seconds[1:] or seconds
    return {
        "seconds": finished.stamps[-1] - start,
        "seconds_of_epochs": seconds,
        "images_per_second": trained * job.epochs / (finished.stamps[-1] - start),
        "images_per_second_later": trained * len(later) / sum(later),
        "test_accuracy": test(finished.network, job),
        "threads": torch.get_num_threads(),
    } | finished.extra  # fmt: skip


def with_inarch(job: Job) -> Finished:
    """Our one training loop, as a trial of a study runs it."""
    options = {"epochs": job.epochs, "batch_size": job.batch_size, "device": job.device}
    wanted = Wanted(job.images, job.source, job.seed, job.image_size, job.colour_jitter, options)
    steps: list[float] = []

    def work(bench: Workbench, settings: TrainingSettings) -> Finished:
        trial = trial_of("replace", 0, job.seed, settings, (job.rate, job.rate))
        bench.run([trial], Watch(progress=lambda step, total: steps.append(time.monotonic())))
        an_epoch = len(steps) // job.epochs
        stamps = [*steps[an_epoch - 1 : -1 : an_epoch], time.monotonic()]
        network = bench.restore(trial)
        speeds = {
            "images_per_second_steps_later": step_speed(steps, job.epochs, len(job.files("train")), job.batch_size),
            "images_per_second_from_random_tensors": from_random_tensors(network, bench.store.machine, job),
            "operations_an_image": operations_an_image(job),
            "operations_per_second_of_products": fastest_product(job.device),
        }
        return Finished(_Placed(network, bench.store.machine), stamps, speeds)

    return in_study(wanted, job.run, work)


@final
class _Placed(nn.Module):
    """A network that sees images as our loop gives them."""

    def __init__(self, network: nn.Module, machine: Machine) -> None:
        super().__init__()
        self.network, self.machine = network, machine

    def forward(self, images: Tensor) -> Tensor:
        with self.machine.autocast():
            return self.network(self.machine.place(images)).float()


def step_speed(steps: list[float], epochs: int, images: int, batch_size: int) -> float:
    """Images a second between the first and the last step of an epoch, from the second epoch on: validation is not in
    it. steps: when each step of all epochs ended, in seconds."""
    an_epoch = len(steps) // epochs
    starts = range(an_epoch if epochs > 1 else 0, len(steps), an_epoch)
    seconds = sum(steps[start + an_epoch - 1] - steps[start] for start in starts)
    return (images - batch_size) * len(starts) / seconds


def from_random_tensors(network: nn.Module, machine: Machine, job: Job) -> float:
    """Images a second of the bare training step on random tensors in memory: the most that any loader gives.

    The network is as before behind it: normalisation layers learn the statistics of whatever they see in training.
    """
    before = {name: value.clone() for name, value in network.state_dict().items()}
    spec = job.loaded.input
    images = machine.place(torch.randn(job.batch_size, spec.channels, spec.height, spec.width))
    labels = torch.zeros(job.batch_size, dtype=torch.long, device=images.device)
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=0.0,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        fused=True,  # as our loop has it
    )
    network.train()
    start = time.monotonic()
    for step in range(-WARM_STEPS, RANDOM_STEPS):
        if step == 0:
            start = time.monotonic()
        with machine.autocast():
            logits = network(images)
        loss = nn.functional.cross_entropy(logits.float(), labels, label_smoothing=LABEL_SMOOTHING)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        loss.item()
    seconds = time.monotonic() - start
    network.load_state_dict(before)
    return job.batch_size * RANDOM_STEPS / seconds


def operations_an_image(job: Job) -> float:
    """Multiplications and additions of a training step of all layers."""
    images = job.loaded.input.example(2)
    with Work() as work:
        job.network().train()(images).sum().backward()
    return work.operations / len(images)


def with_timm(job: Job) -> Finished:
    """timm's data set, loader, optimiser, schedule and step, as its training script puts them together."""
    from timm.data import create_dataset, create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    spec, device = job.loaded.input, torch.device(job.device)
    network = job.network().to(device)
    common: dict[str, Any] = {
        "input_size": (spec.channels, spec.height, spec.width), "batch_size": job.batch_size, "mean": spec.mean,
        "std": spec.std, "interpolation": spec.interpolation, "num_workers": WORKERS, "device": device,
    }  # fmt: skip
    sets = {
        split: create_dataset("", root=str(job.images), split=folder, is_training=split == "train")
        for split, folder in (("train", "train"), ("validation", "val"))
    }
    loader = create_loader(
        sets["train"], is_training=True, scale=SCALE, ratio=RATIO, color_jitter=job.colour_jitter, **common
    )
    validation = create_loader(sets["validation"], is_training=False, crop_pct=spec.crop_pct, **common)
    optimiser = create_optimizer_v2(network, opt="sgd", lr=job.rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    schedule, _ = create_scheduler_v2(
        optimiser, sched="cosine", num_epochs=job.epochs, warmup_epochs=0, step_on_epochs=False,
        updates_per_epoch=len(loader),
    )  # fmt: skip
    loss_of = LabelSmoothingCrossEntropy(LABEL_SMOOTHING)  # type: ignore[no-untyped-call]
    stamps: list[float] = []
    updates = 0
    for _ in range(job.epochs):
        network.train()
        for images, labels in loader:
            optimiser.zero_grad()
            loss_of(network(images.to(device)), labels.to(device)).backward()
            optimiser.step()
            updates += 1
            schedule.step_update(num_updates=updates)
        network.eval()
        with torch.inference_mode():
            for images, labels in validation:
                (network(images.to(device)).argmax(dim=1) == labels.to(device)).sum().item()
        stamps.append(time.monotonic())
    return Finished(network, stamps)


def with_fastai(job: Job) -> Finished:
    """fastai's data loaders and Learner with a one-cycle schedule, as its vision tutorial does it."""
    from fastai.vision import all as vision

    spec = job.loaded.input
    stamps: list[float] = []
    dls = vision.ImageDataLoaders.from_folder(
        job.images, train="train", valid="val", bs=job.batch_size, num_workers=WORKERS, vocab=job.classes(),
        item_tfms=vision.RandomResizedCrop((spec.height, spec.width), min_scale=SCALE[0], ratio=RATIO),
        batch_tfms=[vision.Flip(), vision.Normalize.from_stats(spec.mean, spec.std, cuda=job.device != "cpu")],
        device=torch.device(job.device),
    )  # fmt: skip

    class Stamp(vision.Callback):  # type: ignore[misc]
        def after_epoch(self) -> None:
            stamps.append(time.monotonic())

    learner = vision.Learner(
        dls, job.network(), loss_func=vision.CrossEntropyLossFlat(label_smoothing=LABEL_SMOOTHING),
        opt_func=partial(vision.SGD, mom=MOMENTUM, wd=WEIGHT_DECAY), metrics=vision.accuracy, cbs=[Stamp()],
    )  # fmt: skip
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(job.epochs, job.rate, pct_start=WARMUP, moms=(MOMENTUM,) * 3)
    return Finished(learner.model, stamps)


def with_trainer(job: Job) -> Finished:
    """transformers' Trainer on a `datasets` data set with transforms, as its image classification guide does it."""
    import transformers
    from datasets import Dataset, Image

    spec = job.loaded.input
    stamps: list[float] = []
    plain = [
        v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(spec.mean), list(spec.std))
    ]  # fmt: skip
    crop = v2.RandomResizedCrop((spec.height, spec.width), scale=SCALE, ratio=RATIO)
    transforms = {"train": v2.Compose([crop, v2.RandomHorizontalFlip(), *plain]), "val": evaluation(job)}

    def data(split: str) -> Any:
        files, labels = zip(*job.files(split), strict=True)
        found = Dataset.from_dict({"image": list(map(str, files)), "label": list(labels)}).cast_column("image", Image())

        def transformed(examples: dict[str, Any]) -> dict[str, Any]:
            pixels = [transforms[split](image.convert("RGB")) for image in examples["image"]]
            return {"pixel_values": pixels, "labels": examples["label"]}

        return found.with_transform(transformed)

    class Stamp(transformers.TrainerCallback):
        def on_evaluate(self, *_: Any, **__: Any) -> None:
            stamps.append(time.monotonic())

    network = _WithLoss(job.network())
    arguments = transformers.TrainingArguments(
        output_dir=str(job.run), num_train_epochs=job.epochs, per_device_train_batch_size=job.batch_size,
        per_device_eval_batch_size=64, eval_strategy="epoch", save_strategy="no", logging_strategy="no",
        report_to="none", learning_rate=job.rate, lr_scheduler_type="cosine", warmup_steps=WARMUP, disable_tqdm=True,
        dataloader_num_workers=WORKERS, remove_unused_columns=False, seed=job.seed, use_cpu=job.device == "cpu",
    )  # fmt: skip
    optimiser = torch.optim.SGD(network.parameters(), lr=job.rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    trainer = transformers.Trainer(
        network, arguments, train_dataset=data("train"), eval_dataset=data("val"), optimizers=(optimiser, None),
        callbacks=[Stamp()],
    )  # fmt: skip
    trainer.train()
    return Finished(network.network, stamps)


@final
class _WithLoss(nn.Module):
    """What Trainer asks of a network of one's own: the loss first, where labels are given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.network(pixel_values)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING), "logits": logits}


# What a contestant needs beside the packages of the project.
NEEDS = {"inarch": (), "timm": (), "fastai": ("fastai",), "huggingface": ("transformers", "accelerate", "datasets")}
CONTESTANTS: dict[str, Callable[[Job], Finished]] = {
    "inarch": with_inarch, "timm": with_timm, "fastai": with_fastai, "huggingface": with_trainer,
}  # fmt: skip
