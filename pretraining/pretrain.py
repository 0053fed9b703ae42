"""Pre-trains the embedded source network on images that formulas make; can be killed at any time and goes on.

    python pretraining/pretrain.py --out RUN --hours 6 --workers 1 --threads 1
    python pretraining/pretrain.py --out RUN --install    # puts what it made into the package

A run is decided by its recipe alone (RUN/recipe.json; the same command goes on with it); `--hours` becomes a number of
steps at the start, from a minute of measuring. RUN/record.json holds recipe, curve and cost.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch

from inarch.environment import same_settings_afterwards
from inarch.launch.allocator import keep_memory
from loop import CARD, CLASSES, RECORD, WEIGHTS, Place, steps_in, train
from recipe import Recipe, read_json, write_json

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "src" / "inarch" / "embedded"
RECIPE = "recipe.json"


def settled(folder: Path, given: argparse.Namespace, place: Place) -> Recipe:
    """The recipe of a run folder; at the first call from the options, and written down."""
    file = folder / RECIPE
    asked = {f.name: getattr(given, f.name) for f in fields(Recipe) if getattr(given, f.name, None) is not None}
    if file.exists():
        known = Recipe.from_json(read_json(file))
        if replace(known, **asked) != known:
            sys.exit(f"{folder} belongs to a run with another recipe: {known}. Choose another --out.")
        return known
    try:
        recipe = Recipe(**({"steps": 1} | asked))
    except ValueError as error:
        sys.exit(f"{error}.")
    if given.hours is not None:
        recipe = replace(recipe, steps=steps_in(given.hours, recipe, place))
    write_json(file, recipe.to_json())
    return recipe


def install(folder: Path, package: Path = PACKAGE, beside: Path = HERE) -> None:
    """Copies what a finished run made into the package, and its record beside this script."""
    if not (folder / RECORD).exists():
        sys.exit(f"{folder} holds no finished run.")
    package.mkdir(exist_ok=True)
    for name in (WEIGHTS, CLASSES, CARD):
        shutil.copyfile(folder / name, package / name)
    shutil.copyfile(folder / RECORD, beside / RECORD)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the run folder")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--hours", type=float, help="about how long the run may take on this machine")
    length.add_argument("--steps", type=int, help="how many steps instead")
    parser.add_argument("--workers", type=int, default=1, help="processes that make images; 0: none")
    parser.add_argument("--threads", type=int, help="of the training; else as many as there are processors")
    parser.add_argument("--device", help="cpu, cuda; else the first accelerator")
    for name, kind in (
        ("size", int), ("batch-size", int), ("passes", int), ("rate", float), ("weight-decay", float),
        ("seed", int), ("precision", str),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, help=f"else {getattr(Recipe, name.replace('-', '_'))}")
    parser.add_argument("--install", action="store_true", help="copy what a finished run made into the package")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    parser = options()
    chosen = parser.parse_args(given)
    if chosen.install:
        install(chosen.out)
        return
    if chosen.hours is None and chosen.steps is None and not (chosen.out / RECIPE).exists():
        parser.error("give --hours or --steps")
    keep_memory()
    with same_settings_afterwards():
        torch.set_flush_denormal(True)
        if chosen.threads:
            torch.set_num_threads(chosen.threads)
        chosen.out.mkdir(parents=True, exist_ok=True)
        place = Place(torch.device(chosen.device or ("cuda" if torch.cuda.is_available() else "cpu")), chosen.workers)
        train(chosen.out, settled(chosen.out, chosen, place), place)


if __name__ == "__main__":
    main()
