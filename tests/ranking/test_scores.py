"""Every score against its paper's formula written out in loops or densities, against figures worked out by hand, and
against what its paper says of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf

from inarch.ranking.h_score import h_score
from inarch.ranking.leep import leep
from inarch.ranking.logme import RATIOS, logme
from inarch.ranking.nce import nce
from inarch.ranking.regularised_h_score import regularised_h_score
from inarch.ranking.scores import RECOMMENDED, SCORES, Observed
from inarch.ranking.transrate import DISTORTION, transrate

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
OF_FEATURES = (logme, regularised_h_score, h_score, transrate)


def clusters(
    images: int = 60, width: int = 5, classes: int = 3, apart: float = 2.0, seed: int = 0
) -> tuple[Floats, Labels]:
    """Features around a centre for each class, unequal classes, no feature centred."""
    random = np.random.default_rng(seed)
    labels = np.sort(random.integers(0, classes, images))
    labels[:classes] = np.arange(classes)
    centres = random.normal(0, apart, (classes, width))
    return centres[labels] + random.normal(3, 1, (images, width)), labels


def softmax(logits: Floats) -> Floats:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def rotation(width: int) -> Floats:
    return np.linalg.qr(np.random.default_rng(9).normal(size=(width, width)))[0]


# LEEP and NCE


def test_leep_of_four_images_as_worked_out_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.5, 0.5]])
    labels = np.array([0, 0, 1, 1])
    # p(0, a) = 1.4 / 4, p(1, a) = 0.6 / 4, so p(0 | a) = 0.7, p(1 | a) = 0.3; p(0 | b) = 0.3, p(1 | b) = 0.7.
    likelihoods = [0.8 * 0.7 + 0.2 * 0.3, 0.6 * 0.7 + 0.4 * 0.3, 0.1 * 0.3 + 0.9 * 0.7, 0.5 * 0.3 + 0.5 * 0.7]
    assert leep(probabilities, labels) == pytest.approx(sum(map(math.log, likelihoods)) / 4)


def leep_in_loops(probabilities: Floats, labels: Labels) -> float:
    images, source_classes = probabilities.shape
    joint: dict[tuple[int, int], float] = {}
    marginal = [0.0] * source_classes
    for i in range(images):
        for z in range(source_classes):
            joint[labels[i], z] = joint.get((labels[i], z), 0.0) + probabilities[i, z] / images
            marginal[z] += probabilities[i, z] / images
    total = 0.0
    for i in range(images):
        total += math.log(
            sum(joint[labels[i], z] / marginal[z] * probabilities[i, z] for z in range(source_classes) if marginal[z])
        )
    return total / images


@pytest.mark.parametrize("seed", range(5))
def test_leep_is_its_formula_in_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities, labels = softmax(random.normal(0, 3, (40, 7))), random.integers(0, 4, 40)
    probabilities[:, 2] = 0  # a source class that is never considered
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert leep(probabilities, labels) == pytest.approx(leep_in_loops(probabilities, labels), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_leep_is_at_least_nce_and_the_mean_log_probability_of_the_likeliest_source_class(seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities, labels = softmax(random.normal(0, 3, (40, 7))), random.integers(0, 4, 40)
    likeliest = np.log(probabilities.max(axis=1)).mean()
    assert nce(probabilities.argmax(axis=1), labels) + likeliest <= leep(probabilities, labels) < 0


def test_leep_is_nce_where_a_network_is_certain() -> None:
    random = np.random.default_rng(2)
    source, labels = random.integers(0, 6, 50), random.integers(0, 3, 50)
    certain = np.eye(6, dtype=np.float32)[source]
    assert leep(certain, labels) == pytest.approx(nce(source, labels), rel=1e-12)


def test_nce_of_five_images_as_worked_out_by_hand() -> None:
    # Source class 4 holds labels 0, 0, 1 and class 9 label 1 twice: H(Y | Z) is 3/5 of the entropy of (2/3, 1/3).
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert nce(np.array([4, 9, 4, 4, 9]), np.array([0, 1, 0, 1, 1])) == pytest.approx(-0.6 * entropy)


def test_nce_is_zero_where_source_classes_decide_and_minus_log_classes_where_they_say_nothing() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2])
    assert nce(labels + 5, labels) == 0
    assert nce(np.zeros(6, dtype=np.int64), labels) == pytest.approx(-math.log(3))


@pytest.mark.parametrize("seed", range(3))
def test_names_of_classes_do_not_matter_to_leep_and_nce(seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities, labels = softmax(random.normal(0, 3, (40, 7))), random.integers(0, 4, 40)
    shuffled, renamed = probabilities[:, random.permutation(7)], random.permutation(4)[labels]
    assert leep(shuffled, renamed) == pytest.approx(leep(probabilities, labels), rel=1e-12)
    assert nce(shuffled.argmax(axis=1), renamed) == pytest.approx(nce(probabilities.argmax(axis=1), labels), rel=1e-12)


# H-scores


def between_covariance(features: Floats, labels: Labels) -> Floats:
    """The covariance of each image's class mean."""
    means = np.stack([features[labels == label].mean(axis=0) for label in labels])
    return np.cov(means, rowvar=False, bias=True)


def test_h_score_of_one_feature_as_worked_out_by_hand() -> None:
    # Means 1 and 5 of equal classes vary by 4; the feature around its mean 3 by (9 + 1 + 1 + 9) / 4 = 5.
    assert h_score(np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([0, 0, 1, 1])) == pytest.approx(0.8)


@pytest.mark.parametrize("seed", range(5))
def test_h_score_is_the_trace_of_its_definition(seed: int) -> None:
    features, labels = clusters(seed=seed)
    inverse = np.linalg.inv(np.cov(features, rowvar=False, bias=True))
    expected = np.trace(inverse @ between_covariance(features, labels))
    assert h_score(features, labels) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_h_score_of_more_features_than_images_is_the_trace_with_the_pseudo_inverse(seed: int) -> None:
    features, labels = clusters(images=12, width=20, seed=seed)
    inverse = np.linalg.pinv(np.cov(features, rowvar=False, bias=True), rcond=1e-10)
    expected = np.trace(inverse @ between_covariance(features, labels))
    assert h_score(features, labels) == pytest.approx(expected, rel=1e-6)
    assert h_score(features, labels) == pytest.approx(2)  # its upper limit, whatever the labels


@pytest.mark.parametrize("seed", range(3))
def test_h_score_stays_under_invertible_maps(seed: int) -> None:
    features, labels = clusters(seed=seed)
    mapped = features @ np.random.default_rng(seed).normal(size=(5, 5)) - 4
    assert h_score(mapped, labels) == pytest.approx(h_score(features, labels), rel=1e-9)


def test_a_feature_that_only_rounding_moves_does_not_count_in_the_h_score() -> None:
    features, labels = clusters()
    constant = np.where(labels == 1, 100, np.nextafter(np.float32(100), np.float32(0)))[:, None]
    noisy = np.hstack([features, constant]).astype(np.float32)
    assert h_score(noisy, labels) == pytest.approx(h_score(features, labels), rel=1e-5)


@pytest.mark.parametrize(("images", "width"), [(60, 5), (12, 20)])
def test_regularised_h_score_is_the_trace_of_its_definition(images: int, width: int) -> None:
    features, labels = clusters(images, width)
    shrunk = LedoitWolf().fit(features)
    assert 0 < shrunk.shrinkage_ < 1
    covariance = np.cov(features, rowvar=False, bias=True)
    mixed = (1 - shrunk.shrinkage_) * covariance + shrunk.shrinkage_ * np.trace(covariance) / width * np.eye(width)
    between = (1 - shrunk.shrinkage_) * between_covariance(features, labels)
    expected = np.trace(np.linalg.inv(mixed) @ between)
    assert regularised_h_score(features, labels) == pytest.approx(expected, rel=1e-9)


def test_the_regularised_h_score_tells_labellings_apart_where_the_h_score_cannot() -> None:
    features, labels = clusters(images=30, width=100, apart=1.0)
    shuffled = np.random.default_rng(1).permutation(labels)
    assert h_score(features, labels) == pytest.approx(h_score(features, shuffled))
    assert regularised_h_score(features, labels) > 1.2 * regularised_h_score(features, shuffled)


# LogME


def log_evidence(features: Floats, targets: Floats, a: float, b: float) -> float:
    """log p(y | F, a, b) as the paper writes it, with A = a I + b F'F and m = b A^-1 F'y."""
    images, width = features.shape
    precision = a * np.eye(width) + b * features.T @ features
    mean = b * np.linalg.solve(precision, features.T @ targets)
    return float(
        images / 2 * math.log(b) + width / 2 * math.log(a) - images / 2 * math.log(2 * math.pi)
        - b / 2 * np.sum((features @ mean - targets) ** 2) - a / 2 * mean @ mean - np.linalg.slogdet(precision)[1] / 2
    )  # fmt: skip


def logme_by_search(features: Floats, labels: Labels) -> float:
    """The mean over classes of the greatest evidence an image that a general optimiser finds from many starts."""
    scores = []
    for label in np.unique(labels):
        targets = (labels == label).astype(np.float64)
        found = [
            minimize(
                lambda x, y=targets: -log_evidence(features, y, *np.exp(x)), start, method="Nelder-Mead",
                bounds=((-20, 20), (-20, 20)), options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 400},
            ).fun
            for start in ((0, 0), (5, 5), (-5, 5), (8, 0))
        ]  # fmt: skip
        scores.append(-min(found) / len(labels))
    return float(np.mean(scores))


def test_the_evidence_of_the_paper_is_the_density_of_labels_under_its_model() -> None:
    features, labels = clusters(images=15)
    covariance = np.eye(15) / 2.5 + features @ features.T / 0.7
    expected = multivariate_normal(np.zeros(15), covariance).logpdf(labels == 1)
    assert log_evidence(features, (labels == 1).astype(np.float64), 0.7, 2.5) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("images", "width", "apart"), [(60, 5, 2.0), (60, 5, 0.3), (20, 40, 1.0)])
def test_logme_is_the_greatest_evidence_that_a_general_optimiser_finds(
    images: int, width: int, apart: float, seed: int
) -> None:
    features, labels = clusters(images, width, apart=apart, seed=seed)
    assert logme(features, labels) == pytest.approx(logme_by_search(features, labels), abs=1e-6)


def test_logme_of_one_feature_that_says_nothing_is_that_of_noise_alone() -> None:
    # The feature is orthogonal to both classes, so the best weights vanish: y is noise of variance 1/2.
    features, labels = np.array([[1.0], [-1.0], [1.0], [-1.0]]), np.array([0, 0, 1, 1])
    assert logme(features, labels) == pytest.approx(-0.5 * (math.log(2 * math.pi * 0.5) + 1), abs=1e-9)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
def test_rotating_and_scaling_features_changes_neither_logme_nor_regularised_h_score_nor_transrate(
    factor: float,
) -> None:
    features, labels = clusters()
    turned = factor * features @ rotation(5)
    for score in (logme, regularised_h_score, transrate):
        assert score(turned, labels) == pytest.approx(score(features, labels), rel=1e-7)


def test_shifting_features_changes_neither_h_scores_nor_transrate() -> None:
    features, labels = clusters()
    for score in (h_score, regularised_h_score, transrate):
        assert score(features + 7.5, labels) == pytest.approx(score(features, labels), rel=1e-9)


def test_logme_of_labels_that_are_linear_in_the_features_is_finite_and_that_of_the_least_ratio() -> None:
    labels = np.repeat([0, 1, 2], 8)
    features = np.eye(3)[labels]
    # F'F is 8 I and every class an eigenvector, so the noise of variance r 8 is all that is left of the misfit.
    misfit = 8 * RATIOS[0] / (1 + RATIOS[0])
    spread = 3 * math.log1p(1 / RATIOS[0])
    expected = -0.5 * (math.log(2 * math.pi * misfit / 24) + 1 + spread / 24)
    assert logme(features, labels) == pytest.approx(expected, rel=1e-6)


def test_logme_counts_against_features_that_fit_by_their_number_alone() -> None:
    features, labels = clusters(apart=1.0)
    noise = np.random.default_rng(5).normal(size=(60, 50))
    assert logme(np.hstack([features, noise]), labels) < logme(features, labels)
    assert h_score(np.hstack([features, noise]), labels) > h_score(features, labels)


# TransRate


def test_transrate_of_one_feature_as_worked_out_by_hand() -> None:
    # Centred and scaled the feature is -1, -1, 1, 1: every class is as long as the whole, so nothing is shared.
    assert transrate(np.array([[0.0], [0.0], [2.0], [2.0]]), np.array([0, 0, 1, 1])) == pytest.approx(0)
    # -1, 0, 0, 1 times sqrt(2): the classes have squares 2, 0 and 2 an image, all images together 1.
    features, labels = np.array([[3.0], [4.0], [4.0], [5.0]]), np.array([0, 1, 1, 2])
    expected = 0.5 * math.log(1 + 1e4) - 2 * 0.25 * 0.5 * math.log(1 + 2e4)
    assert transrate(features, labels) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("images", "width"), [(60, 5), (12, 20)])
def test_transrate_is_the_difference_of_its_log_determinants(images: int, width: int, seed: int) -> None:
    features, labels = clusters(images, width, seed=seed)
    centred = features - features.mean(axis=0)
    centred /= math.sqrt(np.trace(centred.T @ centred / images))
    unit = np.eye(width)
    expected = np.linalg.slogdet(unit + centred.T @ centred / (images * DISTORTION))[1] / 2
    for label in np.unique(labels):
        some = centred[labels == label]
        rate = np.linalg.slogdet(unit + some.T @ some / (len(some) * DISTORTION))[1] / 2
        expected -= len(some) / images * rate
    assert transrate(features, labels) == pytest.approx(expected, rel=1e-9)
    assert transrate(features, labels) > 0


# All of them


def observed(features: Floats, labels: Labels, logits: Floats | None = None) -> Observed:
    logits = features if logits is None else logits
    return Observed(features.astype(np.float32), softmax(logits).astype(np.float32), labels)


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.name)
def test_separable_classes_rank_above_overlapping_ones_and_those_above_random_labels(score: object) -> None:
    assert score in SCORES
    of: Callable[[Observed], float] = next(s.of for s in SCORES if s is score)
    random = np.random.default_rng(4)
    labels = np.repeat(np.arange(4), 30)
    found = [of(observed(apart * np.eye(6)[labels] + random.normal(size=(120, 6)), labels)) for apart in (20, 2)]
    found.append(of(observed(random.normal(size=(120, 6)), labels)))
    assert found[0] > found[1] > found[2]


def robust_cases() -> dict[str, Observed]:
    features, labels = clusters()
    wide, few = clusters(images=9, width=40)
    return {
        "no feature varies": observed(np.full((60, 5), 2.5), labels),
        "all features are zero": observed(np.zeros((60, 5)), labels),
        "some features never vary": observed(np.hstack([features, np.zeros((60, 2)), np.full((60, 1), 9.0)]), labels),
        "features are copies": observed(np.hstack([features, features]), labels),
        "every class has one image": observed(features[:6], np.arange(6)),
        "one class has one image": observed(features, np.where(np.arange(60) == 7, 3, labels)),
        "more features than images": observed(wide, few),
        "two images": observed(features[:2], np.array([0, 1])),
        "features are huge": observed(1e15 * features, labels, features),
        "features are tiny": observed(1e-15 * features, labels),
        "a network is certain": observed(features, labels, 1000 * features),
        "one source class": observed(features, labels, features[:, :1]),
        "class numbers have gaps": observed(features, 5 * labels),
    }


@pytest.mark.parametrize("case", robust_cases())
def test_scores_are_finite_and_in_range_whatever_the_data(case: str) -> None:
    seen = robust_cases()[case]
    classes = len(np.unique(seen.labels))
    found = {score.name: score.of(seen) for score in SCORES}
    assert all(type(value) is float and math.isfinite(value) for value in found.values()), found
    for name in ("h_score", "regularised_h_score"):
        assert -1e-9 <= found[name] <= classes - 1 + 1e-9
    assert found["transrate"] >= -1e-9
    assert found["leep"] <= 1e-6
    assert -math.log(classes) - 1e-9 <= found["nce"] <= 0


def test_features_that_never_vary_say_nothing() -> None:
    for case in ("no feature varies", "all features are zero"):
        seen = robust_cases()[case]
        for score in (h_score, regularised_h_score, transrate):
            assert score(seen.features, seen.labels) == pytest.approx(0, abs=1e-9)


def test_the_order_of_the_images_does_not_matter() -> None:
    features, labels = clusters()
    order = np.random.default_rng(3).permutation(60)
    for score in SCORES:
        expected = score.of(observed(features, labels))
        assert score.of(observed(features[order], labels[order])) == pytest.approx(expected, rel=1e-6)


def test_scores_have_names_of_their_own_and_the_recommended_one_is_among_them() -> None:
    assert len({score.name for score in SCORES} | {score.title for score in SCORES}) == 2 * len(SCORES)
    assert RECOMMENDED in SCORES
