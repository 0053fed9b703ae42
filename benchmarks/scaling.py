"""How the cost and the peak memory of a study grow with images, classes, cuts, grafts and image size.

One factor at a time, the others at their base value, on images that the script makes. Every point is a whole study in a
process of its own, whose peak memory is what the operating system counted. A point that the time limit stopped says so.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import common
import ours
from common import AS_COMMAND_LINE, Parts, Record
from grid import GRAFTS, spread_cuts
from inarch.errors import InarchError
from made import RANDOM, card_of, make_images

NETWORK = "mobilenetv1_025_128"
MADE_SIDE = 256


@dataclass(frozen=True)
class Point:
    """images: for training. cuts, grafts: how many. image_size: side in pixels."""

    images: int
    classes: int
    cuts: int
    grafts: int
    image_size: int


@dataclass(frozen=True)
class Effort:
    """base: where all factors stand but one. factors: the values that each takes."""

    base: Point
    factors: dict[str, tuple[int, ...]]
    epochs: int
    time_limit: float


FULL = Effort(
    Point(images=3000, classes=10, cuts=4, grafts=2, image_size=128),
    {
        "images": (300, 1000, 3000, 10_000), "classes": (10, 30, 100, 300, 1000), "cuts": (1, 2, 4, 8, 15),
        "grafts": (1, 2, 3, 4), "image_size": (64, 96, 128, 192, 224),
    },
    epochs=3, time_limit=1800.0,
)  # fmt: skip
QUICK = Effort(
    Point(images=300, classes=10, cuts=2, grafts=1, image_size=64),
    {"images": (300, 600), "classes": (10, 100), "cuts": (2, 4), "grafts": (1, 2), "image_size": (64, 128)},
    epochs=2, time_limit=300.0,
)  # fmt: skip


def points(effort: Effort) -> list[tuple[str, Point]]:
    """(factor, point) for every value of every factor."""
    return [
        (factor, replace(effort.base, **{factor: value}))
        for factor, values in effort.factors.items() for value in values
    ]  # fmt: skip


def study(manifest: str, card: str, run: str, options: dict[str, Any]) -> Record:
    """A study, or why Inarch refused it, as it does where the time limit leaves no room for the least of it."""
    try:
        return ours.study(manifest, card, run, options)
    except InarchError as error:
        return {"refused": error.problem}


def measure(parts: Parts, work: Path, effort: Effort, point: Point, network: str, device: str) -> Record:
    """The part of a point; equal points of several factors are measured once."""
    name = "-".join(f"{key}{value}" for key, value in asdict(point).items())
    images = make_images(
        work / "images" / f"{point.classes}-{point.images}",
        classes=point.classes, a_class=max(1, point.images // point.classes), side=MADE_SIDE,
    )  # fmt: skip
    card = card_of(network, work.resolve())
    wanted = {"data": images, "source": card, "image_size": point.image_size}
    shares = parts.measure(f"stages-{name}", "ours:facts", {"wanted": wanted})["frozen_shares"]
    cuts = spread_cuts(len(shares) - 1, point.cuts)
    options = {
        "cuts": ",".join(map(str, cuts[: point.cuts])), "grafts": ",".join(GRAFTS[: point.grafts]), "harmonise": "none",
        "epochs": effort.epochs, "seeds": 1, "image_size": point.image_size, "time_limit": effort.time_limit,
    } | common.on_device(device)  # fmt: skip
    run = (work / "runs" / name).resolve()
    # A run that was stopped would be taken up half-way, with the memory of the second half alone.
    if parts.get(name) is None:
        shutil.rmtree(run, ignore_errors=True)
    values = {"manifest": images, "card": card, "run": run, "options": options}
    found = parts.measure(name, "scaling:study", values, AS_COMMAND_LINE)
    shutil.rmtree(run, ignore_errors=True)
    return found


def row(factor: str, point: Point, found: Record) -> Record:
    """The figures of one point; `stopped`: trials that the time limit left out, None where it refused the study."""
    refused = "refused" in found
    return {"factor": factor, "value": getattr(point, factor), "point": asdict(point)} | {
        "seconds": None if refused else found["seconds"],
        "trials": None if refused else found["cost"]["trials"],
        "stopped": None if refused else found["left_out"],
        "peak_memory_bytes": common.peak_memory(found),
        "load_average": found["load_average"],
    }


def show(rows: Sequence[Record], effort: Effort, network: str) -> None:
    base = ", ".join(f"{name} {value}" for name, value in asdict(effort.base).items())
    cells = []
    for one in rows:
        if one["seconds"] is None:
            cells.append([one["factor"], one["value"], "refused: time limit", "", "", ""])
            continue
        stopped = f"stopped, {one['stopped']} trials left out" if one["stopped"] else ""
        each = f"{one['seconds'] / one['trials']:.2f}"
        cells.append(
            [one["factor"], one["value"], f"{one['seconds']:.1f}", one["trials"], each,
             f"{one['peak_memory_bytes'] / 2**20:.0f}", stopped]
        )  # fmt: skip
    columns = ["factor", "value", "seconds", "trials", "seconds a trial", "peak MiB", "time limit"]
    common.print_table(f"{network}, {effort.epochs} epochs; else {base}", columns, [(*c, "")[:7] for c in cells])


def main(given: Sequence[str] | None = None) -> int:
    parser = common.arguments(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    common.device_argument(parser)
    chosen = parser.parse_args(given)
    effort = QUICK if chosen.quick else FULL
    work = chosen.out / common.named("scaling", chosen)
    parts = Parts(chosen.parts or work / "parts", work)
    facts = common.machine()
    network = NETWORK if chosen.device == "cpu" else RANDOM
    rows = [
        row(factor, point, measure(parts, work, effort, point, network, chosen.device))
        for factor, point in points(effort)
    ]
    show(rows, effort, network)
    common.write_json(chosen.json, {"points": rows, "epochs": effort.epochs, "network": network, "machine": facts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
