"""Learning curves of the choice and its baselines: training loss and validation accuracy, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from inarch.report import words
from inarch.report.drawing import BLUE, GREEN, INK, PURPLE, VERMILLION, draw, grid, percent_axis
from inarch.report.run import Run
from inarch.report.section import Figure, Panel, Section, Table

_LOOKS: Final = {
    "chosen": (BLUE, "-", "o"),
    "traditional": (VERMILLION, (0, (5, 2)), "s"),
    "linear_probe": (GREEN, (0, (1, 1.4)), "^"),
    "replace_best_cut": (PURPLE, (0, (5, 1.5, 1, 1.5)), "D"),
}
_MEASURES: Final = (("training_loss", "training loss"), ("validation_accuracy", "validation accuracy"))
Curve = Mapping[str, Any]


def section(run: Run) -> Section | None:
    if run.evidence is None:
        return None
    # Confirmations but the first are validated once and have no curve.
    learning = run.evidence["learning"]
    curves = [
        curve | {"seeds": seeds} for curve in learning if (seeds := [seed for seed in curve["seeds"] if seed["epochs"]])
    ]
    if not curves:
        return None
    panels = [_panel(curves, *measure) for measure in _MEASURES]
    means = "Thick: the mean over seeds; thin: each seed."
    which = means if _several_seeds(curves) else "One training each."
    caption = (
        "Left, how far off the answers on training images are: lower is better. Right, how many validation images are "
        f"right: higher is better. {which} The last epoch counts, none is picked. "
        "A validation accuracy that still rises at the end asks for more epochs; a loss that falls while accuracy does "
        "not, for more images."
    )
    text = [words.training_sentence(run.results.get("settings", {})), _averaged(learning), _without(learning, curves)]
    said = [sentence for sentence in text if sentence]
    return Section("learning", "How it learned", said, figures=[Figure(panels, caption)], tables=[_table(curves)])


def _several_seeds(curves: Sequence[Curve]) -> bool:
    return any(len(curve["seeds"]) > 1 for curve in curves)


def _without(learning: Sequence[Curve], curves: Sequence[Curve]) -> str | None:
    shown = {curve["role"] for curve in curves}
    without = [words.short_role(curve["role"]) for curve in learning if curve["role"] not in shown]
    if not without:
        return None
    return f"No curve of {', '.join(without)}: the training that is validated after every epoch failed or was left out."


def _averaged(curves: Sequence[Curve]) -> str | None:
    """How many of the trainings that a method made were averaged; None where no method made several."""
    made = [(curve["role"], seed["members"]) for curve in curves for seed in curve["seeds"] if seed.get("members")]
    if not made:
        return None
    parts = [
        f"{words.short_role(role)}: {sum(member['taken'] for member in members)} of {len(members)}"
        for role, members in made
    ]
    return f"Trainings whose weights were averaged, for each seed: {'; '.join(parts)}. Curves are their means."


def mean_curve(curve: Curve, measure: str) -> list[float]:
    """The mean over seeds of each epoch that all of them reached."""
    return [fmean(values) for values in zip(*_of_seeds(curve, measure), strict=False)]


def _of_seeds(curve: Curve, measure: str) -> list[list[float]]:
    return [[epoch[measure] for epoch in seed["epochs"]] for seed in curve["seeds"]]


def _panel(curves: Sequence[Curve], measure: str, label: str) -> Panel:
    def paint(axes: Axes) -> None:
        for curve in curves:
            colour, style, marker = _LOOKS.get(curve["role"], (INK, "-", "v"))
            for values in _of_seeds(curve, measure):
                axes.plot(range(1, len(values) + 1), values, color=colour, alpha=0.35, linewidth=0.8)
            mean = mean_curve(curve, measure)
            axes.plot(
                range(1, len(mean) + 1), mean, color=colour, linestyle=style, marker=marker, markersize=4.5,
                linewidth=1.9, label=words.short_role(curve["role"]),
            )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.5, max(len(seed["epochs"]) for curve in curves for seed in curve["seeds"]) + 0.5)
        axes.set_xlabel("epoch")
        axes.set_title(label)
        if measure == "validation_accuracy":
            percent_axis(axes, "y", "")
        grid(axes, "y")

    ends = "; ".join(
        f"{words.role(curve['role'])}: from {_shown(mean[0], measure)} to {_shown(mean[-1], measure)}"
        for curve in curves
        if (mean := mean_curve(curve, measure))
    )
    return Panel(draw(f"learning-{measure}", 2.8, paint, legend=2), f"The {label} by epoch. {ends}.")


def _shown(value: float, measure: str) -> str:
    return words.percent(value) if measure == "validation_accuracy" else f"{value:.3f}"


def _table(curves: Sequence[Curve]) -> Table:
    columns = ["Epoch"]
    means = []
    for curve in curves:
        for measure, label in _MEASURES:
            columns.append(f"{words.short_role(curve['role'])}: {label}")
            means.append([_shown(value, measure) for value in mean_curve(curve, measure)])
    rows = [
        [str(epoch + 1), *(mean[epoch] if epoch < len(mean) else "" for mean in means)]
        for epoch in range(max(map(len, means)))
    ]
    return Table(
        "Mean over seeds of each epoch" if _several_seeds(curves) else "Each epoch",
        columns,
        rows,
        frozenset(range(1, len(columns))),
        folded="The curves as a table",
    )
