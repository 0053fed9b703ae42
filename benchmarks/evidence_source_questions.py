"""Questions about what the source network knows: when keeping its layer pays, and how much of it survives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import evidence_figures as figures
from evidence_figures import title
from evidence_numbers import (
    FEWEST,
    Mean,
    contestants_of,
    correlation,
    correlation_interval,
    difference,
    in_parts,
    mean_of,
    similarity,
    surviving,
)
from evidence_records import Written
from evidence_tables import DEEPEN, REPLACE, RETAIN, mean_cell, pair_cell, parts_cell, table
from evidence_words import paragraphs
from inarch.comparison.design import REFERENCE
from inarch.plural import counted
from inarch.report.words import percent


def predictors(parts: Sequence[Written], pictures: Path) -> str:
    rows, inside, gains, shares, shots = [], [], [], [], []
    for part in parts:
        pair, found = difference(part, RETAIN, REPLACE), similarity(part)
        if pair is None or found is None:
            continue
        share, gain, images = found
        mean = float((share * images).sum() / images.sum())
        within = correlation(share.tolist(), gain.tolist())
        inside += [] if within is None else [within]
        gains.append(pair.difference)
        shares.append(mean)
        shots.append(part.about["part"]["shots"] or math.inf)
        rows.append([title(part), percent(mean), "" if within is None else f"{within:+.2f}", pair_cell(pair)])
    if not rows:
        return ""
    figures.similar(pictures / "similarity.svg", parts)
    said = []
    if (pooled := mean_of(inside)) is not None and pooled.count >= FEWEST:
        said.append(
            f"inside parts, over classes, {pooled.value:+.2f} ({pooled.low:+.2f} to {pooled.high:+.2f}, over parts)"
        )
    for name, values in (("similarity", shares), ("images a class", shots)):
        if (rank := correlation(values, gains)) is not None:
            said.append(f"over parts, with {name}, {_with_interval(rank, len(gains))}")
    words = f"Spearman's correlations of the gain, parts taken as independent: {'; '.join(said)}.\n\n" if said else ""
    shown = table(["part", "images like their class's usual source class", "correlation over classes", "gain"], rows)
    return f"{words}{shown}\n\n![Gain by class]({pictures.name}/similarity.svg)\n\n{_by_group(parts)}"


def _by_group(parts: Sequence[Written]) -> str:
    """The gain of retain and of deepen over replace, by images a class, source and data set."""
    rows = []
    for field in ("shots", "source", "data"):
        for value in dict.fromkeys(part.about["part"][field] for part in parts):
            some = [part for part in parts if part.about["part"][field] == value]
            name = f"{value or 'all'} images a class" if field == "shots" else value
            gains = [parts_cell(in_parts(some, kept, REPLACE)) for kept in (RETAIN, DEEPEN)]
            rows.append([str(name), *gains])
    return table(["parts with", "retain - replace", "deepen - replace"], rows)


def _with_interval(rank: float, parts: int) -> str:
    found = correlation_interval(rank, parts)
    reach = "" if found is None else f", {found[0]:+.2f} to {found[1]:+.2f}"
    return f"{rank:+.2f} ({counted(parts, 'part')}{reach})"


def survival(parts: Sequence[Written], pictures: Path) -> str:
    text = (
        "Share of images of the other data sets on which the adapted "
        "network's likeliest source class is still the original's, and the divergence of its source probabilities, in "
        "nats. Means over parts. Where the layer was replaced, the original one is put on again."
    )
    rows, drawn = [], []
    for chapter in ("layer", "methods"):
        for name in contestants_of(parts, chapter):
            if chapter == "methods" and name == REFERENCE:
                continue
            found = [s for part in parts if (s := surviving(part, (chapter, name))) is not None]
            same, apart = mean_of([100 * a for a, _ in found]), mean_of([d for _, d in found])
            if same is not None and apart is not None:
                drawn.append((name, same))
                agreement = f"{same.value:.0f} %{_reach(same, 0, 100.0)}"
                rows.append([name, agreement, f"{apart.value:.2f}{_reach(apart, 2, math.inf)}", str(same.count)])
    if not rows:
        return ""
    axis = "images with the original's likeliest source class, %"
    figures.means(pictures / "survival.svg", drawn, axis, (0.0, 100.0))
    shown = table(["trained as", "agreement", "divergence", "parts"], rows)
    image = f"![Agreement with the original network]({pictures.name}/survival.svg)"
    return paragraphs(_kept_more(parts), text, shown, image)


def _kept_more(parts: Sequence[Written]) -> str:
    """How much more agreement what keeps the layer has than what replaces it, in the parts that have both."""
    said = []
    for name, of in (("retain", RETAIN), ("deepen", DEEPEN)):
        both = [(surviving(part, of), surviving(part, REPLACE)) for part in parts]
        mean = mean_of([a[0] - b[0] for a, b in both if a is not None and b is not None])
        if mean is not None:
            said.append(f"*{name}* {mean_cell(mean)}")
    return f"**In short**, points of agreement beyond that of *replace*: {', '.join(said)}." if said else ""


def _reach(mean: Mean, digits: int, most: float) -> str:
    """The interval of a mean in brackets, cut off at zero and at `most`; empty of too few parts."""
    if mean.count < FEWEST:
        return ""
    return f" ({max(0.0, mean.low):.{digits}f} to {min(most, mean.high):.{digits}f})"
