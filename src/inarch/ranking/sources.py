"""The story of a ranking: each source network sees the training images once, and scores say how well it suits them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from inarch.data import DataSet, PixelSize
from inarch.environment import same_settings_afterwards
from inarch.errors import DataError, InarchError, SourceError, UsageError
from inarch.features.images import Images
from inarch.features.machine import Machine
from inarch.features.passes import Passes, chunks
from inarch.features.plan import Plan
from inarch.launch.allocator import keep_memory
from inarch.launch.progress import Progress
from inarch.network.adapted import stage
from inarch.network.grafts import pooled
from inarch.network.source import Source, SourceOptions, load_source
from inarch.network.stages import Stages, require_features
from inarch.options import StudyOptions, chosen_device
from inarch.preparation import announce_findings, as_images, pixel_size, read_images
from inarch.profile import Profile
from inarch.ranking.scores import RECOMMENDED, SCORES, Observed
from inarch.ranking.words import how_to_read

# A source is seen once, in the same precision as all others: measuring what is fastest would take as long as the pass,
# and scores would differ by their rounding.
PLAN = Plan()


def rank(
    data: Path, sources: Sequence[str], options: StudyOptions, of_sources: SourceOptions, progress: Progress
) -> dict[str, Any]:
    """Scores every source on the training images of a data set, as JSON holds it; best first by the recommended score.

    Of `options` device, seed and max_pixels count. `ranked` holds for each source that could be used its name, scores
    (higher is better), numbers of penultimate features and source classes and side lengths of the images; `failed` the
    others with their reasons; `sentence` how to read it; `cost` all that differs between equal calls. Errors of the
    data set are raised, those of a source only where no source is left.
    """
    texts = tuple(dict.fromkeys(sources))
    if not texts:
        raise UsageError("No source network is named.", "Name one or more.")
    ranked: list[dict[str, Any]] = []
    failed: dict[str, InarchError] = {}
    seconds: dict[str, dict[str, float]] = {}
    with _undisturbed(), _Reader(data, options, progress) as reader:
        machine = Machine(chosen_device(options.device), PLAN, torch.get_num_threads())
        for text in texts:
            progress.note(f"Looking at the training images with {text}.")
            profile = Profile()
            try:
                ranked.append({"source": text} | _row(text, of_sources, machine, reader, profile))
            except DataError:
                raise
            except InarchError as error:
                failed[text] = error
            seconds[text] = profile.seconds()
        _require_one(ranked, failed)
        digest, images = reader.digest, reader.training
    ranked.sort(key=lambda row: -row["scores"][RECOMMENDED.name])
    _tell_apart(ranked)
    return {
        "recommended": RECOMMENDED.name,
        "titles": {score.name: score.title for score in SCORES},
        "data": {"digest": digest, "training_images": images},
        "ranked": ranked,
        "failed": [{"source": text, "reason": str(error)} for text, error in failed.items()],
        "sentence": how_to_read(ranked, images),
        "cost": {"seconds": seconds, "device": machine.device, "threads": machine.threads},
    }


@contextmanager
def _undisturbed() -> Iterator[None]:
    """The settings of a study, so that what a network computes does not depend on the command."""
    keep_memory()
    with same_settings_afterwards():
        torch.set_flush_denormal(True)
        yield


def _row(text: str, options: SourceOptions, machine: Machine, reader: _Reader, profile: Profile) -> dict[str, Any]:
    """What is known of one source; its scores by name."""
    with profile.section("source network"):
        loaded = load_source(text, options, announce=reader.progress.announce)
        staged = stage(loaded.network, loaded.classification_layer, loaded.input.example())
        require_features(staged)
    with profile.section("reading images"):
        images = reader.images(loaded)
    seen = observe(staged, images, machine, profile)
    if not (np.isfinite(seen.features).all() and np.isfinite(seen.probabilities).all()):
        raise SourceError(
            f"'{loaded.name}' makes numbers that are not finite of some training images.",
            "Check its weights, and mean and std of its input.",
        )
    with profile.section("scores"):
        scores = {score.name: score.of(seen) for score in SCORES}
    return {
        "name": loaded.name,
        "scores": scores,
        "features": seen.features.shape[1],
        "source_classes": seen.probabilities.shape[1],
        "image_size": [loaded.input.height, loaded.input.width],
    }


def observe(staged: Stages, images: Images, machine: Machine, profile: Profile) -> Observed:
    """One forward pass of the evaluation view of the training images."""
    last = len(staged.stages)
    passes = Passes(staged, images, machine, lambda: None, lambda: profile)
    features, probabilities = [], []
    for cut, x in passes.push((last - 1, last), "train", None, chunks(len(images.rows["train"]))):
        if cut < last:
            features.append(pooled(x).float().cpu().numpy())
        else:
            probabilities.append(x.float().cpu().double().softmax(dim=1).float().numpy())
    return Observed(np.concatenate(features), np.concatenate(probabilities), images.labels["train"])


def _require_one(ranked: Sequence[dict[str, Any]], failed: dict[str, InarchError]) -> None:
    if ranked:
        return
    if len(failed) == 1:
        raise next(iter(failed.values()))
    reasons = " ".join(f"{text}: {error}" for text, error in failed.items())
    raise SourceError(f"None of the {len(failed)} sources can be ranked.", reasons)


def _tell_apart(ranked: Sequence[dict[str, Any]]) -> None:
    """Sources of the same name are called by what the user wrote."""
    names = [row["name"] for row in ranked]
    for row in ranked:
        if names.count(row["name"]) > 1:
            row["name"] = row["source"]


@final
class _Reader:
    """The data set, decoded again only where the next source wants images of another size: those of one are kept."""

    def __init__(self, data: Path, options: StudyOptions, progress: Progress) -> None:
        self.progress = progress
        self._data, self._options = data, options
        self._size: PixelSize | None = None
        self._dataset: DataSet | None = None

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._dataset is not None and self._dataset.pixels is not None:
            self._dataset.pixels.close()

    @property
    def digest(self) -> str:
        assert self._dataset is not None
        return self._dataset.digest

    @property
    def training(self) -> int:
        """The number of training images."""
        assert self._dataset is not None
        return len(self._dataset.train)

    def images(self, source: Source) -> Images:
        size = pixel_size(source)
        if size != self._size or self._dataset is None:
            self.__exit__()
            first = self._dataset is None
            self._dataset, self._size = read_images(self._data, size, self._options, self.progress), size
            if first:
                announce_findings(self._dataset, self.progress)
        return as_images(self._dataset, source, self._options.settings(len(self._dataset.train), PLAN))
