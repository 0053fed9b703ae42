"""The demonstration: a network that has only seen formulas, adapted to handwritten digits with few labels.

Everything is at hand: the network comes with the package (docs/embedded-network.md), the digits with scikit-learn (the
test set of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine Learning Repository,
1998). They are written into the run folder as PNG files, so that it is an ordinary data set that one can look at.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from inarch.errors import RunFolderError, TimeLimitError
from inarch.launch.progress import Progress
from inarch.network.source import EMBEDDED, SourceOptions
from inarch.options import StudyOptions
from inarch.report.words import duration, percent, percent_range
from inarch.results.folder import RunFolder
from inarch.study import fit

IMAGES: Final = "digits"
# The digits have 8 x 8 pixels: large enough to be looked at, and no larger for the network than they are worth.
SIDE = 64
SEEN_SIDE = 32
OPTIONS = StudyOptions(precision="fp32", augmentation="crop")


@final
@dataclass(frozen=True)
class Shares:
    """Images of each digit in each split; test None: all the rest."""

    train: int = 20
    validation: int = 20
    test: int | None = None


def demo(
    out: Path,
    progress: Progress,
    *,
    time_limit: float | None = None,
    threads: int | None = None,
    options: StudyOptions = OPTIONS,
    shares: Shares = Shares(),
) -> dict[str, Any]:
    """Runs or continues the study of the digits in `out` and returns what `results.json` holds; errors as `fit`'s."""
    with RunFolder(out) as folder:  # refuses a folder of something else before anything is written there
        if folder.begun and not (out / IMAGES).is_dir():
            raise RunFolderError(f"{out} holds another study.", "Choose a new or empty folder as --out.")
        write_digits(out / IMAGES, shares)

    def studied(limit: float | None) -> dict[str, Any]:
        asked = replace(options, time_limit=limit, threads=threads)
        return fit(out / IMAGES, EMBEDDED, out, asked, SourceOptions(image_size=SEEN_SIDE), progress)

    try:
        return studied(time_limit)
    except TimeLimitError as error:
        # Who has never seen it run shall not have to think about limits.
        longer = 1.5 * error.least
        progress.announce(f"This machine is slow, or busy: the demonstration takes about {duration(longer)} instead.")
        return studied(longer)


def write_digits(folder: Path, shares: Shares) -> None:
    """Class folders below `train`, `val` and `test`; files that are there and whole are left alone."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    for digit in range(10):
        numbers = [int(number) for number in order if digits.target[number] == digit]
        begin = shares.train + shares.validation
        end = len(numbers) if shares.test is None else begin + shares.test
        splits = {"train": (0, shares.train), "val": (shares.train, begin), "test": (begin, end)}
        for split, (first, last) in splits.items():
            place = folder / split / str(digit)
            place.mkdir(parents=True, exist_ok=True)
            for number in numbers[first:last]:
                _write(place / f"{number:04}.png", digits.images[number])


def _write(file: Path, pixels: np.ndarray) -> None:
    """An image of values from 0 to 16 as a PNG file, enlarged smoothly."""
    grey = Image.fromarray((pixels * (255 / 16)).astype(np.uint8))
    stream = io.BytesIO()
    grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(stream, "png")
    content = stream.getvalue()
    if not file.exists() or file.read_bytes() != content:
        file.write_bytes(content)


def in_short(results: Mapping[str, Any], out: Path) -> list[str]:
    """What the demonstration found and where to look, in five lines."""
    counts, test = results["dataset"]["counts"], results["test"]
    chosen, kept = test["chosen"], results["kept_layer"]
    baselines = [
        f"{words} {percent(test[role]['accuracy'])}"
        for role, words in (("traditional", "traditional fine-tuning"), ("linear_probe", "a linear probe"))
    ]
    return [
        f"Adapted to {len(results['dataset']['classes'])} handwritten digits with {counts['train']} training images: a "
        f"network that has only seen {results['source']['classes']} kinds of formula-made images.",
        f"It is right on {percent(chosen['accuracy'])} of {counts['test']} test images (95 % interval "
        f"{percent_range(chosen['interval95'])}), with {chosen['graft']} and {chosen['cut']['index']} stages frozen.",
        f"The usual ways reach: {', '.join(baselines)}.",
        kept["sentence"] if "difference" in kept else f"Keeping the classification layer: {kept['reason']}.",
        f"Report: {out / 'report.html'}   Model: {out / 'model'}   Images: {out / IMAGES}",
    ]
