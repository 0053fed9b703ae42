"""Writes a sheet of images, a row for each of some classes, to look at what the formulas make."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from formulas import draw, families, source_classes


def sheet(classes: Sequence[int], columns: int, size: int, first: int = 0) -> Image.Image:
    """A row a class, `columns` images in it, from image number `first` on."""
    rows = [np.concatenate([draw(i, first + n, size) for n in range(columns)], axis=1) for i in classes]
    return Image.fromarray(np.concatenate(rows, axis=0))


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("sheet.png"))
    parser.add_argument("--family", choices=tuple(families()), help="all classes of a family; else some of each")
    parser.add_argument("--columns", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    chosen = parser.parse_args(given)
    names = [formula.name for formula in source_classes()]
    if chosen.family:
        wanted = [names.index(formula.name) for formula in families()[chosen.family]]
    else:
        wanted = [names.index(family[place].name) for family in families().values() for place in (0, len(family) // 2)]
    sheet(wanted, chosen.columns, chosen.size).save(chosen.out)
    for index in wanted:
        print(names[index])


if __name__ == "__main__":
    main()
