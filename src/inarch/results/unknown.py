"""When an image looks like none of the known classes: split-conformal p-values, calibrated on the validation images.

An image's score is the entropy of its probabilities, in nats: high where no class stands out. Of n validation images,
its p-value is

    p = (1 + number of validation images with a score at least as high) / (n + 1)

and the answer is "unknown" where p <= rate. That is the same as a score above the ceil((n + 1) (1 - rate))-th smallest
of the n scores. For an image that is drawn like the validation images, P(p <= rate) <= rate whatever the network and
the score (Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005; Angelopoulos and Bates, "A gentle
introduction to conformal prediction", arXiv 2107.07511; for outliers Bates, Candes, Lei, Romano, Sesia, "Testing for
outliers with conformal p-values", Annals of Statistics 51, 2023, arXiv 2104.08279).

What that does not say. It is an average over draws of validation images: with those that there are the rate is
distributed like Beta(k, n + 1 - k) with k = floor(rate (n + 1)). It is an average over classes, not a promise for each,
and none at all for a class that validation lacks. And it takes the network as given: it was not trained on the
validation images, but chosen on them, so they may look a little less strange to it than new ones do. Hence the rate is
measured on the test images too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from inarch.errors import SourceError, UsageError
from inarch.results.checks import list_of, number, object_with, text, validate
from inarch.results.folder import write_text
from inarch.results.statistics import accuracy_interval

FORMAT: Final = 1
KNOWN: Final = "known.json"
SCORE: Final = "entropy"
# What a report shows; predict takes any rate.
RATES: Final = (0.01, 0.05, 0.1)

_CHECK: Final = object_with(
    {
        "format": number(1, whole=True),
        "score": text(SCORE),
        "scores": list_of(number(0.0)),
        "classes_without_validation": list_of(text()),
    }
)


def entropy(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the entropy [images] of probabilities [images, classes] in nats: 0 ... ln(classes)."""
    p = np.asarray(probabilities, dtype=np.float64)
    # Zero counts as zero, its limit.
    found: NDArray[np.float64] = np.maximum(0.0, -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1))
    return found


def p_values(scores: NDArray[np.floating], calibration: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the conformal p-values [images] of scores [images], from 1 / (n + 1) to 1, by n calibration scores."""
    ordered = np.sort(calibration)
    at_least = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return np.divide(1.0 + at_least, len(ordered) + 1.0, dtype=np.float64)


def require_share(rate: float) -> None:
    """`UsageError` where `rate` is not between 0 and 1."""
    if not 0 < rate < 1:
        raise UsageError(f"--unknown {rate:g} is no share of images.", "Give one between 0 and 1, such as 0.05.")


def fewest_images(rate: float) -> int:
    """Return how many calibration images a rate needs at least: with fewer nothing could ever be unknown."""
    images = max(0, math.ceil(1.0 / rate) - 1)
    return images if 1.0 / (images + 1) <= rate else images + 1


def expected_share(rate: float, calibration: int, images: int, level: float = 0.95) -> tuple[float, float]:
    """Return between which shares chance alone lets the unknown among `images` new ones vary.

    How many there are is distributed like a beta-binomial variable with k and n + 1 - k, where no two scores tie.
    """
    # The largest count whose p-value, as `p_values` computes it, is not above the rate.
    k = math.floor(rate * (calibration + 1) + 1e-9)
    if k == 0:
        return 0.0, 0.0
    low, high = stats.betabinom.interval(level, images, k, calibration + 1 - k)
    return float(low) / images, float(high) / images


@final
@dataclass(frozen=True)
class Known:
    """How strange the validation images look to a model: their scores [images], and the classes that have none."""

    scores: NDArray[np.float64]
    without: tuple[str, ...] = ()

    @classmethod
    def of(cls, probabilities: NDArray[np.floating], labels: NDArray[np.integer], classes: Sequence[str]) -> Known:
        """From the validation images: probabilities [images, classes], class indices [images], names of classes."""
        seen = np.bincount(labels, minlength=len(classes))
        without = tuple(name for name, images in zip(classes, seen, strict=True) if not images)
        return cls(np.sort(entropy(probabilities)), without)

    def p_values(self, probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the conformal p-values [images] of probabilities [images, classes]."""
        return p_values(entropy(probabilities), self.scores)

    def require(self, rate: float) -> None:
        """`UsageError` where `rate` is none, or too small for that many validation images ever to show it."""
        require_share(rate)
        images, needed = len(self.scores), fewest_images(rate)
        if images < needed:
            larger = f"Ask for a larger share, at least {_rounded_up(1 / (images + 1))}, or run" if images else "Run"
            raise UsageError(
                f"--unknown {rate:g} needs {needed} validation images; this model had {images}, with which nothing "
                "would ever be called unknown.",
                f"{larger} inarch fit with more validation images.",
            )

    def write(self, folder: Path) -> None:
        """Write the file into a model folder."""
        value = {
            "format": FORMAT,
            "score": SCORE,
            "classes_without_validation": list(self.without),
            "scores": self.scores.tolist(),
        }
        write_text(folder / KNOWN, json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def read_known(folder: Path, name: str) -> Known:
    """The file of a model folder, for the model called `name`.

    Raises `SourceError` where it is not there and `RunFolderError` where it is damaged.
    """
    try:
        value = json.loads((folder / KNOWN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(
            f"What is unknown to '{name}' cannot be told: its folder holds no {KNOWN} that can be read, which says how "
            "the validation images look to it.",
            "Give a run folder or model folder of Inarch. One that an older version wrote is mended by the same inarch "
            "fit command, which trains nothing again.",
        ) from error
    validate(_CHECK, value, KNOWN)
    return Known(np.sort(np.asarray(value["scores"], dtype=np.float64)), tuple(value["classes_without_validation"]))


def measured(
    known: Known, probabilities: NDArray[np.floating], labels: NDArray[np.integer], classes: Sequence[str]
) -> dict[str, Any]:
    """Return what `results.json` says under `unknown`: for each of `RATES` the share of test images turned away.

    `probabilities` [images, classes] and `labels` [images] are of the test images. Those of classes that validation
    lacks are counted apart, since nothing is promised for them.
    """
    lacking = np.isin(labels, [i for i, name in enumerate(classes) if name in known.without])
    p = known.p_values(probabilities)
    images = len(known.scores)
    return {
        "score": SCORE,
        "validation_images": images,
        "classes_without_validation": list(known.without),
        "rates": [
            {
                "promised": rate,
                "test": _share(p[~lacking] <= rate, rate, images),
                "test_without_validation": _share(p[lacking] <= rate),
            }
            for rate in RATES
            if images >= fewest_images(rate)
        ],
    }


def _share(unknown: NDArray[np.bool_], rate: float | None = None, calibration: int = 0) -> dict[str, Any] | None:
    """How many of some images are unknown, with a 95 % interval, and what chance allows; None without images."""
    if not len(unknown):
        return None
    interval = accuracy_interval(unknown[None])
    found = {
        "images": len(unknown),
        "unknown": int(unknown.sum()),
        "share": float(unknown.mean()),
        "interval95": [interval.low, interval.high],
    }
    expected = {} if rate is None else {"expected95": list(expected_share(rate, calibration, len(unknown)))}
    return found | expected


def _rounded_up(rate: float) -> str:
    """A rate with two digits that is no smaller."""
    digits = 1 - math.floor(math.log10(rate))
    return f"{math.ceil(rate * 10**digits - 1e-9) / 10**digits:g}"
