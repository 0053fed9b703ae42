"""Validation accuracy against the number of views that every image has: 1, 2, 4, 8, and as many as epochs.

Stored prefixes cost as much as there are views, so this says how many are worth it. Trainings of a retaining graft with
the cut at the classification layer, in the middle and behind the first stage, over several seeds, at the rate that the
range test finds. With nothing frozen every epoch has a fresh view, whatever is asked for: there is nothing to compare.
The test split is not touched.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, variance

import common
from common import AS_COMMAND_LINE, Parts, Record
from inarch.launch.here import Workbench
from inarch.training.fit import Watch
from inarch.training.trial import TrainingSettings
from ours import Wanted, in_study, trial_of

NETWORK = "mobilenetv1_025_128"
GRAFT = "retain"
# Old layers learn at a tenth of the new layers' rate, as in "Growing a Brain".
RATIO = 0.1
# How many standard errors a loss may be away from nothing and count as noise.
NOISE = 2.0


@dataclass(frozen=True)
class Effort:
    """What is trained. views: those below `epochs` count, and as many as epochs, which is fresh augmentation. images:
    for training, about so many and at most 100 a class."""

    data_sets: tuple[str, ...] = common.DATA_SETS
    views: tuple[int, ...] = (1, 2, 4, 8)
    epochs: int = 16
    seeds: int = 5
    images: int = 1000
    image_size: int = 128

    def all_views(self) -> tuple[int, ...]:
        return (*(number for number in self.views if number < self.epochs), self.epochs)


QUICK = Effort(data_sets=("clothing",), views=(1, 4), epochs=6, seeds=3, images=300)


def accuracies(wanted: Record, run: str, cut: int, seeds: int) -> Record:
    """Validation accuracy of every seed, at the rate that the range test found with these views."""

    def work(bench: Workbench, settings: TrainingSettings) -> Record:
        configuration = trial_of(GRAFT, cut, 0, settings, (0.0, 0.0)).configuration
        deepest = len(bench.staged.stages)
        new = bench.new_layer_rate(configuration, settings, deepest, 0)
        old = RATIO * new if cut < deepest else 0.0
        trials = [trial_of(GRAFT, cut, seed, settings, (old, new)) for seed in range(1, seeds + 1)]
        found = [bench.run([trial], Watch())[0].accuracy for trial in trials]
        return {"accuracies": found, "rate": new, "validation_images": len(bench.store.images.rows["validation"])}

    return in_study(Wanted.from_json(wanted), Path(run), work)


def rows_of(by_views: Mapping[int, Sequence[float]]) -> list[Record]:
    """For each number of views the mean accuracy, its standard error over seeds, and the loss against fresh views.

    The spread over seeds is pooled over all numbers of views, for with few seeds each alone says little. A loss is
    within noise if it is at most twice the standard error of the difference.
    """
    fresh = max(by_views)
    pooled = math.sqrt(fmean(variance(found) for found in by_views.values()))
    rows = []
    for views, found in sorted(by_views.items()):
        loss = fmean(by_views[fresh]) - fmean(found)
        error = pooled * math.sqrt(1 / len(found) + 1 / len(by_views[fresh])) if views != fresh else 0.0
        rows.append(
            {
                "views": views, "accuracy": fmean(found), "standard_error": pooled / math.sqrt(len(found)),
                "loss_points": 100 * loss, "loss_standard_error_points": 100 * error,
                "within_noise": loss <= NOISE * error, "seeds": len(found),
            }
        )  # fmt: skip
    return rows


def averages(rows: Sequence[Record]) -> list[Record]:
    """For each number of views the loss against fresh ones, averaged over data sets and cuts."""
    found = []
    for views in sorted({row["views"] for row in rows}):
        some = [row for row in rows if row["views"] == views]
        loss = fmean(row["loss_points"] for row in some)
        error = math.sqrt(sum(row["loss_standard_error_points"] ** 2 for row in some)) / len(some)
        found.append(
            {
                "views": views, "loss_points": loss, "loss_standard_error_points": error,
                "within_noise": loss <= NOISE * error, "places": len(some),
            }
        )  # fmt: skip
    return found


def places(deepest: int) -> tuple[tuple[str, int], ...]:
    """Cuts that are measured, by name: those at which something is frozen, so that the number of views counts."""
    return ("classification layer", deepest), ("middle", deepest // 2), ("first stage", 1)


def measure(parts: Parts, work: Path, effort: Effort, data: str) -> list[Record]:
    """The rows of one data set at all three cuts."""
    manifest = common.draw_about(work.resolve(), data, effort.images, seed=0)
    wanted: Record = {"data": manifest, "source": common.card(NETWORK), "image_size": effort.image_size}
    facts = parts.measure(f"{data}-facts", "ours:facts", {"wanted": wanted})
    deepest = len(facts["frozen_shares"]) - 1
    found = []
    for place, cut in places(deepest):
        by_views = {}
        for views in effort.all_views():
            name = f"{data}-cut{cut}-views{views}"
            run = work.resolve() / "runs" / name
            options = {"epochs": effort.epochs, "views": views}
            values = {"wanted": wanted | {"options": options}, "run": run, "cut": cut, "seeds": effort.seeds}
            by_views[views] = parts.measure(name, "views:accuracies", values, AS_COMMAND_LINE)["accuracies"]
            shutil.rmtree(run, ignore_errors=True)
        found += [{"data": data, "cut": cut, "place": place} | row for row in rows_of(by_views)]
    return found


def show(rows: Sequence[Record], effort: Effort) -> None:
    def loss_of(row: Record) -> tuple[str, str]:
        if row["views"] == effort.epochs:
            return "", "fresh"
        loss = f"{row['loss_points']:+.1f} ± {row['loss_standard_error_points']:.1f}"
        return loss, "within noise" if row["within_noise"] else "beyond noise"

    cells = []
    for row in rows:
        accuracy = f"{100 * row['accuracy']:.1f} ± {100 * row['standard_error']:.1f}"
        cells.append([row["data"], f"{row['cut']} ({row['place']})", row["views"], accuracy, *loss_of(row)])
    cells += [["average", "", row["views"], "", *loss_of(row)] for row in averages(rows)]
    columns = ["data", "cut", "views", "validation accuracy", "loss against fresh views, points", ""]
    title = f"{NETWORK}, {GRAFT}, {effort.epochs} epochs, {effort.seeds} seeds; ± one standard error over seeds"
    common.print_table(title, columns, cells)


def main(given: Sequence[str] | None = None) -> int:
    parser = common.arguments(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    chosen = parser.parse_args(given)
    effort = QUICK if chosen.quick else Effort()
    work = chosen.out / ("views-quick" if chosen.quick else "views")
    facts = common.machine()
    rows = [
        row
        for data in effort.data_sets
        for row in measure(Parts(chosen.parts or work / "parts", work), work, effort, data)
    ]
    show(rows, effort)
    found = {"rows": rows, "averages": averages(rows)}
    common.write_json(chosen.json, found | {"epochs": effort.epochs, "network": NETWORK, "machine": facts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
