"""The source classes that formulas make: named, reproducible, varied within a class and different between classes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from formulas import draw, families, source_classes
from formulas.contours import ANGLES, polygon
from formulas.curves import glyphs
from formulas.fractals import LEAST_FILLED, MOST_FILLED, chaos_game, filling, fractals
from formulas.raster import filled, lines, smooth_noise

ROOT = Path(__file__).resolve().parents[2]


def test_there_are_at_least_200_classes_with_names_of_their_own() -> None:
    names = [formula.name for formula in source_classes()]
    assert len(names) >= 200
    assert len(set(names)) == len(names)
    assert all(3 < len(name) < 80 for name in names)


def test_every_class_draws_bytes_of_the_size_asked_for() -> None:
    for index in range(len(source_classes())):
        image = draw(index, 5, 48)
        assert (image.shape, image.dtype) == ((48, 48, 3), np.uint8)


@pytest.mark.parametrize("family", list(families()))
def test_most_images_of_a_family_show_something(family: str) -> None:
    names = [formula.name for formula in source_classes()]
    indices = [names.index(formula.name) for formula in families()[family]]
    deviations = [float(draw(index, 1, 48).std(axis=(0, 1)).mean()) for index in indices]
    assert np.median(deviations) > 15
    assert np.mean(np.array(deviations) < 4) < 0.1


def test_an_image_depends_on_class_number_and_size_alone() -> None:
    code = (
        "import sys, hashlib; sys.path.insert(0, 'pretraining'); import numpy as np;"
        "from formulas import draw, source_classes; every = range(0, len(source_classes()), 16);"
        "np.random.seed(int(sys.argv[1])); draw(200, 1, 40);"
        "print(hashlib.sha256(b''.join(draw(i, 3, 40).tobytes() for i in every)).hexdigest())"
    )
    ran = [
        subprocess.run([sys.executable, "-c", code, seed], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for seed in "12"
    ]
    assert ran[0] == ran[1]


def test_images_of_a_class_differ_in_colour_shape_and_place() -> None:
    first, second = draw(60, 0, 64).astype(int), draw(60, 1, 64).astype(int)
    assert np.abs(first - second).mean() > 10


def features(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Spectrum of the grey image in rings, and the spread of its gradients: nothing that knows of colours or places."""
    grey = image.mean(axis=2)
    grey = (grey - grey.mean()) / max(float(grey.std()), 1e-3)
    spectrum = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(grey))))
    y, x = np.indices(grey.shape) - grey.shape[0] // 2
    rings = np.hypot(x, y).astype(int).ravel()
    means = np.bincount(rings, spectrum.ravel())[:24] / np.bincount(rings)[:24]
    down, right = np.gradient(grey)
    slopes = np.histogram(np.hypot(down, right), bins=12, range=(0, 3))[0] / grey.size
    return np.concatenate([means, slopes])


def test_families_can_be_told_apart_by_form_alone() -> None:
    # One class of each family; chance is one in ten.
    names = [formula.name for formula in source_classes()]
    chosen = [names.index(family[len(family) // 2].name) for family in families().values()]
    every = np.array([[features(draw(index, n, 64)) for n in range(40)] for index in chosen])
    labels = np.repeat(np.arange(len(chosen)), 30), np.repeat(np.arange(len(chosen)), 10)
    train, test = every[:, :30].reshape(-1, every.shape[2]), every[:, 30:].reshape(-1, every.shape[2])
    scale = train.mean(axis=0), train.std(axis=0)
    model = LogisticRegression(max_iter=500).fit((train - scale[0]) / scale[1], labels[0])
    assert model.score((test - scale[0]) / scale[1], labels[1]) > 0.35


# Formulas against what is known of them


def test_the_chaos_game_finds_the_sierpinski_triangle() -> None:
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]])
    points, _ = chaos_game(np.random.default_rng(0), np.tile(np.eye(2) / 2, (3, 1, 1)), corners / 2)
    # Its largest hole is the triangle between the middles of the sides; a point at its middle is never reached.
    middles = (corners + np.roll(corners, 1, axis=0)) / 2
    assert np.linalg.norm(points - middles.mean(axis=0), axis=1).min() > 0.12
    assert all(np.linalg.norm(points - corner, axis=1).min() < 0.06 for corner in corners)


def test_every_fractal_fills_neither_too_little_nor_too_much() -> None:
    for fractal in fractals(12):
        share = filling(np.random.default_rng(5), fractal.matrices, fractal.shifts)
        assert 0.8 * LEAST_FILLED < share < 1.2 * MOST_FILLED


def test_a_square_has_the_radii_of_a_square() -> None:
    radii = polygon(4)
    assert radii[0] == pytest.approx(1.0)
    assert radii[len(ANGLES) // 8] == pytest.approx(np.cos(np.pi / 4), abs=1e-3)


def test_coverage_of_a_shape_is_its_area() -> None:
    square = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    assert filled([square], 64).mean() == pytest.approx(0.25, abs=0.02)
    assert filled([square, square / 2], 64).mean() == pytest.approx(0.25 * 0.75, abs=0.02)
    assert lines([np.array([[-0.8, 0.0], [0.8, 0.0]])], 0.2, 64).mean() == pytest.approx(1.6 * 0.2 / 4, rel=0.15)


def test_smooth_noise_has_the_spread_that_it_says() -> None:
    planes = np.stack([smooth_noise(np.random.default_rng(n), 64, 8, angle=n, stretch=1 + n % 3) for n in range(40)])
    assert planes.mean() == pytest.approx(0, abs=0.1)
    assert planes.std() == pytest.approx(1, abs=0.2)
    # No corner of the image lies outside of the random numbers, where Pillow would put zeros.
    assert all(planes[:, y, x].std() > 0.4 for y in (0, -1) for x in (0, -1))


def test_a_glyph_is_never_mirrored() -> None:
    ell = next(glyph for glyph in glyphs(64) if len(glyph.strokes) == 1)
    seen = [ell.draw(np.random.default_rng(n), 64).coverage for n in range(60)]
    mean = np.mean(seen, axis=0)
    alike = [float(np.corrcoef(one.ravel(), mean.ravel())[0, 1]) for one in seen]
    mirrored = [float(np.corrcoef(one[:, ::-1].ravel(), mean.ravel())[0, 1]) for one in seen]
    assert np.mean(alike) > np.mean(mirrored)
