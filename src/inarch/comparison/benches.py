"""Workbenches for draws: the same network and run folder, with the images of one draw after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

from torch import nn

from inarch.comparison.draws import draw
from inarch.features.store import Images, PrefixStore
from inarch.launch.here import Workbench
from inarch.launch.progress import Progress
from inarch.network.weights import copy_of_weights
from inarch.options import StudyOptions
from inarch.preparation import Opened, as_images, keeping
from inarch.profile import Profile
from inarch.results.folder import RunFolder
from inarch.training.trial import TrainingSettings


@final
class Benches:
    """One workbench at a time; close it to close its files.

    validated_on: another split in place of the validation split, for showing what a choice on test images would claim.
    """

    def __init__(
        self, opened: Opened, options: StudyOptions, methods: Sequence[str], folder: RunFolder, progress: Progress,
        profile: Profile, *, validated_on: str = "validation",
    ) -> None:  # fmt: skip
        self._opened, self._options, self._methods = opened, options, methods
        self._validated_on = validated_on
        self._folder, self._progress, self._profile = folder, progress, profile
        self._weights = copy_of_weights(opened.source.network)
        self._images = as_images(opened.dataset, opened.source, options.settings(2, opened.machine.plan))
        self._at: tuple[int, int] | None = None
        self._bench: Workbench | None = None
        # A copy of the network in the machine's arithmetic, for the stores of all draws.
        self._frozen: Sequence[nn.Module] | None = None

    def settings(self, shots: int) -> TrainingSettings:
        """Those of all trials on draws of that size; draws of one size have the same number of images."""
        return self._options.settings(len(draw(self._images, shots, 0).rows["train"]), self._opened.machine.plan)

    def bench(self, shots: int, seed: int) -> Workbench:
        """The workbench of the draw of a seed; the one before is closed."""
        if self._bench is None or self._at != (shots, seed):
            self.close()
            opened, images = self._opened, self._validated(draw(self._images, shots, seed))
            # What was trained before stands in the modules, and a workbench takes them for those of the source.
            opened.source.network.load_state_dict(self._weights)
            kept = keeping(
                opened.staged, images, opened.source, self.settings(shots), self._options, self._folder,
                self._progress, self._methods,
            )  # fmt: skip
            store = PrefixStore(opened.staged, images, opened.machine, kept, self._frozen)
            self._frozen = store.frozen
            store.profile = self._profile
            self._bench = Workbench(opened.staged, opened.source.network, store, self._folder)
            self._at = shots, seed
        return self._bench

    def _validated(self, images: Images) -> Images:
        split = self._validated_on
        return replace(
            images,
            rows=images.rows | {"validation": images.rows[split]},
            labels=images.labels | {"validation": images.labels[split]},
            digests={**images.digests, "validation": images.digests[split]},
        )

    def close(self) -> None:
        if self._bench is not None:
            self._bench.store.close()
            self._bench = None
