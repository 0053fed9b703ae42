"""Every command as a user calls it, and every mistake that a user can make: what is said, and the exit code."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from program import ONE, Ran, inarch
from rich.console import Console
from rich.progress import Progress as Bars
from safetensors.torch import load_file, save_file
from toy import write_images, write_source

from inarch import __version__, arguments
from inarch.catalogue import GRAFTS as LISTED_GRAFTS
from inarch.catalogue import METHODS as ENTRIES
from inarch.data import AUGMENTATIONS
from inarch.errors import UsageError
from inarch.features.plan import PRECISIONS
from inarch.network.layers import HARMONISERS
from inarch.search.space import SEARCHES
from inarch.texts import seconds
from inarch.training.trial import BALANCES, OPTIMISERS


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images", a_class=12)


@pytest.fixture(scope="module")
def run(source: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder; tests only read it."""
    out = tmp_path_factory.mktemp("out") / "run"
    ran = inarch("fit", images, "--source", source, "--out", out, *ONE)
    assert ran.exit_code == 0, ran.said
    return out


COMMANDS = ("check", "stages", "methods", "grafts", "fit", "demo", "compare", "rank", "predict", "report")


def fails(ran: Ran, code: int, *said: str) -> None:
    """The command ended with that exit code, said all of that, and showed no traceback."""
    for part in said:
        assert part in ran.said
    assert "Traceback" not in ran.said
    assert ran.exit_code == code


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# The commands


def test_methods_are_listed_with_one_line_and_their_paper() -> None:
    ran = inarch("methods")
    assert ran.exit_code == 0
    lines = ran.out.splitlines()
    assert lines[0].split() == ["method", "what", "it", "does", "paper"]
    assert len(lines) == 1 + len(ENTRIES)
    for line, entry in zip(lines[1:], ENTRIES, strict=True):
        assert line.split()[0] == entry.name
        assert entry.line in line
        assert entry.paper in line


def test_grafts_are_listed_with_one_line_and_their_paper() -> None:
    ran = inarch("grafts")
    assert ran.exit_code == 0
    lines = ran.out.splitlines()
    assert lines[0].split() == ["graft", "what", "it", "does", "paper"]
    for line, entry in zip(lines[1:], LISTED_GRAFTS, strict=True):
        assert line.split()[0] == entry.name
        assert entry.line in line
        assert entry.paper in line


def test_help_names_every_command() -> None:
    ran = inarch("--help")
    for command in COMMANDS:
        assert f"  {command} " in ran.out


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "fit --help",
        "demo --help",
        "compare --help",
        "rank --help",
        "predict --help",
        "check --help",
        "methods",
        "grafts",
    ],
)
def test_help_loads_no_library_that_takes_its_time(words: str) -> None:
    code = f"import sys; from inarch.cli import app; app({words.split()}, standalone_mode=False); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ran.stdout.splitlines()[-1].split()
    assert "typer" in loaded
    slow = {"torch", "torchvision", "timm", "matplotlib", "sklearn", "scipy", "numpy", "PIL", "safetensors", "jinja2"}
    assert not slow.intersection(loaded)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_of_its_own(command: str) -> None:
    ran = inarch(command, "--help")
    assert ran.exit_code == 0
    assert ran.out.startswith("Usage: ")
    assert f" {command} " in ran.out


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "magic"), ("--grafts", "widen"), ("--harmonise", "l3"), ("--search", "random"), ("--seeds", "0"),
        ("--precision", "fp8"), ("--time-limit", "soon"), ("--hidden", "big"), ("--store-limit", "4"), ("none",),
    ],
)  # fmt: skip
def test_a_mistake_in_an_option_is_said_before_any_slow_library_is_loaded(
    options: tuple[str, ...], images: Path
) -> None:
    data = ["none"] if options == ("none",) else [str(images), *options]
    code = f"""import sys
from inarch.cli import main
sys.argv = ["inarch", "fit", "--source", "x", "--out", "y", *{data}]
try:
    main()
except SystemExit as end:
    print(end.code, *sys.modules)"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    exit_code, *loaded = ran.stdout.split()
    assert exit_code == "2"
    assert not {"torch", "timm", "numpy", "PIL", "matplotlib", "sklearn"}.intersection(loaded)


def test_the_command_line_knows_exactly_what_the_parts_offer() -> None:
    for names, offered in (
        (arguments.HarmoniserName, HARMONISERS),
        (arguments.SearchName, SEARCHES),
        (arguments.OptimiserName, OPTIMISERS),
        (arguments.BalanceName, BALANCES),
        (arguments.AugmentationName, tuple(AUGMENTATIONS)),
        (arguments.PrecisionName, PRECISIONS),
    ):
        assert get_args(names) == tuple(offered)


def test_the_version_is_printed() -> None:
    ran = inarch("--version")
    assert (ran.exit_code, ran.out) == (0, f"inarch {__version__}\n")


def test_the_installed_command_is_the_one_tested_here() -> None:
    from importlib.metadata import PackageNotFoundError, entry_points, version

    try:
        version("inarch")
    except PackageNotFoundError:
        pytest.skip("inarch is not installed, only on the path")
    (script,) = entry_points(group="console_scripts", name="inarch")
    assert script.value == "inarch.cli:main"


def test_check_shows_classes_splits_and_what_was_set_aside(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images" / "red" / "broken.png").write_bytes(b"nothing")
    shutil.copy(images / "red" / "0.png", tmp_path / "images" / "blue" / "twin.png")
    ran = inarch("check", tmp_path / "images")
    assert ran.exit_code == 0
    for part in ("train", "validation (made)", "test (made)", "3 classes", "Imbalance: ", "Set aside: 1"):
        assert part in ran.said
    assert "red/broken.png: not an image that Pillow reads" in ran.said
    assert "1 picture (1 within a split, 0 across splits, 1 with conflicting labels)" in ran.said
    assert "blue/twin.png (train), red/0.png (train): conflicting labels" in ran.said


def test_check_prints_the_same_as_json(images: Path) -> None:
    ran = inarch("check", images, "--json")
    assert ran.exit_code == 0
    found = json.loads(ran.out)
    assert found["classes"] == ["blue", "green", "red"]
    assert [found["splits"][s]["images"] for s in ("train", "validation", "test")] == [24, 6, 6]
    assert found["splits"]["train"]["classes"] == {"blue": 8, "green": 8, "red": 8}
    assert found["set_aside"] == []
    other = json.loads(inarch("check", images, "--json", "--seed", "1").out)
    assert other["digest"] != found["digest"]


def test_check_sets_aside_what_is_larger_than_max_pixels(images: Path) -> None:
    ran = inarch("check", images, "--max-pixels", "100")
    fails(ran, 1, "Of 36 files in", "20 x 20 is more than 100 pixels")


def test_stages_lists_index_name_parameters_cost_and_shape(source: Path) -> None:
    ran = inarch("stages", source)
    assert ran.exit_code == 0
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[0] == ["index", "name", "parameters", "cost", "output", "shape"]
    assert [line[:3] for line in lines[1:]] == [
        ["1", "conv1", "240"], ["2", "conv2", "900"], ["3", "classification-layer", "78"],
    ]  # fmt: skip
    assert [" ".join(line[4:]) for line in lines[1:]] == ["8 x 8 x 8", "12", "6"]
    assert sum(float(line[3].rstrip("%")) for line in lines[1:]) == pytest.approx(100, abs=0.2)


def test_stages_of_a_library_network_need_no_weights_where_they_are_not_wanted() -> None:
    ran = inarch("stages", "timm:mobilenetv1_100", "--no-weights", "--image-size", "64", "--finer")
    assert ran.exit_code == 0, ran.said
    assert "conv_stem" in ran.out
    assert "classification-layer" in ran.out
    assert "finer cuts, behind: conv_stem" in ran.said


def test_stages_can_be_named_by_hand(source: Path) -> None:
    ran = inarch("stages", source, "--stages", "2,6")
    assert ran.exit_code == 0, ran.said
    assert [line.split()[1] for line in ran.out.splitlines()[1:]] == ["2", "6", "classification-layer"]
    fails(inarch("stages", source, "--stages", "stem"), 1, "has no module 'stem'")


def test_report_is_drawn_again_from_the_results(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    ran = inarch("report", tmp_path / "run")
    assert ran.exit_code == 0, ran.said
    assert (tmp_path / "run" / "report.html").read_bytes() == (run / "report.html").read_bytes()
    assert "report.html" in ran.out


def test_report_of_a_folder_without_results_says_so(tmp_path: Path) -> None:
    fails(inarch("report", tmp_path), 1, "holds no results.json")


def test_fit_prints_what_came_out_and_where_it_lies(source: Path, images: Path, run: Path) -> None:
    ran = inarch("fit", images, "--source", source, "--out", run, *ONE)
    assert ran.exit_code == 0
    for part in ("Chosen: retain", "keeping the classification layer", "test accuracy", "traditional", "linear probe"):
        assert part in ran.said
    assert f"Report: {run / 'report.html'} Model: {run / 'model'}" in ran.said
    assert "Running toy.py (sha256 " in ran.err


def test_on_a_terminal_fit_shows_trials_done_and_to_come_best_so_far_and_time_left(
    source: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    monkeypatch.setattr("inarch.cli.errors", terminal)
    monkeypatch.setattr("inarch.terminal.Bars", functools.partial(Bars, refresh_per_second=100))
    ran = inarch("fit", images, "--source", source, "--out", tmp_path / "run", *ONE)
    assert ran.exit_code == 0, ran.said
    assert isinstance(terminal.file, io.StringIO)
    drawn = terminal.file.getvalue()
    assert re.search(r"Trials, best validation accuracy \d+\.\d %, about \d+ min left", drawn)
    assert len(set(re.findall(r"(\d+)/\d+", drawn))) > 5
    assert "coarse cuts: replace, cut 0 (rates: new layers" in drawn
    assert "About " in drawn


def test_an_adapted_network_is_ranked_beside_its_source(source: Path, images: Path, run: Path) -> None:
    ran = inarch("rank", images, "--source", source, "--source", run / "model", "--json")
    assert ran.exit_code == 0, ran.said
    classes = {row["source"]: row["source_classes"] for row in json.loads(ran.out)["ranked"]}
    assert classes == {str(source): 6, str(run / "model"): 3}


# Prediction


@pytest.mark.parametrize("kind", ["run", "model"])
def test_predict_takes_a_run_or_a_model_folder_and_images_or_folders(kind: str, run: Path, images: Path) -> None:
    folder = run if kind == "run" else run / "model"
    ran = inarch("predict", folder, images / "blue", images / "red" / "3.png")
    assert ran.exit_code == 0, ran.said
    found = table(ran.out)
    assert [Path(row["path"]).name for row in found] == [*sorted(f"{i}.png" for i in range(12)), "3.png"]
    assert {row["class_1"] for row in found} <= {"red", "green", "blue"}
    assert {row["error"] for row in found} == {""}


def test_predict_gives_the_top_classes_best_first_with_probabilities(run: Path, images: Path) -> None:
    (row,) = table(inarch("predict", run, images / "red" / "3.png", "--top", "2").out)
    assert float(row["probability_1"]) >= float(row["probability_2"])
    assert "class_3" not in row
    (row,) = table(inarch("predict", run, images / "red" / "3.png", "--top", "9").out)
    assert sum(float(row[f"probability_{i}"]) for i in (1, 2, 3)) == pytest.approx(1, abs=1e-5)
    assert "class_4" not in row


def test_predict_names_an_unreadable_file_among_good_ones_and_succeeds(run: Path, images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "red" / "3.png", tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    out = tmp_path / "predictions.csv"
    ran = inarch("predict", run, tmp_path, "--out", out, "--top", "2")
    assert ran.exit_code == 0
    assert f"{tmp_path / 'bad.png'}: not an image that Pillow reads" in ran.said
    assert "1 image classified, 1 could not be" in ran.said
    bad, good = table(out.read_text())
    assert (bad["class_1"], bad["error"]) == ("", "not an image that Pillow reads")
    assert (bool(good["class_2"]), good["error"]) == (True, "")


def test_predict_fails_where_no_file_could_be_read(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    ran = inarch("predict", run, tmp_path / "bad.png", tmp_path / "missing.png")
    fails(ran, 1, "bad.png: not an image that Pillow reads", "missing.png: no such file or directory")


@pytest.mark.parametrize(("top", "classes"), [("2", 2), ("9", 3)])
def test_the_header_of_predictions_is_the_same_where_no_file_could_be_read(
    top: str, classes: int, run: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    headers = []
    for image in (images / "red" / "3.png", tmp_path / "bad.png"):
        inarch("predict", run, image, "--top", top, "--out", tmp_path / "out.csv")
        headers.append((tmp_path / "out.csv").read_text().splitlines()[0].split(","))
    ranks = [f"{name}_{rank}" for rank in range(1, classes + 1) for name in ("class", "probability")]
    assert headers == [["path", *ranks, "error"]] * 2


def test_predict_reads_images_as_a_person_sees_them(run: Path, images: Path, tmp_path: Path) -> None:
    picture = Image.open(images / "red" / "3.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    picture.convert("RGBA").save(tmp_path / "transparent.png")
    ran = inarch("predict", run, images / "red" / "3.png", tmp_path / "turned.png", tmp_path / "transparent.png")
    assert len({row["probability_1"] for row in table(ran.out)}) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("{run}", "{empty}"), 1, "There is no image in what was named."),
        (("{empty}", "{images}"), 1, "holds no card.json"),
        (("{empty}/nowhere", "{images}"), 2, "nowhere"),
        (("{run}", "{images}", "--top", "0"), 2, "--top 0 is too small. Least: 1."),
        (("{run}", "{images}", "--out", "{empty}/no/such.csv"), 2, "such.csv cannot be written"),
        (("{run}", "{images}", "--device", "abacus"), 2, "--device abacus cannot be used"),
        (("{run}",), 2, "Missing argument"),
    ],
)
def test_predict_mistakes(
    arguments: tuple[str, ...], code: int, said: str, run: Path, images: Path, tmp_path: Path
) -> None:
    filled = [a.format(run=run, images=images, empty=tmp_path) for a in arguments]
    fails(inarch("predict", *filled), code, said)


# Data that cannot be used


def one_class(folder: Path) -> None:
    write_images(folder, classes=("red",))


def empty_class(folder: Path) -> None:
    write_images(folder, a_class=6)
    (folder / "yellow").mkdir()


def all_unreadable(folder: Path) -> None:
    for name in ("red", "blue"):
        (folder / name).mkdir()
        (folder / name / "0.png").write_bytes(b"nothing")


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (one_class, ("has one class only: 'red'.", "two classes or more")),
        (empty_class, ("1 of 4 classes has no usable training image: 'yellow'", "or remove the class")),
        (all_unreadable, ("Of 2 files in", "blue/0.png: not an image that Pillow reads", "images that Pillow")),
        (nothing, ("holds no images",)),
    ],
)
@pytest.mark.parametrize("command", ["check", "fit", "rank"])
def test_data_that_cannot_be_used(command: str, make: Any, said: tuple[str, ...], source: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    make(data)
    options = {"check": (), "rank": ("--source", source), "fit": ("--source", source, "--out", tmp_path / "run", *ONE)}
    fails(inarch(command, data, *options[command]), 1, *said)


# Sources that cannot be used


def card_with(source: Path, folder: Path, **changes: Any) -> Path:
    """A copy of the toy source with changes in its card; `None` takes a key out."""
    shutil.copytree(source.parent, folder)
    card = json.loads(source.read_text()) | changes
    (folder / "toy.json").write_text(json.dumps({k: v for k, v in card.items() if v is not None}))
    return folder / "toy.json"


def fit_fails(
    source: str | Path, images: Path, out: Path, code: int, *said: str, options: tuple[Any, ...] = ()
) -> None:
    fails(inarch("fit", images, "--source", source, "--out", out, *ONE, *options), code, *said)


def test_weights_that_do_not_fit_name_the_first_keys_and_shapes(source: Path, images: Path, tmp_path: Path) -> None:
    weights = load_file(source.parent / "toy.safetensors")
    weights["0.weight"] = weights["0.weight"][:, :2].contiguous()
    weights["stem.weight"] = weights.pop("4.weight")
    save_file(weights, tmp_path / "other.safetensors")
    fit_fails(
        source, images, tmp_path / "run", 1, "do not fit the network", "missing in the weights: 4.weight",
        "not known to the network: stem.weight", "0.weight is [8, 2, 3, 3] instead of [8, 3, 3, 3]",
        options=("--weights", tmp_path / "other.safetensors"),
    )  # fmt: skip


def test_weights_for_another_number_of_classes_say_how_to_build_the_network(
    source: Path, images: Path, tmp_path: Path
) -> None:
    card = card_with(source, tmp_path / "source", arguments={"num_classes": 9})
    fit_fails(card, images, tmp_path / "run", 1, "'10.weight' is [6, 12] instead of [9, 12]", '"num_classes": 6')


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.marker, "w"))


@pytest.mark.parametrize("name", ["weights.pth", "weights.bin", "weights.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_as_weights_is_refused_and_nothing_in_it_runs(
    name: str, zipped: bool, source: Path, images: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    file = tmp_path / name
    if zipped:
        torch.save({"0.weight": Bomb(marker)}, file)
    else:
        file.write_bytes(pickle.dumps({"0.weight": Bomb(marker)}))
    said = (f"The weights '{name}' are a pickle, which could run code", "Nothing in the file was run.")
    fit_fails(source, images, tmp_path / "run", 1, *said, options=("--weights", file))
    card = card_with(source, tmp_path / "source", weights=f"../{name}")
    fails(inarch("stages", card), 1, *said)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("network", "near"),
    [
        ("timm:resnet81", "timm:resnet18"),
        ("torchvision:rsnet18", "torchvision:resnet18"),
        ("timm:resnet18.a1_in2k", "timm:resnet18.a1_in1k"),
    ],
)
def test_an_unknown_network_suggests_near_names(network: str, near: str, images: Path, tmp_path: Path) -> None:
    kind, _, name = network.partition(":")
    fit_fails(network, images, tmp_path / "run", 1, f"{kind} has no network '{name}'.", near)


@pytest.mark.parametrize("network", ["timm:resnet18", "torchvision:resnet18"])
def test_without_a_hub_the_error_says_what_to_pass_and_comes_soon(
    network: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*arguments: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    begin = time.monotonic()
    fit_fails(network, images, tmp_path / "run", 1, f"weights of '{network}'", "cannot be reached", "--weights FILE")
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ("resnet18", 2, "'resnet18' is not a source network: it is no folder or file that is there. Give timm:NAME"),
        ("keras:resnet18", 2, "not a source network"),
        ("missing.json", 1, "There is no card 'missing.json'."),
        ("python:missing.py:net", 1, "'missing.py' of 'python:missing.py:net' cannot be read"),
        ("python:missing.py", 2, "not of the form python:FILE.py:FUNCTION"),
    ],
)
def test_sources_of_no_known_form(given: str, code: int, said: str, images: Path, tmp_path: Path) -> None:
    fit_fails(given, images, tmp_path / "run", code, said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": None}, "does not say which network it is for"),
        ({"network": "python:toy.py:tyo"}, "'toy.py' has no function 'tyo'. Near names: toy"),
        ({"weights": "lost.safetensors"}, "The weights 'lost.safetensors' cannot be read"),
        ({"classes": ["one", "two"]}, "has 6 outputs but 2 class names"),
        ({"input": {"size": [3, 16]}}, "'input' cannot be read"),
        ({"arguments": {"depth": 3}}, "The function 'toy' of 'toy.py' fails: TypeError"),
    ],
)
def test_cards_that_cannot_be_used(
    changes: dict[str, Any], said: str, source: Path, images: Path, tmp_path: Path
) -> None:
    fit_fails(card_with(source, tmp_path / "source", **changes), images, tmp_path / "run", 1, said)


def test_images_too_small_for_the_network_say_which_size_to_change(source: Path, images: Path, tmp_path: Path) -> None:
    fit_fails(source, images, tmp_path / "run", 1, "1 x 1 pixels", "--image-size", options=("--image-size", "1"))


# Wrong usage


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--colour", "red"), "No such option: --colour"),
        (("--epochs", "many"), "Invalid value for '--epochs'"),
        (("--time-limit", "soon"), "--time-limit soon is not a duration. Try 20m, 1h30m or 90s."),
        (("--time-limit", "0"), "--time-limit must be longer than nothing"),
        (("--hidden", "big"), "--hidden big is not a list of sizes. Try 512 or 512,256."),
        (("--hidden", "1,2,3,4"), "--hidden 1,2,3,4 is not one to three sizes above 0."),
        (("--hidden", "0"), "--hidden 0 is not one to three sizes above 0."),
        (("--cuts", "9"), "--cuts 9: the network has no such stage. Give numbers from 0 to 3 or names: none, conv1"),
        (("--cuts", "conv7"), "--cuts conv7: the network has no such stage."),
        (("--grafts", "widen"), "--grafts widen is not known. Choose from: replace, retain, deepen, joined, da-cnn,"),
        (("--grafts", ","), "No graft or no way to harmonise is left to try."),
        (("--method", "magic"), "no method called 'magic'. Choose one of: fine-tuning, linear-probe, "),
        (("--harmonise", "l3"), f"--harmonise l3 is not known. Choose from: {', '.join(HARMONISERS)}."),
        (("--device", "abacus"), "--device abacus cannot be used"),
        (("--device", "meta"), "--device meta cannot be used"),
        (("--precision", "fp8"), "'fp8' is not one of 'auto', 'fp32', 'bf16'."),
        (("--stored-precision", "fp8"), "'fp8' is not one of 'fp32', 'bf16'."),
        (("--search", "random"), "'random' is not one of 'halving', 'exhaustive'."),
        (("--views", "many"), "--views many is not a number of views. Try 8, or epochs for a fresh view every epoch."),
        (("--views", "-1"), "--views -1 is not a number of views."),
        (("--store-limit", "much"), "--store-limit much is not a size. Try 200MB, 4GB, 512MiB or 4GiB"),
        (("--store-limit", "4"), "--store-limit 4 has no unit. Try 4GB, or 4B for bytes."),
        (("--optimiser", "lion"), "'lion'"),
        (("--balance", "focal"), "'focal'"),
        (("--seeds", "0"), "--seeds 0 is too small"),
        (("--seed", "-1"), "--seed -1 is too small"),
        (("--threads", "0"), "--threads 0 is too small"),
        (("--epochs", "0"), "--epochs 0 is too small"),
        (("--batch-size", "1"), "--batch-size 1 is too small. Least: 2."),
        (("--batch-size", "0"), "--batch-size 0 is too small. Least: 2."),
        (("--label-smoothing", "1"), "label_smoothing is 1.0"),
        (("--image-size", "0"), "--image-size"),
        (("--max-pixels", "0"), "--max-pixels 0 is too small"),
    ],
)
def test_wrong_usage_ends_with_two_and_names_what_is_wrong(
    options: tuple[str, str], said: str, source: Path, images: Path, tmp_path: Path
) -> None:
    fails(inarch("fit", images, "--source", source, "--out", tmp_path / "run", *ONE, *options), 2, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fti",), "No such command 'fti'"),
        (("fit", "{images}", "--out", "run"), "Missing option '--source'"),
        (("fit", "--source", "x", "--out", "run"), "Missing argument 'data'"),
        (("stages",), "Missing argument 'source'"),
        (("check", "{images}", "--max-pixels", "0"), "--max-pixels 0 is too small"),
        (("check", "{images}/none"), "none' does not exist"),
        (("fit", "{images}/none", "--source", "x", "--out", "run"), "none' does not exist"),
    ],
)
def test_wrong_commands_end_with_two(arguments: tuple[str, ...], said: str, images: Path) -> None:
    fails(inarch(*(argument.format(images=images) for argument in arguments)), 2, said)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20m", 1200), ("1h30m", 5400), ("90s", 90), ("90", 90), ("1.5h", 5400), ("2h 5m", None), ("-5m", None)],
)
def test_durations_are_read_as_people_write_them(text: str, expected: float | None) -> None:
    if expected is None:
        with pytest.raises(UsageError, match="is not a duration"):
            seconds(text)
    else:
        assert seconds(text) == expected


def test_from_a_shell_an_error_is_a_message_on_stderr_and_an_exit_code(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    ran = subprocess.run([sys.executable, "-m", "inarch.cli", "check", tmp_path], capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.startswith("Error: ")
    assert "Traceback" not in ran.stderr


def test_names_that_look_like_markup_are_printed_as_they_are(source: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "data", a_class=8, classes=("[red]", "[/bold]"))
    (tmp_path / "data" / "[red]" / "[blink].png").write_bytes(b"nothing")
    ran = inarch("check", tmp_path / "data")
    assert ran.exit_code == 0
    assert "[red]/[blink].png: not an image" in ran.said
    ran = inarch("fit", tmp_path / "data", "--source", source, "--out", tmp_path / "[i]run", *ONE)
    assert ran.exit_code == 0, ran.said
    assert str(tmp_path / "[i]run" / "report.html") in ran.said
    ran = inarch("predict", tmp_path / "[i]run", tmp_path / "data" / "[red]")
    assert "[red]/[blink].png: not an image" in ran.said
    assert {row["class_1"] for row in table(ran.out)} <= {"[red]", "[/bold]", ""}


def test_file_names_that_are_no_text_are_classified_and_written(run: Path, images: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff.png"
    shutil.copy(images / "red" / "3.png", odd)
    out = tmp_path / "predictions.csv"
    assert inarch("predict", run, tmp_path, "--out", out).exit_code == 0
    assert odd in out.read_bytes()


def test_probabilities_do_not_depend_on_the_batch_size(run: Path, images: Path) -> None:
    found = [table(inarch("predict", run, images, "--batch-size", size).out) for size in ("1", "7", "64")]
    values = np.array([[float(row["probability_1"]) for row in rows] for rows in found])
    assert np.ptp(values, axis=0).max() < 1e-5
