"""Arguments and options of the command line that several commands share, or that have more to say than a name.

What an option can name stands here too, so that a mistake is said before PyTorch is loaded; a test compares it with the
parts that these are the names of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from inarch.catalogue import GRAFTS, METHODS, known
from inarch.errors import UsageError
from inarch.features.place import bytes_of
from inarch.texts import seconds, shots_of, sizes, some_of, views_of

HarmoniserName = Literal["none", "l2", "l2-1", "l2-10", "l2-matched", "batch"]
SearchName = Literal["halving", "exhaustive"]
OptimiserName = Literal["sgd", "adamw"]
BalanceName = Literal["none", "loss", "sampler"]
AugmentationName = Literal["crop-flip", "crop", "randaugment"]
PrecisionName = Literal["fp32", "bf16"]


def at_least(low: int) -> Callable[[typer.CallbackParam, int | None], int | None]:
    """A callback that refuses smaller numbers; Typer's own `min` does not say which number was given."""

    def check(param: typer.CallbackParam, value: int | None) -> int | None:
        if value is not None and value < low:
            raise UsageError(f"{param.opts[0]} {value} is too small.", f"Least: {low}.")
        return value

    return check


def share_of_images(param: typer.CallbackParam, value: float | None) -> float | None:
    """A callback that refuses what is no share of images."""
    from inarch.results.unknown import require_share

    if value is not None:
        require_share(value)
    return value


Data = Annotated[Path, typer.Argument(exists=True, help="A folder of class folders, or a CSV or Parquet manifest.")]
SourceText = Annotated[
    str,
    typer.Option(
        help="timm:NAME, torchvision:NAME, inarch:embedded, python:FILE.py:FUNCTION, a card (.json) or a model folder "
        "of Inarch."
    ),
]
Weights = Annotated[Path | None, typer.Option(help="Weights of the source network (.safetensors).")]
ImageSize = Annotated[
    int | None, typer.Option(callback=at_least(1), help="Side of the images that the network sees, in pixels.")
]
ClassNames = Annotated[Path | None, typer.Option(help="Names of the source classes: JSON list, or a line each.")]
MaxPixels = Annotated[int, typer.Option(callback=at_least(1), help="Images with more pixels are set aside.")]
StoreFolder = Annotated[
    Path | None, typer.Option("--store", help="Folder of stored activations; else that of the user's cache.")
]  # fmt: skip
StagesByHand = Annotated[
    str, typer.Option("--stages", help="Modules to cut behind, with commas, where a network cannot be traced.")
]  # fmt: skip

# Options that a text of several parts is read for hold `Any`: Typer takes no annotation for the value of a parser.
TimeLimit = Annotated[
    Any, typer.Option(parser=seconds, metavar="TIME", help="Budget of this call, such as 20m; call again to go on.")
]
Grafts = Annotated[
    Any,
    typer.Option(
        parser=some_of("--grafts", tuple(entry.name for entry in GRAFTS)), metavar="NAMES",
        help="Grafts to try, with commas: `inarch grafts` lists them.",
    ),
]  # fmt: skip
Harmonise = Annotated[
    Any,
    typer.Option(
        parser=some_of("--harmonise", get_args(HarmoniserName)), metavar="NAMES",
        help=(
            f"Ways to harmonise to try: {', '.join(get_args(HarmoniserName))}. l2 starts its scales at 20, "
            "l2-matched at the length of the vectors that arrive."
        ),
    ),
]  # fmt: skip
Hidden = Annotated[
    list[Any] | None,
    typer.Option(
        parser=sizes, metavar="SIZES", help="Sizes of new hidden layers: 512 or 512,256; else each graft's own."
    ),
]
Views = Annotated[
    Any,
    typer.Option(
        parser=views_of, metavar="NUMBER", help="Augmented views of each image, in turn; epochs: a new one each."
    ),
]
ClassifierStart = Annotated[
    float,
    typer.Option(
        metavar="FACTOR",
        help="What a new classifier's initial weights are multiplied by: small, so that it says nothing at first; 1: "
        "PyTorch's own.",
    ),
]
StoreLimit = Annotated[
    Any,
    typer.Option(
        parser=bytes_of,
        metavar="SIZE",
        help="What a study may store there, a comparison for each of --shots: 200MB, 4GiB; 0: nothing.",
    ),
]
Method = Annotated[
    str, typer.Option(callback=known, metavar="NAME", help="How the target network is trained: see inarch methods.")
]
Methods = Annotated[
    Any,
    typer.Option(
        parser=some_of("--methods", tuple(entry.name for entry in METHODS)), metavar="NAMES",
        help="Methods to compare, with commas: `inarch methods` lists them.",
    ),
]  # fmt: skip
Shots = Annotated[
    Any, typer.Option(parser=shots_of, metavar="NUMBERS", help="Training images a class in a draw: 5,20,all.")
]
Search = Annotated[SearchName, typer.Option(help="Short trials first, or all in full.")]
Optimiser = Annotated[OptimiserName, typer.Option(help="What takes the steps.")]
Balance = Annotated[BalanceName, typer.Option(help="For unequal classes.")]
Augmentation = Annotated[
    AugmentationName,
    typer.Option(
        help="What views are made by: a random crop, flip and slight changes of colour; the same without flip, for "
        "what is something else in a mirror, as digits are; or crop, flip and two random operations (RandAugment).",
    ),
]
Mixup = Annotated[
    float,
    typer.Option(
        metavar="ALPHA",
        help="Train on mixed images, with shares from Beta(ALPHA, ALPHA), such as 0.2; 0: none. What the trained part "
        "reads is mixed: pixels, or behind frozen stages their activations, which is manifold mixup.",
    ),
]
EMA = Annotated[
    float,
    typer.Option(
        metavar="DECAY",
        help="Validate, test and deliver the moving average of the weights over about 1/(1 - DECAY) steps, such as "
        "0.99; 0: the last weights.",
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16"], typer.Option(help="Of the arithmetic; auto: what is fastest here.")
]
StoredPrecision = Annotated[PrecisionName, typer.Option(help="Of stored activations.")]
Seeds = Annotated[
    int, typer.Option(callback=at_least(1), help="How often the best are trained again before the choice.")
]
Seed = Annotated[int, typer.Option(callback=at_least(0), help="Decides splits, views, order and initial weights.")]
Epochs = Annotated[
    int | None, typer.Option(callback=at_least(1), help="Passes over the training images; else about 800 steps.")
]
Threads = Annotated[
    int | None, typer.Option(callback=at_least(1), help="Processor threads; a run keeps those it was begun with.")
]
SourceClasses = Annotated[
    bool,
    typer.Option(
        "--source-classes",
        help="Also the five most probable source classes: what the image looks like to the original network, before it "
        "was adapted. They are no answer, and come from its own weights, which the model folder keeps.",
    ),
]
HeatMapFolder = Annotated[
    Path | None,
    typer.Option(
        "--heatmaps",
        help="Folder for pictures of where the network looked: Grad-CAM of the most probable class, for networks with "
        "feature maps.",
    ),
]
UnknownRate = Annotated[
    float | None,
    typer.Option(
        "--unknown", callback=share_of_images,
        help='Answer "unknown" where an image looks like no known class, so that at most this share of known images '
        "is turned away, on average: 0.05. Nothing is promised for classes that validation lacked.",
    ),
]  # fmt: skip
