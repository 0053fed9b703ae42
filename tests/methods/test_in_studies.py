"""Methods in whole studies, from the command line: `fit --method`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from program import ONE, QUICK, inarch
from safetensors.torch import save_file
from torch import nn
from toy import SIDE, write_images, write_source

from inarch.methods import METHODS
from inarch.results.ledger import Ledger

FLAT = """
from torch import nn

def flat(num_classes: int = 6) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, num_classes))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy images, the toy source, and a source (`flat.json`) without convolution and normalisation."""
    folder = tmp_path_factory.mktemp("place")
    card = json.loads(write_source(folder).read_text())
    write_images(folder / "images", a_class=12)
    (folder / "flat.py").write_text(FLAT)
    scope: dict[str, Any] = {}
    exec(FLAT, scope)
    network: nn.Module = scope["flat"]()
    save_file(network.state_dict(), folder / "flat.safetensors")
    assert card["input"]["size"] == [3, SIDE, SIDE]
    (folder / "flat.json").write_text(
        json.dumps(card | {"network": "python:flat.py:flat", "weights": "flat.safetensors"})
    )
    return folder


def trials_of(run: Path) -> list[dict[str, Any]]:
    with Ledger(run / "ledger.sqlite") as ledger:
        return [record.subject for record in ledger.records("trial")]


@pytest.mark.parametrize("method", [m.name for m in METHODS if m.name not in ("fine-tuning", "linear-probe")])
def test_a_study_trains_its_proposal_by_the_method_and_its_baselines_plainly(
    place: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "run"
    ran = inarch(
        "fit", place / "images", "--source", place / "toy.json", "--out", out, *ONE, "--epochs", "2", "--method", method
    )
    assert ran.exit_code == 0, ran.said
    found = {(trial["configuration"]["graft"], trial["method"]) for trial in trials_of(out)}
    assert found == {("retain", method), ("replace", "fine-tuning")}
    assert json.loads((out / "results.json").read_text())["chosen"]["method"] == method


@pytest.mark.parametrize(
    ("method", "warned"), [("soup", True), ("l2-sp", False), ("linear-probe", False), ("fine-tuning", False)]
)
def test_a_choice_on_which_the_method_had_no_effect_says_so(
    place: Path, tmp_path: Path, method: str, warned: bool
) -> None:
    out = tmp_path / "run"
    ran = inarch(
        "fit", place / "images", "--source", place / "toy.json", "--out", out, *QUICK, "--grafts", "retain", "--seeds",
        "1", "--harmonise", "none", "--cuts", "3", "--method", method,
    )  # fmt: skip
    assert ran.exit_code == 0, ran.said
    results = json.loads((out / "results.json").read_text())
    assert (results["chosen"]["method"], results["chosen"]["learning_rate"]) == (method, 0.0)
    assert any(f"where {method} has nothing to act on" in text for text in results["warnings"]) == warned


def test_all_methods_are_compared_at_once(place: Path, tmp_path: Path) -> None:
    out, names = tmp_path / "run", [m.name for m in METHODS]
    ran = inarch(
        "compare", place / "images", "--source", place / "toy.json", "--out", out, "--methods", ",".join(names),
        "--shots", "4", "--seeds", "1", "--trials", "1", "--epochs", "1", "--batch-size", "8", "--threads", "1",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.said
    (size,) = json.loads((out / "comparison.json").read_text())["sizes"]
    assert {row["method"] for row in size["contestants"]} == set(names)
    assert all(0 <= row["accuracy"] <= 1 for row in size["contestants"])


def test_the_linear_probe_is_searched_at_the_deepest_cut_alone(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ran = inarch(
        "fit", place / "images", "--source", place / "toy.json", "--out", out, *QUICK, "--method", "linear-probe",
        "--seeds", "1", "--grafts", "replace,retain",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.said
    found = {(t["configuration"]["graft"], t["cut"]) for t in trials_of(out) if t["method"] == "linear-probe"}
    assert found == {("replace", 2), ("retain", 3)}


def test_a_linear_probe_at_another_cut_is_refused_with_the_cuts_it_can_have(place: Path, tmp_path: Path) -> None:
    ran = inarch(
        "fit", place / "images", "--source", place / "toy.json", "--out", tmp_path / "run", *QUICK, "--method",
        "linear-probe", "--cuts", "1",
    )  # fmt: skip
    assert ran.exit_code == 2
    assert "--cuts 1 leaves no cut for replace, retain, deepen, joined." in ran.said
    assert "linear-probe stands at the deepest cut: 2 for a graft that replaces" in ran.said


@pytest.mark.parametrize(("method", "said"), [("delta", "feature maps"), ("stochnorm", "batch normalisation")])
def test_a_method_that_has_nothing_to_act_on_is_refused_before_the_run_folder_is_claimed(
    place: Path, tmp_path: Path, method: str, said: str
) -> None:
    fit = ("fit", place / "images", "--source", place / "flat.json", "--out", tmp_path / "run", *ONE)
    ran = inarch(*fit, "--method", method)
    assert ran.exit_code == 2
    assert said in ran.said
    assert inarch(*fit).exit_code == 0
