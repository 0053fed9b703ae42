"""The page's colours: contrast in light and dark, and what remains of them for colour-blind eyes."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

STYLE = files("inarch.report").joinpath("templates/style.css").read_text(encoding="utf-8")
LIGHT, DARK, PAPER = (
    dict(re.findall(r"--([a-z]+): (#[0-9a-f]+);", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
)
# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009,
# whole severity, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
SCHEMES = pytest.mark.parametrize("scheme", [LIGHT, DARK, PAPER], ids=["light", "dark", "paper"])


def linear(colour: str) -> NDArray[np.float64]:
    """Linear RGB in 0 ... 1 of #rgb or #rrggbb."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    values = np.array([int(digits[at : at + 2], 16) for at in (0, 2, 4)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """As the Web Content Accessibility Guidelines define it."""
    luminances = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (luminances[1] + 0.05) / (luminances[0] + 0.05)


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* of linear RGB, white D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    scaled = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@SCHEMES
@pytest.mark.parametrize("ground", ["paper", "card"])
def test_words_can_be_read_and_marks_be_seen_on_every_ground(scheme: dict[str, str], ground: str) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for name in ("ink", "soft", "accent", "bad"):
        assert contrast(scheme[name], scheme[ground]) >= 4.5, name
    for name in ("blue", "vermillion", "green", "purple", "grey"):
        assert contrast(scheme[name], scheme[ground]) >= 3, name


@SCHEMES
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_what_colour_alone_tells_apart_stays_apart_for_colour_blind_eyes(
    scheme: dict[str, str], blindness: str
) -> None:
    # Blue and vermillion: right and wrong in the matrix, where nothing but the diagonal repeats it.
    seen = {name: lab(BLINDNESS[blindness] @ linear(scheme[name])) for name in ("blue", "vermillion")}
    assert np.linalg.norm(seen["blue"] - seen["vermillion"]) > 35


@SCHEMES
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_no_two_lines_of_a_picture_have_one_colour_for_colour_blind_eyes(
    scheme: dict[str, str], blindness: str
) -> None:
    names = ("blue", "vermillion", "green", "purple")
    seen = {name: lab(BLINDNESS[blindness] @ linear(scheme[name])) for name in names}
    near = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(names, 2)}
    # Several times what eyes just notice (2.3); line style and marker differ besides.
    assert min(near.values()) > 10, near
