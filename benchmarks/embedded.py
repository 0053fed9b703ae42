"""What the embedded network's weights are worth: test accuracy against the same network from random weights.

A linear probe and a fine-tuning of all layers, from both, on digits and on photographs with 20 training images a class.
Every seed has a draw of training images, initial weights and orders of its own. Rates are those that did best on
validation with the first seed: for the probe five multiples of what the range test finds; for the fine-tuning three
multiples, and old layers at the same rate or a tenth of it, since random weights want another ratio than trained ones.
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
from inarch.network.source import EMBEDDED
from inarch.search.space import MULTIPLES, PROBE_MULTIPLES
from inarch.training.fit import Watch
from inarch.training.trial import TrainingSettings, Trial
from ours import Wanted, in_study, trial_of

DIGITS = "digits"
# More digits than are drawn, so that draws differ.
POOL = Shares(train=80, validation=20)
WAYS = ("linear probe", "fine-tuning")
RATIOS = (1.0, 0.1)
# The old and the new layers' rate as multiples of what the range test finds.
Rates = tuple[float, float]


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


def candidates(way: str) -> list[Rates]:
    """Multiples (old, new) of the range test's rate that are tried."""
    if way == "linear probe":
        return [(0.0, multiple) for multiple in PROBE_MULTIPLES]
    return [(ratio * multiple, multiple) for multiple in MULTIPLES for ratio in RATIOS]


def accuracies(wanted: Record, run: str, seed: int, rates: dict[str, list[Rates]]) -> Record:
    """For each way its validation and test accuracy at all of its rates, which are multiples of the range test's."""
    asked = Wanted.from_json(wanted)
    torch.manual_seed(seed)  # what random weights come from

    def work(bench: Workbench, settings: TrainingSettings) -> Record:
        deepest = len(bench.staged.stages) - 1
        labels = bench.store.images.labels["test"]
        configuration = trial_of("replace", deepest, 0, settings, (0.0, 0.0)).configuration
        found = bench.new_layer_rate(configuration, settings, deepest, seed)

        def trained(trial: Trial) -> Record:
            validation = bench.run([trial], Watch())[0].accuracy
            if validation < 0:  # a rate that was too high
                return {"validation": 0.0, "test": 0.0}
            return {"validation": validation, "test": float((bench.test(trial).argmax(axis=1) == labels).mean())}

        return {
            way: [
                trained(trial_of("replace", cut, seed, settings, (old * found, new * found))) for old, new in rates[way]
            ]
            for way, cut in zip(WAYS, (deepest, 0), strict=True)
        } | {"rate": found, "test_images": len(labels)}

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
        rates = {way: candidates(way) for way in WAYS}
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for seed in range(1, effort.seeds + 1):
            name = f"{data}-{weights}-{seed}"
            manifest = drawn(folder, work.resolve() / f"{data}-{seed}.csv", effort.a_class, seed)
            wanted = {"data": manifest, "source": EMBEDDED, "image_size": side, "options": options}
            values = {"wanted": wanted | {"pretrained": weights == "embedded"}, "seed": seed, "rates": rates}
            run = work.resolve() / "runs" / name
            part = parts.measure(name, "embedded:accuracies", values | {"run": run}, AS_COMMAND_LINE)
            shutil.rmtree(run, ignore_errors=True)
            if seed == 1:
                best = {way: max(range(len(rates[way])), key=lambda i: part[way][i]["validation"]) for way in WAYS}
                part = part | {way: [part[way][best[way]]] for way in WAYS}
                rates = {way: [rates[way][best[way]]] for way in WAYS}
            for way in WAYS:
                found[way].append(part[way][0]["test"])
        rows += [
            {
                "data": data,
                "side": side,
                "epochs": epochs,
                "weights": weights,
                "way": way,
                "rates": rates[way][0],
                "test": found[way],
            }
            for way in WAYS
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
