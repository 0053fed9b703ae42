"""The questions of docs/evidence.md, each with a table, a figure where it helps, and intervals.

What a question gives is the text below its heading, empty where no record answers it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import evidence_figures as figures
from evidence_figures import title
from evidence_numbers import (
    Named,
    accuracy,
    chosen_against,
    contestants_of,
    correlation,
    difference,
    in_parts,
    mean_of,
    ranks,
    settled,
    sides,
    similarity,
    surviving,
    warnings,
)
from evidence_ranking import rankings
from evidence_records import Written
from evidence_starts import QUESTION as STARTS
from evidence_starts import starts
from evidence_tables import (
    DEEPEN,
    KEEPING,
    REPLACE,
    RETAIN,
    TRADITIONAL,
    WITHOUT,
    Side,
    accuracies_table,
    contrasts_table,
    kept_table,
    mean_cell,
    pair_cell,
    pairs_table,
    parts_cell,
    table,
)
from inarch.comparison.design import REFERENCE
from inarch.plural import counted
from inarch.report.words import p_value, percent

SETTLED = "Better or worse in a part: its own 95 % interval does not hold zero."


def layer(parts: Sequence[Written], pictures: Path) -> str:
    known = [(part, pair) for part in parts if (pair := sides(part, KEEPING, WITHOUT)) is not None]
    if not known:
        return ""
    parts = [part for part, _ in known]
    names = (("traditional", TRADITIONAL), ("replace", REPLACE), ("retain", RETAIN), ("deepen", DEEPEN))
    pairs = [("retain - replace", RETAIN, REPLACE), ("retain - traditional", RETAIN, TRADITIONAL),
             ("replace - traditional", REPLACE, TRADITIONAL)]  # fmt: skip
    return (
        f"{accuracies_table(parts, names)}\n\nWhat keeps the layer (*retain* or *deepen*) against what does not "
        "(*replace* or traditional fine-tuning), of either side what validation chooses, draw by draw:\n\n"
        f"{kept_table(known, pictures / 'layer.svg')}\n\n"
        f"One by one:\n\n{pairs_table(parts, pairs)}"
    )


def deepen(parts: Sequence[Written], pictures: Path) -> str:
    grafts = [name for name in contestants_of(parts, "layer") if name not in (REFERENCE, "replace")]
    first: list[tuple[str, Side, Side]] = [(name, [("layer", name)], WITHOUT) for name in grafts]
    first.append(("deepen - retain", [DEEPEN], [RETAIN]))
    sizes = [name for name in contestants_of(parts, "sizes") if name != REFERENCE]
    second = [(f"{name} - deepen 512", [("sizes", name)], [DEEPEN]) for name in sizes]
    against, by_size = contrasts_table(parts, first), contrasts_table(parts, second)
    if not against and not by_size:
        return ""
    if by_size:
        by_size = f"Sizes and numbers of new hidden layers, against one of 512 units:\n\n{by_size}"
    some = [part for part in parts if "layer" in part.chapters]
    every = accuracies_table(some, [(name, ("layer", name)) for name in contestants_of(parts, "layer")])
    text = (
        "Each graft against *replace* or traditional fine-tuning, whichever of these two validation chooses on a draw: "
        f"the graft has one try where the usual ways have two. In the last row *deepen* against *retain*. {SETTLED}"
    )
    return "\n\n".join(block for block in (text, against, every, by_size) if block)


def harmonise(parts: Sequence[Written], pictures: Path) -> str:
    names = [name for name in contestants_of(parts, "harmonise") if name != REFERENCE and not name.endswith(", none")]
    pairs = [
        (f"{name} - none", [("harmonise", name)], [("harmonise", f"{name.partition(',')[0]}, none")]) for name in names
    ]  # fmt: skip
    text = (
        "Against no harmonising, same graft, each tuned for itself. Scales start at 20 (`l2`), 1, 10, or at the length "
        f"of the vectors that arrive (`l2-matched`). {SETTLED}\n\n"
    )
    return text + shown if (shown := contrasts_table(parts, pairs)) else ""


def depth(parts: Sequence[Written], pictures: Path) -> str:
    text = (
        "The cut that validation chooses (mean over draws), and how much better "
        "it is on test images than training everything (cut 0).\n\n"
    )
    rows = []
    for part in parts:
        for name, (row, pair) in chosen_against(part, "depth", "cuts", lambda rows: min(rows, key=_cut)).items():
            stages = len(part.about["stages"])
            rows.append([title(part), name, f"{row['cut']} of {stages}", percent(row["accuracy"]), pair_cell(pair)])
    if not rows:
        return ""
    figures.curves(pictures / "depth.svg", parts, "depth", "cuts", "stages frozen")
    shown = table(["part", "graft", "cut", "test accuracy there", "against cut 0"], rows)
    return f"{text}{shown}\n\n![Accuracy against freeze depth]({pictures.name}/depth.svg)"


def _cut(row: dict[str, int]) -> int:
    return row["cut"]


def rates(parts: Sequence[Written], pictures: Path) -> str:
    text = (
        "New layers alone, nothing else trains. The rate that validation "
        "chooses of seven, as a multiple of the range test's, and what it gains over that one on test images.\n\n"
    )
    rows = []
    for part in parts:
        found = chosen_against(
            part, "rates", "rates", lambda rows: min(rows, key=lambda r: abs(math.log(r["multiple"])))
        )
        for name, (row, pair) in found.items():
            rows.append([title(part), name, f"{row['rate']:.2g}", f"x {row['multiple']:g}", pair_cell(pair)])
    if not rows:
        return ""
    figures.curves(pictures / "rates.svg", parts, "rates", "rates", "learning rate of new layers")
    shown = table(["part", "new layers", "chosen rate", "multiple", "against the range test's"], rows)
    return f"{text}{shown}\n\n![Accuracy against the new layers' rate]({pictures.name}/rates.svg)"


def methods(parts: Sequence[Written], pictures: Path) -> str:
    names = [name for name in contestants_of(parts, "methods") if name != REFERENCE]
    kept = [
        ("layer", n)
        for n in ("retain", "deepen", "joined", "residual", "deepen-joined")
        if n in contestants_of(parts, "layer")
    ]
    methods: list[Named] = [TRADITIONAL, REPLACE, *kept, *(("methods", name) for name in names)]
    some = [part for part in parts if "methods" in part.chapters]
    # What a network cannot have is not ranked: stochnorm where nothing is normalised. Its part counts for all others.
    everywhere = [of for of in methods if all(accuracy(part, of) is not None for part in some)]
    elsewhere = [of for of in methods if of not in everywhere and any(accuracy(part, of) is not None for part in some)]
    found, friedman, count = ranks(some, everywhere, TRADITIONAL)
    if not found:
        return ""
    figures.ranked(pictures / "ranks.svg", found, count)
    named = {of[1]: of for of in everywhere}
    ranked = [(named[r.name], f"{r.rank:.1f}", "" if math.isnan(r.p) else p_value(r.p)) for r in found]
    rows = []
    for of, rank, tested in [*ranked, *((of, "not in every part", "") for of in elsewhere)]:
        pairs = in_parts(some, of, TRADITIONAL)
        (better, worse), gain = settled(pairs), "" if of == TRADITIONAL else parts_cell(pairs)
        rows.append([of[1], rank, gain, str(better), str(worse), tested])
    whether = "" if math.isnan(friedman) else f" Friedman's test over the parts: p {p_value(friedman)}."
    columns = [
        "method, layer replaced unless named by its graft",
        "mean rank",
        "minus traditional",
        "better in",
        "worse in",
        "p (Wilcoxon, Holm)",
    ]
    return (
        f"Mean ranks over {counted(count, 'part')}.{whether} {SETTLED}\n\n{table(columns, rows)}\n\n"
        f"![Mean ranks and critical difference]({pictures.name}/ranks.svg)\n\n"
        f"{_warning(parts)}\n\n{_kept(parts, names)}"
    )


def _warning(parts: Sequence[Written]) -> str:
    """What the best epoch on the test split would have claimed."""
    found = [w for part in parts if (w := warnings(part))]
    if not found:
        return ""
    gains = [m["best"] - m["last"] for w in found for m in w.values()]
    claimed, honest = [], []
    for w in (w for w in found if REFERENCE in w):
        for name in w.keys() - {REFERENCE}:
            claimed.append(w[name]["best"] - w[REFERENCE]["last"])
            honest.append(w[name]["last"] - w[REFERENCE]["last"])
    gain, claim, real = mean_of(gains), mean_of(claimed), mean_of(honest)
    return (
        f"**A warning.** {len(gains)} of these trainings, one draw each, were run again with the test split in place "
        "of the validation split (methods of several trainings, such as soup, apart). Reporting the best epoch on test "
        f"images instead of the last one would have added {mean_cell(gain)} points to an accuracy. A method that "
        "reports its best epoch against a baseline that reports its last would have claimed "
        f"{mean_cell(claim)} points instead of {mean_cell(real)}. Intervals "
        "are over trainings. No other figure on this page is picked so."
    )


def _kept(parts: Sequence[Written], names: Sequence[str]) -> str:
    pairs = [(name, ("kept", f"{name}, retain"), ("methods", name)) for name in names]
    rows = [[name, parts_cell(found)] for name, a, b in pairs if (found := in_parts(parts, a, b))]
    if not rows:
        return ""
    return "The same methods with the layer retained, minus with it replaced:\n\n" + table(["method", "points"], rows)


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
    if (pooled := mean_of(inside)) is not None and pooled.count > 1:
        said.append(
            f"inside parts, over classes, {pooled.value:+.2f} ({pooled.low:+.2f} to {pooled.high:+.2f}, over parts)"
        )
    for name, values in (("similarity", shares), ("images a class", shots)):
        if (rank := correlation(values, gains)) is not None:
            said.append(f"over parts, with {name}, {rank:+.2f} ({len(gains)} parts)")
    words = f"Spearman's correlations of the gain: {'; '.join(said)}.\n\n" if said else ""
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


def survival(parts: Sequence[Written], pictures: Path) -> str:
    text = (
        "Share of images of the other data sets on which the adapted "
        "network's likeliest source class is still the original's, and the divergence of its source probabilities, in "
        "nats. Means over parts. Where the layer was replaced, the original one is put on again.\n\n"
    )
    rows = []
    for chapter in ("layer", "methods"):
        for name in contestants_of(parts, chapter):
            if chapter == "methods" and name == REFERENCE:
                continue
            found = [s for part in parts if (s := surviving(part, (chapter, name))) is not None]
            same, apart = mean_of([a for a, _ in found]), mean_of([d for _, d in found])
            if same is not None and apart is not None:
                low, high = max(0.0, 100 * same.low), min(100.0, 100 * same.high)
                reach = "" if math.isnan(same.low) else f" ({low:.0f} to {high:.0f})"
                rows.append([name, f"{100 * same.value:.0f} %{reach}", f"{apart.value:.2f}", str(same.count)])
    return text + table(["trained as", "agreement", "divergence", "parts"], rows) if rows else ""


QUESTIONS: dict[str, Callable[[Sequence[Written], Path], str]] = {
    "Retain against replace, each at its own best cut": layer,
    "Deepen against retain and the grafts of others; how many layers, which sizes": deepen,
    "Harmonising": harmonise,
    "Accuracy against freeze depth": depth,
    "The new layers' learning rate": rates,
    "Against each contemporary method": methods,
    "When does keeping the layer pay?": predictors,
    "How much of the source network survives": survival,
    "Which score ranks source networks as training does": rankings,
    STARTS: starts,
}
"""Each with what answers it, in the order of the page, where they are numbered from 1."""
