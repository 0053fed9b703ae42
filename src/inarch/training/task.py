"""What a trial tells its method."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from inarch.features.store import PrefixStore
from inarch.methods import Task
from inarch.network.adapted import AdaptedNetwork
from inarch.network.graft import Activations
from inarch.network.layers import match_scales
from inarch.training.order import Course
from inarch.training.schedule import warmup_cosine
from inarch.training.trial import Trial


def task_of(trial: Trial, cut: int, course: Course, store: PrefixStore) -> Task:
    """The task of a trial whose network reads activations at `cut`."""
    labels = torch.from_numpy(store.images.labels["train"]).to(store.machine.device)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for positions in course.batches[epoch]:
            yield store.read(cut, "train", positions, course.views[epoch]), labels[positions]

    return Task(
        seed=trial.seed,
        epochs=trial.settings.epochs,
        steps=course.steps,
        classes=store.images.classes,
        labels=labels,
        schedule=lambda step, steps: warmup_cosine(step, steps, trial.settings.warmup),
        autocast=store.machine.autocast,
        # Kept nowhere: no room was set aside for this view of the training split.
        evaluation=lambda: store.once(cut, "train"),
        batches=batches,
        tick=lambda: store.tick(),
    )


def start_graft(network: AdaptedNetwork, store: PrefixStore, seed: int) -> None:
    """Lets the graft take the initial values that follow from the training images, where it has such.

    seed: of the trial, however many trainings it consists of: all of them begin with these values.
    """
    labels = torch.from_numpy(store.images.labels["train"]).to(store.machine.device)
    network.graft.start(partial(_seen, network, store), labels, seed)
    start_scales(network, store)


def start_scales(network: AdaptedNetwork, store: PrefixStore, most: int | None = None) -> None:
    """Starts the scales of harmonising layers that are matched to the training images, where the graft has such.

    most: about how many of the images are looked at, the first ones; None for all.
    """
    match_scales(network.graft, partial(_seen, network, store, most))


def _seen(network: AdaptedNetwork, store: PrefixStore, most: int | None = None) -> Iterator[Activations]:
    """What the graft sees of the evaluation view of the training images, in chunks, until `most` were seen."""
    training, seen = network.training, 0
    network.eval()
    with torch.no_grad(), store.machine.autocast():
        for stored in store.once(network.stored_cut, "train"):
            store.tick()
            yield network.graft_inputs(stored)
            seen += len(stored)
            if most is not None and seen >= most:
                break
    network.train(training)
