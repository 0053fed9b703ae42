"""The command line: parse, call, print. Exit codes are 0, 1 (failed) and 2 (wrong usage)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inarch import __version__
from inarch import arguments as ask
from inarch.consoles import console, errors
from inarch.errors import InarchError
from inarch.plural import counted
from inarch.store_commands import store_app
from inarch.texts import words

if TYPE_CHECKING:
    from inarch.network.source import SourceOptions

app = typer.Typer(
    name="inarch",
    help="Adapts an ImageNet-trained classifier to your images, keeps its classification layer where that pays, and "
    "shows the evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(store_app)


def print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"inarch {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print the version and end.")
    ] = False,
) -> None:
    """What holds for every command."""


@app.command()
def check(
    data: ask.Data,
    max_pixels: ask.MaxPixels = 100_000_000,
    seed: Annotated[int, typer.Option(help="Decides the splits that are made.")] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what a data set holds, and what is wrong with it."""
    from inarch.data import describe, open_dataset, summary

    with progress_on_terminal() as progress:
        dataset = open_dataset(data, seed=seed, max_pixels=max_pixels, progress=progress.images)
    if json_output:
        console.print_json(data=summary(dataset))
    else:
        console.print(describe(dataset))


@app.command()
def stages(
    source: Annotated[str, typer.Argument(help="The source network, as for fit.")],
    weights: ask.Weights = None,
    image_size: ask.ImageSize = None,
    no_weights: Annotated[bool, typer.Option("--no-weights", help="Random weights: enough to list stages.")] = False,
    finer: Annotated[bool, typer.Option("--finer", help="Also name every place where the network can be cut.")] = False,
    by_hand: ask.StagesByHand = "",
) -> None:
    """List the stages of a network: what --cuts can name."""
    from inarch.network.adapted import stage
    from inarch.network.source import load_source
    from inarch.network.stages import require_cut
    from inarch.terminal import stages_table

    options = source_options(weights, image_size, None, pretrained=not no_weights)
    loaded = load_source(source, options, announce=announce)
    named = words(by_hand)
    staged = stage(loaded.network, loaded.classification_layer, loaded.input.example(), named or None)
    require_cut(staged, named, loaded.classification_layer)
    console.print(stages_table(staged))
    if finer:
        console.print(counted(len(staged.fine), "finer cut") + ", behind: " + ", ".join(staged.fine), soft_wrap=True)


@app.command()
def methods() -> None:
    """List the ways to train the target network: what --method can name."""
    from inarch.catalogue import METHODS
    from inarch.terminal import methods_table

    console.print(methods_table(METHODS))


@app.command()
def grafts() -> None:
    """List what can be attached to the source network: what --grafts can name."""
    from inarch.catalogue import GRAFTS
    from inarch.terminal import methods_table

    console.print(methods_table(GRAFTS, "graft"))


@app.command()
def fit(
    data: ask.Data,
    source: ask.SourceText,
    out: Annotated[Path, typer.Option(help="The run folder; the same command goes on with an interrupted run.")],
    weights: ask.Weights = None,
    classes: ask.ClassNames = None,
    image_size: ask.ImageSize = None,
    stages: ask.StagesByHand = "",
    time_limit: ask.TimeLimit = None,
    cuts: Annotated[str, typer.Option(help="Cuts to try: numbers or names of stages, none, all; else searched.")] = "",
    grafts: ask.Grafts = "replace,retain,deepen,joined",
    harmonise: ask.Harmonise = "none,l2",
    hidden: ask.Hidden = None,
    method: ask.Method = "fine-tuning",
    search: ask.Search = "halving",
    seeds: ask.Seeds = 3,
    seed: ask.Seed = 0,
    epochs: ask.Epochs = None,
    batch_size: Annotated[int, typer.Option(callback=ask.at_least(2), help="Images a training step.")] = 32,
    optimiser: ask.Optimiser = "sgd",
    label_smoothing: Annotated[float, typer.Option(help="From 0 to below 1.")] = 0.1,
    balance: ask.Balance = "none",
    augmentation: ask.Augmentation = "crop-flip",
    mixup: ask.Mixup = 0.0,
    ema: ask.EMA = 0.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    precision: ask.Precision = "auto",
    threads: ask.Threads = None,
    views: ask.Views = "8",
    classifier_start: ask.ClassifierStart = 0.01,
    stored_precision: ask.StoredPrecision = "bf16",
    store: ask.StoreFolder = None,
    store_limit: ask.StoreLimit = None,
    max_pixels: ask.MaxPixels = 100_000_000,
    profile: Annotated[bool, typer.Option("--profile", help="Print where the time of this call went.")] = False,
) -> None:  # fmt: skip
    """Adapt a source network to a folder of labelled images, and compare with what everybody does."""
    from inarch.options import StudyOptions
    from inarch.study import fit as run
    from inarch.terminal import print_results

    options = StudyOptions(
        grafts=grafts, harmonise=harmonise, cuts=words(cuts), method=method, search=search, seeds=seeds,
        seed=seed, hidden=tuple(hidden or ()),
        epochs=epochs, batch_size=batch_size, optimiser=optimiser, label_smoothing=label_smoothing, balance=balance,
        augmentation=augmentation, mixup=mixup, ema=ema,
        device=device, precision=precision, threads=threads, max_pixels=max_pixels, stages=words(stages),
        time_limit=time_limit, views=views, stored_precision=stored_precision, store=store, store_limit=store_limit,
        classifier_start=classifier_start,
    )  # fmt: skip
    with stoppable(), progress_on_terminal() as progress:
        results = run(data, source, out, options, source_options(weights, image_size, classes), progress)
    print_results(results, out, console)
    if profile:
        print_profile(results["cost"]["profile"])


@app.command()
def rank(
    data: ask.Data,
    source: Annotated[list[str], typer.Option(help="A source network, as for fit; once for each.")],
    image_size: ask.ImageSize = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    max_pixels: ask.MaxPixels = 100_000_000,
    seed: Annotated[int, typer.Option(callback=ask.at_least(0), help="Decides the splits that are made.")] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="Print the ranking as JSON.")] = False,
) -> None:
    """Order source networks by how well they suit a data set, before any training."""
    from inarch.options import StudyOptions
    from inarch.ranking.sources import rank as run
    from inarch.terminal import print_ranking

    options = StudyOptions(device=device, max_pixels=max_pixels, seed=seed)
    with progress_on_terminal() as progress:
        ranking = run(data, source, options, source_options(None, image_size, None), progress)
    if json_output:
        console.print_json(data=ranking)
    else:
        print_ranking(ranking, console, errors)


@app.command()
def compare(
    data: ask.Data,
    source: ask.SourceText,
    out: Annotated[Path, typer.Option(help="The run folder; the same command goes on with an interrupted run.")],
    methods: ask.Methods,
    grafts: ask.Grafts = "replace,retain",
    shots: ask.Shots = "all",
    trials: Annotated[int, typer.Option(callback=ask.at_least(1), help="Trials with which each is tuned.")] = 8,
    seeds: Annotated[int, typer.Option(callback=ask.at_least(1), help="Draws on which they are compared.")] = 3,
    seed: ask.Seed = 0,
    time_limit: ask.TimeLimit = None,
    harmonise: ask.Harmonise = "none,l2",
    hidden: ask.Hidden = None,
    search: ask.Search = "halving",
    epochs: ask.Epochs = None,
    batch_size: Annotated[int, typer.Option(callback=ask.at_least(2), help="Images a training step.")] = 32,
    augmentation: ask.Augmentation = "crop-flip",
    mixup: ask.Mixup = 0.0,
    ema: ask.EMA = 0.0,
    weights: ask.Weights = None,
    classes: ask.ClassNames = None,
    image_size: ask.ImageSize = None,
    stages: ask.StagesByHand = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    precision: ask.Precision = "auto",
    threads: ask.Threads = None,
    views: ask.Views = "8",
    classifier_start: ask.ClassifierStart = 0.01,
    store: ask.StoreFolder = None,
    store_limit: ask.StoreLimit = None,
    max_pixels: ask.MaxPixels = 100_000_000,
) -> None:  # fmt: skip
    """Compare methods and grafts on few or all images, each tuned alike, with intervals over draws and images."""
    from inarch.comparison.options import CompareOptions
    from inarch.comparison.story import compare as run
    from inarch.options import StudyOptions
    from inarch.terminal import print_comparison

    study = StudyOptions(
        grafts=grafts, harmonise=harmonise, search=search, seeds=seeds, seed=seed, epochs=epochs,
        hidden=tuple(hidden or ()), batch_size=batch_size, device=device,
        precision=precision, threads=threads, max_pixels=max_pixels, stages=words(stages), time_limit=time_limit,
        views=views, store=store, store_limit=store_limit, augmentation=augmentation, mixup=mixup, ema=ema,
        classifier_start=classifier_start,
    )  # fmt: skip
    options = CompareOptions(methods, shots, trials, study)
    with stoppable(), progress_on_terminal() as progress:
        results = run(data, source, out, options, source_options(weights, image_size, classes), progress)
    print_comparison(results, out, console)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The run folder; the images are put into it.")],
    time_limit: ask.TimeLimit = "100s",
    threads: ask.Threads = None,
) -> None:
    """Show all this on handwritten digits, with a network that the package carries: no download, two minutes."""
    from inarch import demo as demonstration

    with stoppable(), progress_on_terminal() as progress:
        results = demonstration.demo(out, progress, time_limit=time_limit, threads=threads)
    for line in demonstration.in_short(results, out):
        console.print(line, soft_wrap=True)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A run folder or a model folder.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    top: Annotated[int, typer.Option(callback=ask.at_least(1), help="How many classes to give for each image.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write a CSV file instead of printing.")] = None,
    batch_size: Annotated[int, typer.Option(callback=ask.at_least(1), help="Images at a time.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    source_classes: ask.SourceClasses = False,
    heatmaps: ask.HeatMapFolder = None,
    unknown: ask.UnknownRate = None,
) -> None:
    """Classify images with an adapted network."""
    from inarch.predict import load
    from inarch.predictions import require_place, write_csv

    require_place(out)
    loaded = load(model, device=device, announce=announce)
    with progress_on_terminal() as progress:
        predictions = loaded.predict(
            images, top=top, source_classes=source_classes, unknown=unknown, heatmaps=heatmaps, batch_size=batch_size,
            progress=progress.images,
        )  # fmt: skip
    extras = {"source_classes": source_classes, "unknown": unknown is not None, "heatmaps": heatmaps is not None}
    write_csv(predictions, out, loaded.columns(top, **extras))
    bad = [p for p in predictions if p.error]
    for prediction in bad:
        errors.print(f"{prediction.path}: {prediction.error}", style="yellow", soft_wrap=True)
    if out is not None:
        console.print(
            f"{counted(len(predictions) - len(bad), 'image')} classified, {len(bad)} could not be: {out}",
            soft_wrap=True,
        )
    if unknown is not None:
        count = sum(p.unknown for p in predictions)
        announce(f"Unknown: {count} of {len(predictions) - len(bad)}.")
    if len(bad) == len(predictions):
        raise typer.Exit(1)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Draw report.html again from a run folder."""
    from inarch.report import write_report

    console.print(f"Report: {write_report(folder)}", soft_wrap=True)


def source_options(
    weights: Path | None, image_size: int | None, classes: Path | None, *, pretrained: bool = True
) -> SourceOptions:
    from inarch.network.class_names import read_classes
    from inarch.network.source import SourceOptions

    names = None if classes is None else read_classes(classes.name, classes.parent, f"--classes {classes}")
    return SourceOptions(weights=weights, image_size=image_size, classes=names, pretrained=pretrained)


def announce(text: str) -> None:
    errors.print(text, soft_wrap=True)


@contextmanager
def stoppable() -> Iterator[None]:
    """Says, where the user stops a run, that nothing of it is lost."""
    try:
        yield
    except KeyboardInterrupt:
        announce("Stopped. What was finished is kept; the same command goes on from there.")
        raise typer.Exit(1) from None


def progress_on_terminal() -> Any:
    from inarch.terminal import progress_on

    return progress_on(errors)


def print_profile(seconds: dict[str, float]) -> None:
    """Where the time of a call went, and how much of it was spent beside the work itself."""
    from inarch.profile import overhead
    from inarch.terminal import profile_table

    console.print(profile_table(seconds))
    console.print(f"Outside training, evaluation and feature extraction: {100 * overhead(seconds):.1f} % of the time.")


def main() -> None:
    """Runs the command line; an error that a user can mend is one message, never a traceback."""
    # Read when PyTorch loads its threads. They spin while they wait for each other, by default so long that any other
    # work on the machine makes training several times slower (docs/lab-notebook.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app(standalone_mode=True)
    except InarchError as error:
        errors.print(f"Error: {error.problem}", style="bold red", soft_wrap=True)
        if error.remedy:
            errors.print(error.remedy, soft_wrap=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
