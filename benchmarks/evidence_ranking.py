"""How scores rank the source networks before any training, beside how good each is after fine-tuning.

    python benchmarks/evidence_ranking.py      one forward pass of every source over every data set, a few minutes

The scores stand in evidence/rankings.json; accuracies come from the records of the evidence run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from scipy import stats

import common
import evidence_figures as figures
import inarch
from evidence_design import DATA, SOURCES, Part
from evidence_numbers import Mean, chosen_of, right
from evidence_records import Written
from evidence_tables import WITHOUT, table
from inarch.plural import counted
from inarch.report.words import percent

FILE = common.HERE.parent / "evidence" / "rankings.json"
# Fewest sources that an order is made of.
FEWEST = 3
CHANCE = 50.0


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    data = common.shared() / "data"
    found = {name: ranked(data / name) for name in DATA}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    titles = next(iter(found.values()))["titles"]
    rows = [[name, source, *row.values()] for name, one in found.items() for source, row in one["scores"].items()]
    common.print_table("Scores of source networks", ["data", "source", *titles.values()], rows)


def ranked(folder: Path) -> dict[str, Any]:
    """Scores of every source on the training images of a data set, at the image sizes of the evidence run."""
    titles, scores = {}, {}
    for source, side in SOURCES.items():
        common.say(f"{folder.name}: {source} ...")
        one = inarch.rank(folder, sources=[common.card(source)], image_size=side)
        titles, scores[source] = one["titles"], one["ranked"][0]["scores"]
    return {"titles": titles, "scores": scores}


def rankings(parts: Sequence[Written], pictures: Path, file: Path | None = None) -> str:
    """The text below the question's heading, empty where no scores or too few accuracies are known."""
    file = file or FILE
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    rows, agreement = [], []
    orders: dict[str, list[bool]] = {}
    for name, one in found.items():
        by_shots = {
            shots: {source: value for source, value in accuracies.items() if source in one["scores"]}
            for shots, accuracies in trained(parts, name).items()
        }
        for shots, accuracies in by_shots.items():
            if len(accuracies) >= FEWEST:
                agreement.append([name, _size(shots), str(len(accuracies)), *_agreement(one, accuracies)])
            for title, right_way in _ordered(one, accuracies).items():
                orders.setdefault(title, []).extend(right_way)
        for source, scores in one["scores"].items():
            reached = [f"{percent(a[source])} ({_size(s)})" for s, a in by_shots.items() if source in a]
            rows.append([name, source, *(f"{value:.3g}" for value in scores.values()), ", ".join(reached)])
    if not agreement:
        return ""
    titles = list(next(iter(found.values()))["titles"].values())
    shares = {title: _share(right_way) for title, right_way in orders.items() if right_way}
    return (
        f"{_in_short(shares, pictures)}"
        "Scores from one forward pass over all training images, higher is better, and the test accuracy of "
        "*replace* or traditional fine-tuning, whichever validation chooses on a draw (images a class).\n\n"
        f"{table(['data', 'source', *titles, 'test accuracy'], rows)}\n\n"
        "Kendall's rank correlation of each score with these accuracies over the sources. Chance alone orders three "
        "sources right in one of 6 cases, four in one of 24.\n\n"
        f"{table(['data', 'images a class', 'sources', *titles], agreement)}"
    )


def trained(parts: Sequence[Written], data: str) -> dict[int, dict[str, float]]:
    """Test accuracies of traditional fine-tuning or a replaced layer at its best cut, whichever validation chooses on a
    draw, by images a class (0: all) and source, as far as they are known.
    """
    found: dict[int, dict[str, float]] = {}
    for part in parts:
        which = Part(**part.about["part"])
        if which.data == data and (keys := chosen_of(part, WITHOUT)):
            found.setdefault(which.shots, {})[which.source] = float(right(part, keys).mean())
    return found


def _agreement(one: Mapping[str, Any], accuracies: Mapping[str, float]) -> list[str]:
    real = list(accuracies.values())
    said = ([one["scores"][source][score] for source in accuracies] for score in one["titles"])
    return [f"{stats.kendalltau(values, real).statistic:+.2f}" for values in said]


def _in_short(shares: Mapping[str, Mean], pictures: Path) -> str:
    """How many pairs of sources each score puts in the order of training, with the figure that is drawn here."""
    if not shares:
        return ""
    axis = "pairs of sources in the order of training, %"
    figures.means(pictures / "scores.svg", list(shares.items()), axis, (0.0, 100.0))
    said = "; ".join(f"{name} {mean.value:.0f} % ({mean.low:.0f} to {mean.high:.0f})" for name, mean in shares.items())
    apart = [name for name, mean in shares.items() if mean.low > CHANCE or mean.high < CHANCE]
    pairs = next(iter(shares.values())).count
    return (
        f"**In short**, {', '.join(apart) if apart else 'no score'} can be told from chance. Of "
        f"{counted(pairs, 'pair')} of sources with the same data and images a class, so many are in the order of "
        f"training (by chance half; intervals take pairs as independent): {said}.\n\n"
        f"![Pairs in the right order]({pictures.name}/scores.svg)\n\n"
    )


def _ordered(one: Mapping[str, Any], accuracies: Mapping[str, float]) -> dict[str, list[bool]]:
    """For each score, by its title: of every pair of sources that differ in accuracy, whether it orders them so."""
    pairs = [(a, b) for a, b in combinations(accuracies, 2) if accuracies[a] != accuracies[b]]
    return {
        title: [
            (one["scores"][a][score] - one["scores"][b][score]) * (accuracies[a] - accuracies[b]) > 0 for a, b in pairs
        ]
        for score, title in one["titles"].items()
    }


def _share(right_way: Sequence[bool]) -> Mean:
    """The share in percent, with the exact interval of Clopper and Pearson."""
    found = stats.binomtest(sum(right_way), len(right_way))
    interval = found.proportion_ci()
    return Mean(100 * found.statistic, 100 * interval.low, 100 * interval.high, len(right_way))


def _size(shots: int) -> str:
    return str(shots or "all")


if __name__ == "__main__":
    main()
