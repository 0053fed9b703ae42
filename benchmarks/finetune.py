"""One ordinary fine-tuning of all layers: Inarch against timm's building blocks, fastai and Hugging Face Trainer.

Same network, weights, images, batch, epochs, augmentation and optimiser; each in the precision that it takes by itself
(peers float32, Inarch what its plan measures). peers.py says how each is called. Peers that are not installed are left
out and named. The speed of the bare training step on random tensors in memory, measured in the same process behind our
own run, says how much of it is left when images come from files.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median, stdev

import common
from common import AS_COMMAND_LINE, PACKAGES, Parts, Record, middle
from made import MADE, RANDOM, card_of, make_images
from peers import CONTESTANTS, NEEDS

PEER_PACKAGES = ("fastai", "transformers", "accelerate", "datasets")


@dataclass(frozen=True)
class Course:
    """How a network is trained by every contestant. rate: the learning rate of all layers."""

    epochs: int
    rate: float = 0.01


@dataclass(frozen=True)
class Effort:
    """How much is trained. a_class: training images a class at most. A seed is a round."""

    courses: Mapping[str, Course]
    data: str = "clothing"
    a_class: int = 100
    seeds: int = 3
    batch_size: int = 32
    image_size: int | None = None


FULL = Effort(
    {
        "mobilenetv2_100": Course(3),
        # It has no normalisation: with the others' rate and few epochs, how its new classifier begins decides where it
        # ends (docs/lab-notebook.md).
        "squeezenet1_1": Course(8, rate=0.002),
        "mobilenetv1_025_128": Course(6),
    }
)
QUICK = Effort(
    {network: replace(course, epochs=2) for network, course in FULL.courses.items()}, a_class=30, image_size=128
)
# Where there is a GPU: made images, and ResNet-50 with random weights.
GPU = Effort({RANDOM: Course(4)}, data=MADE, a_class=100, batch_size=128)


def copy_images(data: Path, folder: Path, a_class: int) -> Path:
    """Class folders with at most `a_class` training images a class, whole files: every tool reads the same folder."""
    if not (folder / "complete").exists():
        manifest = common.draw(data, folder / "manifest.csv", a_class=a_class, seed=0)
        folders = {split: name for name, split in common.FOLDERS.items()}
        for line in manifest.read_text(encoding="utf-8").splitlines()[1:]:
            path, label, split = line.split(",")
            place = folder / "images" / folders[split] / label
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place / Path(path).name)
        (folder / "complete").touch()
    return folder / "images"


def installed() -> list[str]:
    """The contestants whose packages are there."""
    return [name for name in CONTESTANTS if all(find_spec(needed) for needed in NEEDS[name])]


def measure(parts: Parts, work: Path, effort: Effort, images: Path, device: str) -> dict[str, dict[str, list[Record]]]:
    """Parts by network and contestant, seed after seed: in every seed all contestants, one after the other."""
    found: dict[str, dict[str, list[Record]]] = {}
    for network, course in effort.courses.items():
        source = card_of(network, work)
        for seed in range(effort.seeds):
            for contestant in installed():
                for jitter in (0.0, 0.2) if contestant == "inarch" else (0.0,):
                    name = contestant + (", colour jitter" if jitter else "")
                    part = f"{network}-{contestant}{'-jitter' if jitter else ''}-{seed}"
                    values = {
                        "contestant": contestant, "images": images, "source": source, "run": work / "runs" / part,
                        "epochs": course.epochs, "rate": course.rate, "batch_size": effort.batch_size, "seed": seed,
                        "device": device, "image_size": effort.image_size, "colour_jitter": jitter,
                    }  # fmt: skip
                    ours = AS_COMMAND_LINE if contestant == "inarch" else {}
                    record = parts.measure(part, "peers:fine_tune", values, ours)
                    found.setdefault(network, {}).setdefault(name, []).append(record)
    return found


def share_of_random_tensors(record: Record) -> float:
    """Of one process by itself: what disturbs a machine lasts longer than one measurement."""
    share: float = record["images_per_second_steps_later"] / record["images_per_second_from_random_tensors"]
    return share


def utilisation(ours: Record, images_per_second: float) -> float | None:
    """The operations of that many training steps over those of matrix products, alike a second."""
    if "operations_an_image" not in ours:  # parts from before it was measured
        return None
    operations, rate = ours["operations_an_image"], ours["operations_per_second_of_products"]
    return float(images_per_second * operations / rate)


def figures(found: dict[str, list[Record]]) -> Record:
    """Medians of one network over seeds; how many times faster we are than the fastest peer; and what files cost."""
    contestants = {}
    for name, records in found.items():
        accuracies = [record["test_accuracy"] for record in records]
        contestants[name] = {
            "seconds": middle(records, "seconds"),
            "images_per_second": middle(records, "images_per_second"),
            "images_per_second_later": middle(records, "images_per_second_later"),
            "test_accuracy": fmean(accuracies),
            "standard_deviation": stdev(accuracies) if len(accuracies) > 1 else None,
            "rounds": len(records),
            "peak_memory_bytes": max(record["peak_memory_bytes"] for record in records),
            "utilisation": utilisation(found["inarch"][0], middle(records, "images_per_second_later")),
        }
    bare = middle(found["inarch"], "images_per_second_from_random_tensors")
    peers = [one["images_per_second"] for name, one in contestants.items() if not name.startswith("inarch")]
    return {
        "contestants": contestants,
        "images_per_second_from_random_tensors": bare,
        "share_of_random_tensors": {
            name: median(map(share_of_random_tensors, records))
            for name, records in found.items() if name.startswith("inarch")
        },
        "speedup_over_fastest_peer": contestants["inarch"]["images_per_second"] / max(peers) if peers else None,
    }  # fmt: skip


def show(network: str, effort: Effort, values: Record) -> None:
    rows = [
        [
            name, one["images_per_second"], one["images_per_second_later"], one["seconds"],
            f"{100 * one['test_accuracy']:.1f}"
            + (f" ± {100 * one['standard_deviation']:.1f}" if one["standard_deviation"] is not None else ""),
            one["peak_memory_bytes"] / 2**20, "" if one["utilisation"] is None else f"{100 * one['utilisation']:.1f} %",
            one["rounds"],
        ]
        for name, one in values["contestants"].items()
    ]  # fmt: skip
    columns = ["", "images/s", "from 2nd epoch", "seconds", "test accuracy, spread", "MiB", "utilisation", "rounds"]
    size = f"{effort.image_size} pixels" if effort.image_size else "the size of its card"
    title = f"{network}, {effort.data}, {size}, {effort.courses[network].epochs} epochs, batch {effort.batch_size}"
    common.print_table(title, columns, rows)
    if values["speedup_over_fastest_peer"]:
        print(f"{values['speedup_over_fastest_peer']:.2f} times the fastest peer.")
    for name, share in values["share_of_random_tensors"].items():
        print(f"{name}: from the second epoch on {100 * share:.1f} % of the speed on random tensors in memory.")


def main(given: Sequence[str] | None = None) -> int:
    parser = common.arguments(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    common.device_argument(parser)
    chosen = parser.parse_args(given)
    effort = GPU if chosen.device != "cpu" else QUICK if chosen.quick else FULL
    work = (chosen.out / common.named("finetune", chosen)).resolve()
    if effort.data == MADE:
        images = make_images(work / "images", classes=10, a_class=effort.a_class, side=256)
    else:
        images = copy_images(common.shared() / "data" / effort.data, work, effort.a_class)
    facts = common.machine((*PACKAGES, *PEER_PACKAGES))
    found = measure(Parts(chosen.parts or work / "parts", work), work, effort, images, chosen.device)
    results = {network: figures(parts) for network, parts in found.items()}
    for network, values in results.items():
        show(network, effort, values)
    left_out = [name for name in CONTESTANTS if name not in installed()]
    print("Versions: " + ", ".join(f"{name} {value}" for name, value in facts["versions"].items() if value))
    if left_out:
        print(f"Not installed and left out: {', '.join(left_out)} (pip install '.[benchmarks]').")
    common.write_json(chosen.json, {"networks": results, "left_out": left_out, "machine": facts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
