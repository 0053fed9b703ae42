"""How sure a test accuracy, or a difference between two, is: intervals over images and seeds, and Holm's correction.

Whether image i is classified right by the network of seed s is modelled as mean + image effect + seed effect + rest,
both effects random and crossed (two-way random effects; Searle, Casella, McCulloch, "Variance components", 1992,
chapter 4). The variance of the mean over both is

    V = variance of the image means / n + (MS_seeds - MS_rest) / (n * seeds)

where the rest, which is in the image means already, is taken out of the seeds' part. Degrees of freedom after
Satterthwaite (Biometrics Bulletin 2, 1946). An estimated seed part below zero counts as none.

Where both sides of a difference were trained on the same draws of training data, the differences themselves, one for
each draw and image, have such a layout, and what makes a draw easy for both is no part of it (`paired_on_draws`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Of = Literal["images and seeds", "images"]


@dataclass(frozen=True)
class Interval:
    """An interval for an accuracy, in 0 ... 1; `of` says what was taken as random."""

    low: float
    high: float
    of: Of


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of a minus accuracy of b on the same images, its 95 % interval and two-sided p-value."""

    difference: float
    interval95: tuple[float, float]
    p: float
    of: Of


@dataclass(frozen=True)
class _Part:
    """One mean square's share of a variance, and its degrees of freedom."""

    variance: float
    degrees: float


def accuracy_interval(correct: ArrayLike, level: float = 0.95) -> Interval:
    """Return an interval for the accuracy of `correct`, booleans [seeds, images].

    Wilson's score interval (JASA 22, 1927) at the number of images that would have the same variance if each were drawn
    for itself (the effective sample size of Korn and Graubard, Survey Methodology 24, 1998), with Student's quantile.
    It has a width also where every image is right. With one seed it is about images alone, and says so.
    """
    x = _checked(correct)
    seeds, images = x.shape
    accuracy = float(x.mean())
    parts = [_Part(float(x.mean(axis=0).var(ddof=1)) / images, images - 1)] if images > 1 else []
    parts += _seed_parts(x)
    variance, degrees = _total(parts)
    effective = float(images)
    if variance > 0:
        effective = min(accuracy * (1 - accuracy) / variance, float(images * seeds))
    quantile = float(stats.t.ppf((1 + level) / 2, degrees)) if variance > 0 else float(stats.norm.ppf((1 + level) / 2))
    low, high = _wilson(accuracy, effective, quantile)
    return Interval(low, high, _of(seeds))


def accuracy_standard_error(accuracy: float, images: int) -> float:
    """Of one accuracy: binomial; where all are right or all wrong, at least half an image's share."""
    return math.sqrt(max(accuracy * (1 - accuracy), 1 / (4 * images)) / images)


def paired_difference(a: ArrayLike, b: ArrayLike) -> PairedDifference:
    """Return the mean of `a` minus the mean of `b`, with an interval and a p-value.

    Both are booleans [seeds, images] about the same images in the same order; the seeds of a and b are independent and
    may differ in number. A side with one seed adds nothing about seeds, and the result then says "images".
    The image part has one imagined image added on which the two differ, half each way, and one on which they agree
    (Agresti and Min, Statistics in Medicine 24, 2005): networks that agree on 20 images may still differ.
    """
    x, y = _checked(a), _checked(b)
    images = x.shape[1]
    if images != y.shape[1]:
        raise ValueError(f"a pair needs the same images on both sides, got {images} and {y.shape[1]}")
    by_image = x.mean(axis=0) - y.mean(axis=0)
    variance, degrees = _total([_Part(_image_variance(by_image), images + 1), *_seed_parts(x), *_seed_parts(y)])
    return _difference(float(by_image.mean()), variance, degrees, _of(min(len(x), len(y))))


def paired_on_draws(a: ArrayLike, b: ArrayLike) -> PairedDifference:
    """Return the mean of `a` minus the mean of `b`, booleans [draws, images] of the same draws and the same images.

    With d the differences [draws, images], the variance of their mean is

        V = MS_draws / (n * draws) + max(0, variance of the image means / n - MS_rest / (n * draws))

    the variance that a paired t-test over the draws has, and on top of it what is the same in all draws and so does not
    show between them. Student's quantile has the draws' degrees of freedom, draws - 1, and no more: estimated ones
    (Satterthwaite) are too many just when few draws happen to agree, and a variance of draws borrowed from other
    comparisons is too small where one method fails on some draws (docs/lab-notebook.md, "paired draws"). The image
    means have two imagined images, as in `paired_difference`, and V is never below what these alone give: the
    differences of two draws may well be equal. With one draw the result is about images alone.
    """
    x, y = _checked(a), _checked(b)
    if x.shape != y.shape:
        raise ValueError(f"pairs need the same draws and images on both sides, got {x.shape} and {y.shape}")
    draws, images = x.shape
    if draws == 1 or images == 1:
        return paired_difference(x, y)
    d = x - y
    of_draws, of_images = d.mean(axis=1, keepdims=True), d.mean(axis=0, keepdims=True)
    rest = d - of_draws - of_images + d.mean()
    rest_variance = float((rest**2).sum()) / ((draws - 1) * (images - 1) * images * draws)
    of_all = max(0.0, _image_variance(of_images[0]) - rest_variance)
    variance = max(float(of_draws.var(ddof=1)) / draws + of_all, 1 / (images + 2) ** 2)
    return _difference(float(d.mean()), variance, draws - 1, _of(draws))


def _image_variance(differences: NDArray[np.float64]) -> float:
    """Return the variance of the mean of `differences` [images], with two imagined ones (Agresti and Min)."""
    images = len(differences)
    mean = differences.sum() / (images + 2)
    return float(((differences**2).sum() + 1) / (images + 2) - mean**2) / (images + 2)


def _difference(difference: float, variance: float, degrees: float, of: Of) -> PairedDifference:
    error = float(np.sqrt(variance))
    reach = float(stats.t.ppf(0.975, degrees)) * error
    p = float(2 * stats.t.sf(abs(difference) / error, degrees))
    interval = (max(-1.0, difference - reach), min(1.0, difference + reach))
    return PairedDifference(difference, interval, min(1.0, p), of)


def holm(p: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number, in the given order (Holm, Scand. J. Statistics 6, 1979)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(v) for v in corrected]


def _checked(correct: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(correct)
    if x.ndim != 2 or 0 in x.shape or not np.isin(x, (0, 1)).all():
        raise ValueError(f"expected right or wrong as [seeds, images], at least one of each, got shape {x.shape}")
    return x.astype(np.float64)


def _seed_parts(x: NDArray[np.float64]) -> list[_Part]:
    """Return what the seeds add to the variance of the mean of x [seeds, images]: nothing, or two parts."""
    seeds, images = x.shape
    if seeds < 2 or images < 2:
        return []
    of_seeds, of_images = x.mean(axis=1, keepdims=True), x.mean(axis=0, keepdims=True)
    rest = x - of_seeds - of_images + x.mean()
    degrees_seeds, degrees_rest = seeds - 1, (seeds - 1) * (images - 1)
    seed_variance = float(of_seeds.var(ddof=1)) / seeds
    rest_variance = float((rest**2).sum()) / degrees_rest / (images * seeds)
    if seed_variance <= rest_variance:
        return []
    return [_Part(seed_variance, degrees_seeds), _Part(-rest_variance, degrees_rest)]


def _total(parts: Sequence[_Part]) -> tuple[float, float]:
    """Return the variance and Satterthwaite's degrees of freedom of independent parts."""
    variance = sum(part.variance for part in parts)
    spread = sum(part.variance**2 / part.degrees for part in parts)
    return variance, variance**2 / spread if spread > 0 else 1.0


def _wilson(accuracy: float, n: float, quantile: float) -> tuple[float, float]:
    z2 = quantile**2
    centre = (accuracy + z2 / (2 * n)) / (1 + z2 / n)
    reach = quantile / (1 + z2 / n) * float(np.sqrt(accuracy * (1 - accuracy) / n + z2 / (4 * n**2)))
    return max(0.0, min(accuracy, centre - reach)), min(1.0, max(accuracy, centre + reach))


def _of(fewest_seeds: int) -> Of:
    return "images and seeds" if fewest_seeds > 1 else "images"
