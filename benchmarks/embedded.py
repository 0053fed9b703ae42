"""What the embedded network's weights are worth: test accuracy against the same network from random weights.

A linear probe and a fine-tuning of all layers, from both, on digits and on photographs with 20 training images a class.
Every seed has a draw of training images, initial weights and orders of its own. Both weights choose among the same
settings, by validation with the first seed: for the probe five rates, with features as they are or normalised by batch
(random features hardly differ from image to image, which no rate alone makes up for); for the fine-tuning six pairs of
rates. They are not multiples of what a range test finds, since that test needs features that are good for something.
"""

from __future__ import annotations

import argparse
import csv
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import torch

import common
from common import AS_COMMAND_LINE, Parts, Record
from inarch.demo import Shares, write_digits
from inarch.launch.here import Workbench
from inarch.network.grafts import Configuration
from inarch.network.source import EMBEDDED
from inarch.training.fit import Watch
from inarch.training.trial import TrainingSettings, Trial
from ours import Wanted, in_study

DIGITS = "digits"
# More digits than are drawn, so that draws differ.
POOL = Shares(train=80, validation=20)
# Harmoniser, the old and the new layers' rate.
Setting = tuple[str, float, float]
SETTINGS: dict[str, list[Setting]] = {
    "linear probe": [(name, 0.0, rate) for name in ("none", "batch") for rate in (0.01, 0.03, 0.1, 0.3, 1.0)],
    "fine-tuning": [
        ("none", old, new)
        for old, new in ((0.003, 0.003), (0.01, 0.01), (0.03, 0.03), (0.1, 0.1), (0.003, 0.03), (0.01, 0.1))
    ],
}
# Of a linear probe it is the deepest.
CUTS = {"fine-tuning": 0}


@dataclass(frozen=True)
class Effort:
    """What is compared. data: its name, the side of images that the network sees in pixels, and epochs. a_class:
    training images.
    """

    data: tuple[tuple[str, int, int], ...] = (
        (DIGITS, 32, 30),
        ("clothing", 64, 20),
        ("grocery", 64, 8),
        ("landuse", 64, 16),
    )
    seeds: int = 5
    a_class: int = 20


QUICK = Effort(data=((DIGITS, 32, 12), ("clothing", 64, 12)), seeds=3)


def accuracies(wanted: Record, run: str, seed: int, settings: dict[str, list[Setting]]) -> Record:
    """For each way its validation and test accuracy with all of its settings."""
    asked = Wanted.from_json(wanted)
    torch.manual_seed(seed)  # what random weights come from

    def work(bench: Workbench, training: TrainingSettings) -> Record:
        deepest = len(bench.staged.stages) - 1
        labels = bench.store.images.labels["test"]

        def trained(cut: int, setting: Setting) -> Record:
            harmonise, old, new = setting
            trial = Trial(Configuration("replace", harmonise, ()), cut, "fine-tuning", old, new, seed, training)
            validation = bench.run([trial], Watch())[0].accuracy
            if validation < 0:  # a rate that was too high
                return {"validation": 0.0, "test": 0.0}
            return {"validation": validation, "test": float((bench.test(trial).argmax(axis=1) == labels).mean())}

        return {way: [trained(CUTS.get(way, deepest), one) for one in settings[way]] for way in settings} | {
            "test_images": len(labels)
        }

    return in_study(asked, Path(run), work)


def drawn(data: Path, file: Path, a_class: int, seed: int) -> Path:
    """A manifest with `a_class` training images a class; where there is no validation, as many others serve as that."""
    random = np.random.default_rng(seed)
    made = not (data / "val").is_dir()
    rows: list[tuple[str, str, str]] = []
    for group in sorted((data / "train").iterdir()):
        images = sorted(group.iterdir())
        order = [images[i] for i in random.permutation(len(images))]
        splits = {"train": order[:a_class], "validation": order[a_class : 2 * a_class] if made else []}
        rows += [(str(image), group.name, split) for split, chosen in splits.items() for image in sorted(chosen)]
    for folder in ("val", "test"):
        for image in sorted((data / folder).glob("*/*")):
            rows.append((str(image), image.parent.name, common.FOLDERS[folder]))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("path", "label", "split"), *rows])
    return file


def measure(parts: Parts, work: Path, effort: Effort, data: str, side: int, epochs: int) -> list[Record]:
    """The rows of one data set: from trained and from random weights, each way."""
    folder = work.resolve() / DIGITS if data == DIGITS else common.shared() / "data" / data
    if data == DIGITS:
        write_digits(folder, POOL)
    # A digit in a mirror is another sign.
    augmentation = "crop" if data == DIGITS else "crop-flip"
    options: Record = {"precision": "fp32", "augmentation": augmentation, "epochs": epochs}
    rows = []
    for weights in ("embedded", "random"):
        settings = SETTINGS
        found: dict[str, list[float]] = {way: [] for way in SETTINGS}
        for seed in range(1, effort.seeds + 1):
            name = f"{data}-{weights}-{seed}"
            manifest = drawn(folder, work.resolve() / f"{data}-{seed}.csv", effort.a_class, seed)
            wanted = {"data": manifest, "source": EMBEDDED, "image_size": side, "options": options}
            values = {"wanted": wanted | {"pretrained": weights == "embedded"}, "seed": seed, "settings": settings}
            run = work.resolve() / "runs" / name
            part = parts.measure(name, "embedded:accuracies", values | {"run": run}, AS_COMMAND_LINE)
            shutil.rmtree(run, ignore_errors=True)
            if seed == 1:
                best = {way: int(np.argmax([one["validation"] for one in part[way]])) for way in SETTINGS}
                part = part | {way: [part[way][best[way]]] for way in SETTINGS}
                settings = {way: [settings[way][best[way]]] for way in SETTINGS}
            for way in SETTINGS:
                found[way].append(part[way][0]["test"])
        rows += [
            {
                "data": data,
                "side": side,
                "epochs": epochs,
                "weights": weights,
                "way": way,
                "setting": settings[way][0],
                "test": found[way],
            }
            for way in SETTINGS
        ]
    return rows


def gains(rows: Sequence[Record]) -> list[Record]:
    """For each data set and way both means with their standard errors over seeds, and the gain, paired by seed."""
    tested = {(row["data"], row["way"], row["weights"]): row["test"] for row in rows}
    found = []
    for data, way in dict.fromkeys((row["data"], row["way"]) for row in rows):
        trained, random = tested[data, way, "embedded"], tested[data, way, "random"]
        differences = [one - other for one, other in zip(trained, random, strict=True)]
        found.append(
            {
                "data": data, "way": way, "embedded": fmean(trained), "embedded_error": error(trained),
                "random": fmean(random), "random_error": error(random),
                "gain_points": 100 * fmean(differences), "gain_error_points": 100 * error(differences),
            }
        )  # fmt: skip
    return found


def error(values: Sequence[float]) -> float:
    """The standard error of a mean."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def show(found: Sequence[Record], effort: Effort) -> None:
    cells = [
        [
            row["data"], row["way"],
            f"{100 * row['embedded']:.1f} ± {100 * row['embedded_error']:.1f}",
            f"{100 * row['random']:.1f} ± {100 * row['random_error']:.1f}",
            f"{row['gain_points']:+.1f} ± {row['gain_error_points']:.1f}",
        ]
        for row in found
    ]  # fmt: skip
    title = f"Test accuracy, {effort.a_class} training images a class, {effort.seeds} seeds; ± one standard error"
    common.print_table(title, ["data", "way", "embedded weights", "random weights", "gain, points"], cells)


def main(given: Sequence[str] | None = None) -> int:
    parser = common.arguments(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    chosen = parser.parse_args(given)
    effort = QUICK if chosen.quick else Effort()
    work = chosen.out / ("embedded-quick" if chosen.quick else "embedded")
    facts = common.machine()
    parts = Parts(chosen.parts or work / "parts", work)
    rows = [row for asked in effort.data for row in measure(parts, work, effort, *asked)]
    found = gains(rows)
    show(found, effort)
    common.write_json(chosen.json, {"rows": rows, "gains": found, "quick": chosen.quick, "machine": facts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
