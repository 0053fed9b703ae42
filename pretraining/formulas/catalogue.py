"""The source classes, in families, and their images: image `number` of a class is always the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from formulas.arrangements import arrangements
from formulas.contours import atoms, contours
from formulas.curves import curves, glyphs
from formulas.formula import Formula
from formulas.fractals import fractals
from formulas.picture import picture
from formulas.textures import gratings, noises
from formulas.tilings import cells, lattices

# Images of another edition differ: raise it with any change that changes pixels.
EDITION = 1


@cache
def families() -> Mapping[str, Sequence[Formula]]:
    """Every class by family, in the order in which the classification layer has them."""
    return {
        "fractals": fractals(40),
        "contours": contours(),
        "atoms": atoms(),
        "glyphs": glyphs(64),
        "curves": curves(),
        "arrangements": arrangements(),
        "gratings": gratings(),
        "noise": noises(),
        "lattices": lattices(),
        "cells": cells(),
    }


@cache
def source_classes() -> tuple[Formula, ...]:
    """All classes, in order."""
    return tuple(formula for family in families().values() for formula in family)


def draw(index: int, number: int, size: int) -> NDArray[np.uint8]:
    """Image `number` of the class at `index`, [size, size, 3]; it depends on these three and the edition alone."""
    return picture(source_classes()[index], np.random.default_rng([EDITION, index, number]), size)
