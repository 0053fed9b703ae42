"""Whether `--unknown` keeps its promise: the share of known and of other images that a finished run calls unknown.

The probabilities of the validation and test images, which the ledger of the run folder holds, are thrown together and
split anew at random many times, into as many validation and test images as before. Each time the threshold comes from
the new validation images, and counts are taken on the new test images and on images of other data sets, which the
delivered model classifies once. The run's own split is given beside the mean.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import common
import inarch
from common import Record
from inarch.results.folder import LEDGER
from inarch.results.ledger import Ledger
from inarch.results.unknown import entropy, p_values


def delivered_probabilities(run: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities [images, classes] of the delivered model on validation and test, from a finished run folder."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    with Ledger(run / LEDGER) as ledger:
        tests = [r for r in ledger.records("test") if _is_delivered(r.subject, results)]
        if len(tests) != 1:
            sys.exit(
                f"The ledger of {run} holds {len(tests)} tests of the model that its results name, instead of one."
            )
        trial = ledger.get(tests[0].key.removeprefix("test-"))
    assert trial is not None
    return trial.arrays["validation"], tests[0].arrays["test"]


def _is_delivered(trial: Mapping[str, Any], results: Mapping[str, Any]) -> bool:
    chosen, model = results["chosen"], results["test"]["model"]
    return (
        trial["cut"] == model["cut"]["index"]
        and trial["seed"] == model["seeds"][0]
        and all(trial[name] == chosen[name] for name in ("method", "learning_rate", "new_layer_learning_rate"))
        and all(trial["configuration"][name] == chosen[name] for name in ("graft", "harmonise", "hidden"))
        and trial["settings"]["epochs"] == results["settings"]["epochs"]
    )


def other_scores(run: Path, images: Path) -> NDArray[np.float64]:
    """How strange the images of a folder look to the delivered model: scores [images]."""
    model = inarch.load(run, announce=common.say)
    classes = len(model.classes)
    found = [p for p in model.predict([images], top=classes) if p.error is None]
    return entropy(np.array([p.probabilities for p in found]))


def split_anew(
    validation: NDArray[np.float64],
    test: NDArray[np.float64],
    others: Mapping[str, NDArray[np.float64]],
    rate: float,
    splits: int,
    seed: int,
) -> Record:
    """Shares that are unknown, of test images and of others: on the run's own split, and over random ones."""
    random = np.random.default_rng(seed)
    pool, n = np.concatenate([validation, test]), len(validation)
    drawn: dict[str, list[float]] = {name: [] for name in ("test", *others)}
    for _ in range(splits):
        order = random.permutation(len(pool))
        for name, shares in drawn.items():
            scores = pool[order[n:]] if name == "test" else others[name]
            shares.append(_share(scores, pool[order[:n]], rate))
    own = {"test": test, **others}
    return {
        name: {
            "images": len(own[name]),
            "own_split": _share(own[name], validation, rate),
            "mean": float(np.mean(shares)),
            "standard_deviation": float(np.std(shares)),
            "range95": [float(q) for q in np.quantile(shares, [0.025, 0.975])],
        }
        for name, shares in drawn.items()
    }  # fmt: skip


def _share(scores: NDArray[np.float64], calibration: NDArray[np.float64], rate: float) -> float:
    return float(np.mean(p_values(scores, calibration) <= rate))


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run folder; it is only read")
    parser.add_argument("others", type=Path, nargs="*", help="folders of images that are of no known class")
    parser.add_argument("--rate", type=float, default=0.05, help="what --unknown gets")
    parser.add_argument("--splits", type=int, default=200, help="random splits")
    parser.add_argument("--seed", type=int, default=0, help="of the random splits")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    chosen = parser.parse_args(given)
    validation, test = map(entropy, delivered_probabilities(chosen.run))
    others = {folder.name: other_scores(chosen.run, folder) for folder in chosen.others}
    found = split_anew(validation, test, others, chosen.rate, chosen.splits, chosen.seed)
    rows = [
        [name, row["images"], *(f"{100 * row[key]:.2f} %" for key in ("own_split", "mean", "standard_deviation")),
         " to ".join(f"{100 * q:.1f}" for q in row["range95"])]
        for name, row in found.items()
    ]  # fmt: skip
    common.print_table(
        f"Unknown at --unknown {chosen.rate:g}, {len(validation)} validation images, {chosen.splits} random splits",
        ["images of", "number", "own split", "mean of splits", "standard deviation", "95 % of splits"], rows,
    )  # fmt: skip
    facts = {"rate": chosen.rate, "splits": chosen.splits, "validation_images": len(validation)}
    common.write_json(chosen.json, facts | {"shares": found, "machine": common.machine()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
