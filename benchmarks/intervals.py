"""Whether the intervals and tests of a comparison keep what they promise: simulated comparisons of two methods.

Whether method m, trained on draw s, is right on image i: 1 where a sum of normal effects is above a threshold. Effects
belong to the image and to the draw (shared by both methods), to both together, to the method with each of them, and to
the method's training run and the image alone. `SIZES` are variances that reproduce what the records of a comparison on
real images show (`sizes`, lab notebook). Both methods have the same distribution, or differ by two points.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

import common
from inarch.results.statistics import PairedDifference, holm, paired_difference, paired_on_draws

Booleans = NDArray[np.bool_]
# clothing, landuse, grocery: test images.
IMAGES = (372, 420, 2485)
DRAWS = (3, 5, 10)
POINTS = 0.02
# As many as a comparison on real images had beside traditional fine-tuning.
FAMILY = 12


@dataclass(frozen=True)
class Sizes:
    """Variances of the effects; what remains of 1 belongs to a training run and an image alone."""

    image: float
    draw: float
    image_in_draw: float
    method_on_image: float
    method_on_draw: float

    @property
    def rest(self) -> float:
        return 1 - self.image - self.draw - self.image_in_draw - self.method_on_image - self.method_on_draw


# `inarch compare` on clothing, 20 images a class, 13 contestants, 3 draws.
SIZES = Sizes(image=0.454, draw=0.0155, image_in_draw=0.282, method_on_image=0.044, method_on_draw=0.0002)
# The same where a method does better on some draws than on others: by 2 and by 4 points (standard deviation of the
# difference of two methods), as where few labels or a high rate make training unreliable.
WORLDS = {
    "as recorded": SIZES,
    "method x draw 2 points": replace(SIZES, method_on_draw=0.00126),
    "method x draw 4 points": replace(SIZES, method_on_draw=0.0050),
}


def methods(
    random: np.random.Generator, world: Sizes, images: int, draws: int, accuracies: tuple[float, ...]
) -> list[Booleans]:
    """One comparison: right or wrong [draws, images] of each method; accuracies are the means over all worlds."""

    def effect(variance: float, *shape: int) -> NDArray[np.float32]:
        return np.float32(np.sqrt(variance)) * random.standard_normal(shape, dtype=np.float32)

    shared = effect(world.image, 1, images) + effect(world.draw, draws, 1) + effect(world.image_in_draw, draws, images)
    return [
        shared + effect(world.method_on_image, 1, images) + effect(world.method_on_draw, draws, 1)
        + effect(world.rest, draws, images) > -norm.ppf(accuracy)
        for accuracy in accuracies
    ]  # fmt: skip


def simulate(
    world: Sizes, images: int, draws: int, *, times: int, seed: int, difference: float = 0.0,
    test: Callable[[Booleans, Booleans], PairedDifference] = paired_on_draws,
) -> dict[str, float]:  # fmt: skip
    """Shares of simulated comparisons in which the test rejects and the interval holds the truth, and its reach."""
    found = []
    for number in range(times):
        random = np.random.default_rng([seed, images, draws, number])
        b, a = methods(random, world, images, draws, (0.54, 0.54 + difference))
        pair = test(a, b)
        low, high = pair.interval95
        found.append((pair.p < 0.05, low <= difference <= high, (high - low) / 2))
    rejected, covered, reach = np.mean(found, axis=0)
    return {"rejected": float(rejected), "covered": float(covered), "reach": float(reach)}


def family(world: Sizes, images: int, draws: int, *, times: int, seed: int) -> float:
    """Share of comparisons of `FAMILY` methods with one more, all the same, where Holm's correction lets any differ."""
    some = 0
    for number in range(times):
        random = np.random.default_rng([seed, images, draws, number, FAMILY])
        reference, *others = methods(random, world, images, draws, (0.54,) * (FAMILY + 1))
        some += min(holm([paired_on_draws(other, reference).p for other in others])) < 0.05
    return some / times


def sizes(correct: Mapping[str, Booleans]) -> dict[str, float]:
    """Standard deviations in records [draws, images] of methods on the same draws, as two-way layouts estimate them.

    Of one method, and of the difference of two: draws, images, and the rest. Root mean squares over methods and pairs.
    """
    values = [x.astype(float) for x in correct.values()]
    pairs = [x - y for place, x in enumerate(values) for y in values[:place]]
    found = {}
    for name, some in (("one", values), ("difference", pairs)):
        for part, variances in zip(("draws", "images", "rest"), zip(*map(_components, some), strict=True), strict=True):
            found[f"{name}, {part}"] = float(np.sqrt(max(0.0, float(np.mean(variances)))))
    return found


def _components(x: NDArray[np.float64]) -> tuple[float, float, float]:
    draws, images = x.shape
    of_draws, of_images = x.mean(axis=1, keepdims=True), x.mean(axis=0, keepdims=True)
    rest = float(((x - of_draws - of_images + x.mean()) ** 2).sum()) / ((draws - 1) * (images - 1))
    return float(of_draws.var(ddof=1)) - rest / images, float(of_images.var(ddof=1)) - rest / draws, rest


def figures(times: int, images: tuple[int, ...] = IMAGES, draws: tuple[int, ...] = DRAWS) -> dict[str, Any]:
    """Everything that is reported. The recorded sizes beside those of a world show how near it is."""
    rows = []
    for name, world in WORLDS.items():
        for n in images:
            for s in draws:
                same = simulate(world, n, s, times=times, seed=1)
                two = simulate(world, n, s, times=times, seed=2, difference=POINTS)
                independent = simulate(world, n, s, times=times, seed=1, test=paired_difference)
                rows.append(
                    {"world": name, "images": n, "draws": s, "rejected": same["rejected"], "covered": same["covered"],
                     "reach": same["reach"], "power": two["rejected"], "covered_two_points": two["covered"],
                     "reach_independent": independent["reach"], "rejected_independent": independent["rejected"]}
                )  # fmt: skip
                common.say(f"{name}, {n} images, {s} draws: {rows[-1]}")
    families = {name: family(world, images[0], 5, times=times, seed=3) for name, world in WORLDS.items()}
    random = np.random.default_rng(4)
    example = methods(random, SIZES, 20_000, 200, (0.54, 0.54))
    return {
        "times": times,
        "rows": rows,
        "family": families,
        "sizes": sizes({str(n): x for n, x in enumerate(example)}),
        "machine": common.machine(("numpy", "scipy")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--times", type=int, default=1000, help="comparisons to simulate in each place of the table")
    given = parser.parse_args()
    found = figures(given.times)
    columns = ("world", "images", "draws", "rejected", "covered", "reach", "power", "reach_independent")
    common.print_table(
        f"{given.times} comparisons each; power at {100 * POINTS:g} points", columns,
        [[row[c] for c in columns] for row in found["rows"]],
    )  # fmt: skip
    common.print_table("Any of the family found, after Holm", ("world", "share"), list(found["family"].items()))
    common.print_table("Standard deviations in the world", ("of", "size"), list(found["sizes"].items()))
    common.write_json(given.json, found)


if __name__ == "__main__":
    main()
