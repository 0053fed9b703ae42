"""What the records of the evidence run say: differences with intervals, ranks, correlations; pure functions of records.

Within a part, differences are taken draw by draw and image by image (`paired_on_draws`). Over parts, the interval is
Student's over the parts' own differences, each counting once: it is about other data sets and sources like these, as
far as parts that share images can say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evidence_design import BEGINNINGS, MAIN
from evidence_records import DRAWN, PREFIX, SIMILARITY, WARNING, Written
from inarch.results.statistics import PairedDifference, holm, paired_on_draws

Named = tuple[str, str]
"""A chapter and a contestant of it."""
# Fewest parts over which an interval is shown: Student's over two says nothing.
FEWEST = 3


@dataclass(frozen=True)
class Mean:
    """A mean over parts with its 95 % interval (not a number where there are fewer than two) and their count."""

    value: float
    low: float
    high: float
    count: int


def mean_of(values: Sequence[float]) -> Mean | None:
    """Student's interval for the mean; None of nothing."""
    if not values:
        return None
    mean, count = float(np.mean(values)), len(values)
    reach = float("nan")
    if count > 1:
        reach = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return Mean(mean, mean - reach, mean + reach, count)


def over_these(pairs: Sequence[PairedDifference]) -> tuple[float, float, float]:
    """Mean difference of parts and its interval about these parts alone, over their draws and images.

    These are taken as independent from part to part: the half-widths of their own intervals add as standard errors do.
    """
    mean = float(np.mean([pair.difference for pair in pairs]))
    halves = [(pair.interval95[1] - pair.interval95[0]) / 2 for pair in pairs]
    reach = float(np.sqrt(np.sum(np.square(halves)))) / len(pairs)
    return mean, mean - reach, mean + reach


def draws_of(part: Written, of: Named) -> dict[int, str]:
    """Keys of the tested draws of a contestant by number; empty where it is not in a finished chapter.

    What is asked of `layer` may stand in one of its beginnings.
    """
    where = (of[0], *(BEGINNINGS if of[0] == MAIN[0] else ()))
    found = (part.chapters.get(chapter, {}).get("contestants", {}).get(of[1], []) for chapter in where)
    keys: list[str] = next(filter(None, found), [])
    return {number: key for number, key in enumerate(keys) if key in part.right}


def right(part: Written, keys: Sequence[str]) -> NDArray[np.bool_]:
    return np.stack([part.right[key] for key in keys])


def accuracy(part: Written, of: Named) -> float | None:
    """Mean test accuracy over its draws."""
    keys = list(draws_of(part, of).values())
    return float(right(part, keys).mean()) if keys else None


def difference(part: Written, a: Named, b: Named) -> PairedDifference | None:
    """Accuracy of a minus that of b on the draws that both have; None where there are none."""
    mine, its = draws_of(part, a), draws_of(part, b)
    common = sorted(mine.keys() & its.keys())
    if not common:
        return None
    return paired_on_draws(right(part, [mine[n] for n in common]), right(part, [its[n] for n in common]))


def between(part: Written, a: Sequence[str], b: Sequence[str]) -> PairedDifference | None:
    """The same for keys in the order of the draws."""
    common = [(x, y) for x, y in zip(a, b, strict=True) if x in part.right and y in part.right]
    return paired_on_draws(*(right(part, keys) for keys in zip(*common, strict=True))) if common else None


def over_parts(parts: Sequence[Written], a: Named, b: Named) -> Mean | None:
    return mean_of([pair.difference for pair in in_parts(parts, a, b)])


def in_parts(parts: Sequence[Written], a: Named, b: Named) -> list[PairedDifference]:
    """The differences in all parts that have both."""
    return [pair for part in parts if (pair := difference(part, a, b)) is not None]


def settled(pairs: Sequence[PairedDifference]) -> tuple[int, int]:
    """How many differences are above zero, and how many below, with their whole intervals."""
    return sum(pair.interval95[0] > 0 for pair in pairs), sum(pair.interval95[1] < 0 for pair in pairs)


def contestants_of(parts: Sequence[Written], chapter: str) -> list[str]:
    """Names that any part has in a chapter, in their order there."""
    return list(dict.fromkeys(n for part in parts for n in part.chapters.get(chapter, {}).get("contestants", {})))


def chosen_of(part: Written, some: Sequence[Named]) -> list[str]:
    """Draw by draw the key of the contestant with the highest validation accuracy there, as a user would choose, of
    those that the part has; empty where it has none, or lacks a draw of one. Of equals the first.
    """
    known, by_name = part.validation, [keys for of in some if (keys := draws_of(part, of))]
    numbers = sorted(set().union(*by_name))
    if any(len(keys) != len(numbers) for keys in by_name):
        return []
    return [max((keys[n] for keys in by_name), key=lambda key: known[key]) for n in numbers]


def sides(part: Written, a: Sequence[Named], b: Sequence[Named]) -> PairedDifference | None:
    """The accuracy of what validation chooses of a minus that of what it chooses of b, draw by draw."""
    mine, its = chosen_of(part, a), chosen_of(part, b)
    return between(part, mine, its) if mine and len(mine) == len(its) else None


def sides_in_parts(parts: Sequence[Written], a: Sequence[Named], b: Sequence[Named]) -> list[PairedDifference]:
    """The same in all parts that have both."""
    return [pair for _, pair in sides_by_part(parts, a, b)]


def sides_by_part(
    parts: Sequence[Written], a: Sequence[Named], b: Sequence[Named]
) -> list[tuple[Written, PairedDifference]]:
    """The same, each with its part."""
    return [(part, pair) for part in parts if (pair := sides(part, a, b)) is not None]


def curve(part: Written, chapter: str, field: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of `depth` (field cuts) or `rates` by name, each with its test and validation accuracy over its draws."""
    known = part.validation
    found: dict[str, list[dict[str, Any]]] = {}
    for row in part.chapters.get(chapter, {}).get(field, []):
        keys = [key for key in row["draws"] if key in part.right]
        if keys:
            means = {
                "accuracy": float(right(part, keys).mean()),
                "validation": float(np.mean([known[k] for k in keys])),
            }
            found.setdefault(row["name"], []).append({**row, **means})
    return found


def best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row that validation chooses."""
    return max(rows, key=lambda row: row["validation"])


def chosen_against(
    part: Written, chapter: str, field: str, other: Callable[[Sequence[dict[str, Any]]], dict[str, Any]]
) -> dict[str, tuple[dict[str, Any], PairedDifference | None]]:
    """For each name the row that validation chooses, and its difference in test accuracy from another row."""
    return {
        name: (chosen := best(rows), between(part, chosen["draws"], other(rows)["draws"]))
        for name, rows in curve(part, chapter, field).items()
    }


@dataclass(frozen=True)
class Ranked:
    """A method over parts. p: Wilcoxon's signed ranks against `against`, Holm-corrected; not a number of one part."""

    name: str
    rank: float
    difference: Mean
    p: float


def ranks(parts: Sequence[Written], methods: Sequence[Named], against: Named) -> tuple[list[Ranked], float, int]:
    """Methods that all counted parts have, by mean rank (1 is best, ties share); Friedman's p; the number of parts.

    Of methods that some part lacks the part is left out, of parts that hold nothing of the chapter nothing counts.
    """
    rows = [[accuracy(part, of) for of in methods] for part in parts]
    rows = [row for row in rows if all(value is not None for value in row)]
    if not rows:
        return [], float("nan"), 0
    table = np.array(rows, dtype=float)
    place = stats.rankdata(-table, axis=1).mean(axis=0)
    base = table[:, list(methods).index(against)]
    others = [number for number, of in enumerate(methods) if of != against]
    raw = [_wilcoxon(table[:, number] - base) for number in others]
    corrected = dict(zip(others, holm(raw), strict=True)) if len(rows) > 1 else {}
    found = []
    for number, of in enumerate(methods):
        mean = mean_of((table[:, number] - base).tolist())
        assert mean is not None
        found.append(Ranked(of[1], float(place[number]), mean, corrected.get(number, float("nan"))))
    friedman = float(stats.friedmanchisquare(*table.T).pvalue) if len(rows) > 1 and len(methods) > 2 else float("nan")
    return sorted(found, key=lambda r: r.rank), friedman, len(rows)


def _wilcoxon(differences: NDArray[np.float64]) -> float:
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def critical_difference(methods: int, parts: int) -> float:
    """Of mean ranks, after Nemenyi, at 5 % (Demsar, JMLR 7, 2006)."""
    q = float(stats.studentized_range.ppf(0.95, methods, np.inf)) / np.sqrt(2)
    return q * float(np.sqrt(methods * (methods + 1) / (6 * parts)))


def warnings(part: Written) -> dict[str, dict[str, float]]:
    """Of each contestant's first draw: test accuracy after the last epoch, and after the best one on the test split."""
    epochs = {r.key.removeprefix(PREFIX[WARNING]): r.outcome["epochs"] for r in part.of(WARNING)}
    trials: Mapping[str, str] = part.chapters.get("warning", {}).get("trials", {})
    return {n: {"last": epochs[k][-1], "best": max(epochs[k])} for n, k in trials.items() if epochs.get(k)}


def similarity(part: Written) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
    """Of each class with test images: share of its most frequent source class, gain by retaining, images.

    gain: accuracy of retain minus that of replace on the images of the class, mean over the draws that both have.
    """
    mine, its = draws_of(part, ("layer", "retain")), draws_of(part, ("layer", "replace"))
    common, looked = sorted(mine.keys() & its.keys()), part.of(SIMILARITY)
    if not common or not looked:
        return None
    gains = right(part, [mine[n] for n in common]).mean(axis=0) - right(part, [its[n] for n in common]).mean(axis=0)
    rows = [(n, row) for n, row in enumerate(looked[0].outcome["classes"]) if row["images"]]
    share = np.array([row["share"] for _, row in rows])
    gain = np.array([gains[part.labels == n].mean() for n, _ in rows])
    return share, gain, np.array([row["images"] for _, row in rows], dtype=float)


def correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's; None where one does not vary or there are fewer than three."""
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return float(stats.spearmanr(x, y).statistic)


def correlation_interval(rank: float, count: int) -> tuple[float, float] | None:
    """95 % interval of Spearman's correlation of `count` pairs, through Fisher's transform with the variance of Fieller
    et al. (Biometrika 44, 1957); None where four pairs or fewer, or a perfect order, leave nothing to go by.
    """
    if count < 5 or abs(rank) >= 1:
        return None
    middle, reach = np.arctanh(rank), stats.norm.ppf(0.975) * np.sqrt(1.06 / (count - 3))
    return float(np.tanh(middle - reach)), float(np.tanh(middle + reach))


def surviving(part: Written, of: Named) -> tuple[float, float] | None:
    """Mean agreement and divergence of source logits over its draws; where no old layer trained, 1 and 0."""
    keys = set(draws_of(part, of).values())
    found = [r.outcome["survival"] for r in part.of(DRAWN) if r.key.removeprefix(PREFIX[DRAWN]) in keys]
    if not found:
        return None
    both = [(s["agreement"], s["divergence"]) if s else (1.0, 0.0) for s in found]
    return float(np.mean([a for a, _ in both])), float(np.mean([d for _, d in both]))
