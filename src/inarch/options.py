"""What a user asks of a study, checked before any work: the same words as on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inarch.data import AUGMENTATIONS
from inarch.errors import UsageError
from inarch.features.plan import PRECISIONS, Plan
from inarch.methods import Method, make_method, method_class
from inarch.network.grafts import DEFAULT_GRAFTS, Configuration, Deepen, configurations, graft_class
from inarch.network.layers import HARMONISERS
from inarch.network.stages import Stages
from inarch.search.space import SEARCHES, Space, Track
from inarch.training.mixing import require_bearable
from inarch.training.schedule import default_epochs
from inarch.training.trial import TrainingSettings

# The precision that is measured to be the fastest, within what training bears.
AUTO = "auto"
# Options of the training loop that add something to the usual training, whatever the method.
ADDITIONS = ("augmentation", "mixup", "ema")


@dataclass(frozen=True)
class StudyOptions:
    """Everything `fit` takes beside data, source and run folder.

    cuts: indices or names of stages, `none` for index 0, or the one word `all`; empty: they are searched. hidden: sizes
    of new hidden layers, one tuple a variant; empty: each graft has its own. epochs: None follows the number of
    training images. search: how cuts and rates are looked for, see `inarch.search.space`. stages: modules at whose end
    a network that cannot be traced may be cut. time_limit: seconds for this call, not part of the study. threads: None
    takes as many as there are. precision: of all arithmetic; auto: what is measured to be fastest, for frozen and for
    trained stages. augmentation: what views are made by, see `inarch.data.augmentation`. mixup: alpha, 0 for none. ema:
    decay of the average of the weights, 0 for none. views: of each training image, 0 for a fresh one every epoch.
    classifier_start: factor on the initial weights of new classifiers, see `inarch.training.trial`.
    stored_precision: of frozen activations. store: folder of stored activations, None for that of the user's cache.
    store_limit: bytes that the study may take there, None for a share of disk and memory.
    """

    grafts: tuple[str, ...] = DEFAULT_GRAFTS
    harmonise: tuple[str, ...] = ("none", "l2")
    hidden: tuple[tuple[int, ...], ...] = ()
    cuts: tuple[str, ...] = ()
    method: str = "fine-tuning"
    search: str = "halving"
    seeds: int = 3
    seed: int = 0
    epochs: int | None = None
    batch_size: int = 32
    optimiser: str = "sgd"
    label_smoothing: float = 0.1
    balance: str = "none"
    augmentation: str = "crop-flip"
    mixup: float = 0.0
    ema: float = 0.0
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    views: int = 8
    classifier_start: float = TrainingSettings.classifier_start
    stored_precision: str = "bf16"
    store: Path | None = None
    store_limit: int | None = None
    max_pixels: int = 100_000_000
    stages: tuple[str, ...] = ()
    time_limit: float | None = None

    def __post_init__(self) -> None:
        if not self.grafts or not self.harmonise:
            raise UsageError("No graft or no way to harmonise is left to try.", "Name at least one of each.")
        unknown = [h for h in self.harmonise if h not in HARMONISERS]
        if unknown:
            raise UsageError(f"--harmonise {unknown[0]} is not known.", f"Choose from: {', '.join(HARMONISERS)}.")
        for sizes in self.hidden:
            if not 1 <= len(sizes) <= 3 or min(sizes) < 1:
                raise UsageError(f"--hidden {','.join(map(str, sizes))} is not one to three sizes above 0.", "Try 512.")
        for name, low in (
            ("seeds", 1), ("seed", 0), ("batch_size", 2), ("max_pixels", 1), ("views", 0), ("store_limit", 0),
        ):  # fmt: skip
            if getattr(self, name) is not None and getattr(self, name) < low:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)} is too small.", f"Least: {low}.")
        if self.seed > 2**31:
            raise UsageError(f"--seed {self.seed} is too large.", f"Most: {2**31}.")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads {self.threads} is too small.", "Least: 1.")
        if self.time_limit is not None and self.time_limit <= 0:
            raise UsageError("--time-limit must be longer than nothing.", "Try 20m.")
        if self.precision not in (AUTO, *PRECISIONS):
            known = ", ".join((AUTO, *PRECISIONS))
            raise UsageError(f"--precision {self.precision} is not known.", f"Choose from: {known}.")
        if self.stored_precision not in PRECISIONS:
            raise UsageError(
                f"--stored-precision {self.stored_precision} is not known.", f"Choose from: {', '.join(PRECISIONS)}."
            )
        if self.search not in SEARCHES:
            raise UsageError(f"--search {self.search} is not known.", f"Choose from: {', '.join(SEARCHES)}.")
        if self.augmentation not in AUGMENTATIONS:
            raise UsageError(
                f"--augmentation {self.augmentation} is not known.", f"Choose from: {', '.join(AUGMENTATIONS)}."
            )
        self.configurations()
        self.require_bearable(method_class(self.method))

    def configurations(self) -> tuple[Configuration, ...]:
        """Every configuration of the proposal."""
        return configurations(self.grafts, self.harmonise, self.hidden)

    def settings(self, training_images: int, plan: Plan) -> TrainingSettings:
        """What all trials share, for a data set of that size and what was decided about precision."""
        return TrainingSettings(
            epochs=default_epochs(training_images, self.batch_size) if self.epochs is None else self.epochs,
            batch_size=self.batch_size,
            optimiser=self.optimiser,
            weight_decay=5e-4 if self.optimiser == "sgd" else 0.05,
            label_smoothing=float(self.label_smoothing),
            balance=self.balance,
            precision=plan.trained,
            frozen_precision=plan.frozen,
            views=self.views,
            stored_precision=self.stored_precision,
            augmentation=AUGMENTATIONS[self.augmentation],
            mixup=float(self.mixup),
            ema=float(self.ema),
            classifier_start=float(self.classifier_start),
        )

    def additions(self) -> dict[str, Any]:
        """What was added to the usual training, as `settings` name it, and nothing else."""
        settings = self.settings(2, Plan()).to_json()
        return {name: settings[name] for name in ADDITIONS if getattr(self, name) != getattr(StudyOptions, name)}

    def require_bearable(self, method: type[Method]) -> None:
        """`UsageError` where the method cannot be trained with these settings."""
        require_bearable(method, self.settings(2, Plan()))

    def identity(self) -> Mapping[str, Any]:
        """What must stay the same when a run folder is used again; the time limit and the store's folder may change."""
        left_out = ("time_limit", "threads", "device", "store", "store_limit")
        # Additions are left out where they are not made: run folders from before them go on.
        usual = [name for name in ADDITIONS if getattr(self, name) == getattr(StudyOptions, name)]
        kept = {name: value for name, value in self.__dict__.items() if name not in (*left_out, *usual)}
        if not self.hidden and all(graft_class(g) is Deepen or not graft_class(g).most for g in self.grafts):
            # What run folders say that were begun when deepen alone had sizes.
            kept["hidden"] = Deepen.sizes
        return kept


def chosen_device(name: str) -> str:
    """`auto` is CUDA where PyTorch offers it, else the processor."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).cpu()  # there and back: some devices of PyTorch hold no data
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"--device {name} cannot be used: {str(error).splitlines()[0]}", "Try --device cpu."
        ) from error
    return name


def cut_indices(cuts: tuple[str, ...], staged: Stages) -> tuple[int, ...] | None:
    """Cuts by index, from indices and names; None where none are given and all are searched."""
    if not cuts:
        return None
    names = {"none": 0} | {stage.name: stage.index for stage in staged.stages}
    if "all" in cuts:
        return tuple(range(len(staged.stages) + 1))
    found = []
    for cut in cuts:
        if cut.isdecimal() and int(cut) <= len(staged.stages):
            found.append(int(cut))
        elif cut in names:
            found.append(names[cut])
        else:
            raise UsageError(
                f"--cuts {cut}: the network has no such stage.",
                f"Give numbers from 0 to {len(staged.stages)} or names: {', '.join(names)}.",
            )
    return tuple(sorted(set(found)))


def require_method(options: StudyOptions, staged: Stages) -> None:
    """Raises `UsageError` where the method makes no sense for this source network or for one of the grafts."""
    for configuration in options.configurations():
        require(options.method, configuration, staged)


def require(method: str, configuration: Configuration, staged: Stages) -> None:
    """Raises `UsageError` where the method, or the graft, makes no sense for this source network or for one another."""
    graft_class(configuration.graft).require([stage.output_shape for stage in staged.stages])
    make_method(method).require(configuration, staged)


def space_of(
    options: StudyOptions, staged: Stages, settings: TrainingSettings, validation: npt.NDArray[np.integer[Any]]
) -> Space:
    """Every track of the proposal that can be cut somewhere, with rates that stand for those of the range tests.

    validation: labels of the validation images, numbers of classes from 0.
    """
    space = Space(
        len(staged.stages), (), settings, {}, options.seed, options.seeds, options.search, validation=len(validation),
        guessing=float(np.bincount(validation).max() / len(validation)),
    )  # fmt: skip
    proposal = tracks_of(options, space, cut_indices(options.cuts, staged))
    if not proposal:
        deepest_only = method_class(options.method).deepest_only
        where = f"{options.method} stands at the deepest cut: " if deepest_only else "Cuts go up to "
        raise UsageError(
            f"--cuts {','.join(options.cuts)} leaves no cut for {', '.join(options.grafts)}.",
            f"{where}{space.stages - 1} for a graft that replaces the classification layer, {space.stages} for others.",
        )
    space = replace(space, proposal=proposal)
    return replace(space, rates={track.configuration: 1.0 for track in space.tracks})


def tracks_of(options: StudyOptions, space: Space, cuts: tuple[int, ...] | None) -> tuple[Track, ...]:
    """The tracks of the proposal that can be cut somewhere; a method that trains new layers alone stands at one cut."""
    tracks = [Track(configuration, options.method, cuts) for configuration in options.configurations()]
    if method_class(options.method).deepest_only:
        deepest = [space.deepest(track.configuration) for track in tracks]
        tracks = [replace(t, cuts=(k,)) for t, k in zip(tracks, deepest, strict=True) if cuts is None or k in cuts]
    return tuple(track for track in tracks if space.cuts(track))
