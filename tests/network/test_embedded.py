"""The source network that the package carries."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import inarch
from inarch.command import command
from inarch.errors import UsageError
from inarch.network.adapted import stage
from inarch.network.source import EMBEDDED, SourceOptions, load_source
from inarch.options import StudyOptions

FOLDER = Path(inarch.__file__).parent / "embedded"
ROOT = Path(__file__).resolve().parents[2]


def test_it_has_at_most_four_megabytes_and_at_least_200_named_classes() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 4_000_000
    source = load_source(EMBEDDED)
    assert len(set(source.classes)) == len(source.classes) >= 200
    assert "star of 5 points" in source.classes
    assert source.name == EMBEDDED


def test_its_weights_are_those_of_the_record() -> None:
    record = json.loads((ROOT / "pretraining" / "record.json").read_text())
    assert record["weights_sha256"] == _sha256(FOLDER / "weights.safetensors")
    assert record["classes"] == len(json.loads((FOLDER / "classes.json").read_text()))
    assert record["curve"][-1]["step"] == record["recipe"]["steps"]


def test_it_can_be_cut_at_every_block() -> None:
    source = load_source(EMBEDDED)
    names = [s.name for s in stage(source.network, source.classification_layer, source.input.example()).stages]
    assert names[0] == "conv1"
    assert names[-1] == "classification-layer"
    assert len(names) == 10


@pytest.mark.parametrize("size", [32, 96, 128])
def test_it_sees_images_of_other_sizes(size: int) -> None:
    source = load_source(EMBEDDED, SourceOptions(image_size=size))
    assert source.network(source.input.example()).shape == (2, len(source.classes))


def test_another_network_of_inarch_is_an_error_that_names_the_one_there_is() -> None:
    with pytest.raises(UsageError) as caught:
        load_source("inarch:large")
    assert EMBEDDED in caught.value.remedy


def test_the_command_to_repeat_a_study_names_it() -> None:
    words = command(Path("digits"), EMBEDDED, StudyOptions(), SourceOptions())
    assert words[:5] == ["inarch", "fit", "digits", "--source", EMBEDDED]


def test_a_built_package_carries_it(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(_copy(tmp_path))], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {f"inarch/embedded/{name}" for name in ("card.json", "classes.json", "weights.safetensors")} <= held


def _copy(folder: Path) -> Path:
    """What a package is built from; a build leaves files beside its sources."""
    place = folder / "project"
    shutil.copytree(ROOT / "src", place / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / name)
    return place


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
