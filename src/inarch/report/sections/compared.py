"""A comparison of methods: what came out, differences from traditional fine-tuning, accuracies, ranks, and how."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from inarch.plural import counted
from inarch.report import words
from inarch.report.drawing import draw
from inarch.report.forest import Row, described, height, paint_accuracies, paint_differences
from inarch.report.run import Run
from inarch.report.section import Figure, Panel, Section, Table

_REFERENCE = "traditional"
_IN_WORDS = {_REFERENCE: "traditional fine-tuning, all layers"}


def answer(run: Run) -> Section:
    results = run.results
    of = words.data_name(results)
    text = [
        f"{results['source']['name']}, on {counted(len(run.classes), 'class', 'classes')}{f' of {of}' if of else ''}.",
        results["sentence"],
        *(_best(size) for size in results["sizes"] if size["paired"]),
    ]
    if run.results["left_out"]:
        text.append(
            f"Time was too short for {counted(len(run.results['left_out']), 'trial')}; called again, the same "
            "command goes on."
        )
    return Section("compared", f"{len(_names(run))} ways to transfer, on the same images", text)


def differences(run: Run) -> Section | None:
    panels = [
        panel for size in run.results["sizes"] if size["paired"] for panel in (_accuracy_panel(size), _panel(size))
    ]
    if not panels:
        return None
    caption = (
        "First the accuracy of each on the test images, traditional fine-tuning in orange; the axis does not begin at "
        "zero. Then each minus traditional fine-tuning, in percentage points on the same test images. A line is a 95 % "
        "interval over images and, where there are several, draws. Right of zero the method is better; a line that "
        "crosses zero means that the two cannot be told apart. Orange there: beyond chance, also when one counts how "
        "many were compared."
    )
    return Section("differences", "Against traditional fine-tuning", [], [Figure(panels, caption)], [_paired(run)])


def _best(size: Any) -> str:
    """The most accurate of a size, and whether that can be chance: it was picked because it is the best."""
    best = max(size["paired"], key=lambda row: row["difference"])
    beyond = "which can be chance"
    if _settled(best):
        beyond = "beyond chance" if best["difference"] > 0 else "worse beyond chance"
    return (
        f"The best with {_size(size)}: {best['name']}, {words.points(best['difference'])} points against traditional "
        f"fine-tuning (95 % interval {words.points_range(best['interval95'])}), {beyond}."
    )


def _settled(row: Any) -> bool:
    """Whether a difference is beyond chance; with one draw nothing is known of what other draws would give."""
    return bool(row["p_holm"] < 0.05 and row["of"] != "images")


def _accuracy_panel(size: Any) -> Panel:
    ordered = sorted(size["contestants"], key=lambda row: -row["accuracy"])
    rows = [
        Row(_IN_WORDS.get(row["name"], row["name"]), row["name"], row["accuracy"], row["interval95"],
            row["name"] == _REFERENCE)
        for row in ordered
    ]  # fmt: skip

    def painted(axes: Axes) -> None:
        paint_accuracies(axes, rows)
        axes.set_title(f"Accuracy, trained on {_size(size)}")

    svg = draw(f"accuracies-{size['shots'] or 'all'}", 0.2 + height(rows), painted)
    return Panel(svg, f"Test accuracy, {_size(size)}: {described(rows, differences=False)}.")


def _panel(size: Any) -> Panel:
    ordered = sorted(size["paired"], key=lambda row: -row["difference"])
    rows = [Row(row["name"], row["name"], row["difference"], row["interval95"], _settled(row)) for row in ordered]

    def painted(axes: Axes) -> None:
        paint_differences(axes, rows)
        axes.set_title(f"Difference, trained on {_size(size)}")

    svg = draw(f"differences-{size['shots'] or 'all'}", 0.2 + height(rows), painted)
    return Panel(svg, f"{_size(size)}: {described(rows, differences=True)}.")


def _paired(run: Run) -> Table:
    rows = [
        [
            row["name"], _size(size), words.points(row["difference"]), words.points_range(row["interval95"]),
            words.p_value(row["p"]), words.p_value(row["p_holm"]), row["of"],
        ]
        for size in run.results["sizes"] for row in size["paired"]
    ]  # fmt: skip
    columns = ["Method and graft", "Training images", "Difference", "95 % interval", "p", "p after Holm", "Over"]
    caption = "Differences of test accuracy from traditional fine-tuning, in percentage points"
    return Table(caption, columns, rows, frozenset({2, 3, 4, 5}), folded="The differences as a table")


def accuracies(run: Run) -> Section:
    columns = ["Method and graft", "Training images", "Test accuracy", "95 % interval", "Balanced", "Log loss"]
    columns += ["Configuration", "Frozen", "Rates old, new", "Strength", "Trials of tuning", "Draws", "Time"]
    rows: list[list[str]] = []
    marked: set[int] = set()
    for size, seconds in zip(run.results["sizes"], run.results["cost"]["contestants"], strict=True):
        for row in sorted(size["contestants"], key=lambda row: -row["accuracy"]):
            if row["name"] == _REFERENCE:
                marked.add(len(rows))
            rates = f"{words.rate(row['learning_rate'])}, {words.rate(row['new_layer_learning_rate'])}"
            rows.append(
                [
                    _IN_WORDS.get(row["name"], row["name"]), _size(size), words.percent(row["accuracy"]),
                    words.percent_range(row["interval95"]), words.percent(row["balanced_accuracy"]),
                    f"{row['log_loss']:.3f}", words.configuration(row), words.frozen(row["cut"]), rates,
                    f"{row['strength']:g}", str(row.get("tuning_trials", "not recorded")), str(len(row["seeds"])),
                    words.duration(seconds[row["name"]]),
                ]
            )  # fmt: skip
    text = [
        "Means over draws of training images, each with a seed of its own, and what tuning chose. Time is that of all "
        "trials, tuning included.",
        *(said for size in run.results["sizes"] if (said := _failed(size))),
    ]
    table = Table("Test accuracy of all", columns, rows, frozenset({2, 3, 4, 5, 9, 10, 11, 12}), frozenset(marked))
    return Section("accuracies", "Accuracy, settings and cost", text, tables=[table])


def _failed(size: Any) -> str:
    if "failed" not in size:
        return f"{_size(size)}: this version of Inarch did not record what failed to train, so it may be missing here."
    return f"{_size(size)}: {', '.join(size['failed'])} failed to train on a draw." if size["failed"] else ""


def ranks(run: Run) -> Section | None:
    if len(run.results["sizes"]) < 2 or len(run.results["ranks"]) < 2:
        return None
    rows = [[_IN_WORDS.get(row["name"], row["name"]), f"{row['rank']:.1f}"] for row in run.results["ranks"]]
    table = Table(
        "Mean rank over the numbers of training images, 1 is best",
        ["Method and graft", "Mean rank"],
        rows,
        frozenset({1}),
    )
    return Section("ranks", "Ranks", tables=[table])


def how(run: Run) -> Section:
    settings, counts = run.results["settings"], run.results["dataset"]["counts"]
    text = [
        f"Every contestant was tuned with {counted(settings['trials'], 'trial')}, or as many as it has settings "
        "(rates, cut, harmonising, strength), on one draw of the training images and chosen on its validation images, "
        "of which as many a class are drawn as for training. The best was then trained in full on "
        f"{counted(settings['seeds'], 'further draw')}, and tested on all {counts['test']} test images, which "
        "decided nothing. inarch methods says in a line what each method is.",
        "Traditional fine-tuning trains all layers with a new classifier and is tuned with as many trials. Differences "
        "come with p-values after Holm's correction for how many there are with as many training images. Of a class "
        "that has no more images than are drawn all draws hold the same ones, which intervals cannot know.",
    ]
    if any(not size["shots"] for size in run.results["sizes"]):
        text.append(
            "Where all training images are taken there is nothing to draw from: draws differ there in initial weights, "
            "order and views alone, so that intervals say nothing of other training images."
        )
    added = words.training_sentence(settings)
    return Section("how", "How it was compared", [*text, added] if added else text)


def _size(size: Any) -> str:
    return f"{size['shots']} a class" if size["shots"] else f"all {size['counts']['train']}"


def _names(run: Run) -> set[str]:
    return {row["name"] for size in run.results["sizes"] for row in size["contestants"]}
