"""What a study leaves in its run folder for the report, on toy images with a toy network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from program import ONE, inarch, rows, running
from toy import SOURCE_CLASSES, toy_network, write_images, write_source
from workbench import workbench

from inarch.data import open_dataset
from inarch.evidence import raised_source_logits
from inarch.network.grafts import Configuration
from inarch.results.evidence import validate_evidence
from inarch.results.ledger import Ledger
from inarch.thumbnails import SIDE, thumbnail, write_thumbnails
from inarch.training.fit import Watch
from inarch.training.trial import TrainingSettings, Trial

OPTIONS = (*ONE, "--seeds", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy source, toy images (`images`) and two equal studies of them (`run`, `again`)."""
    folder = tmp_path_factory.mktemp("place")
    write_source(folder / "source")
    write_images(folder / "images", a_class=20)
    for name in ("run", "again"):
        study(folder, name)
    return folder


def study(place: Path, name: str) -> None:
    ran = inarch("fit", place / "images", "--source", place / "source" / "toy.json", "--out", place / name, *OPTIONS)
    assert ran.exit_code == 0, ran.said


def evidence_of(folder: Path) -> dict[str, Any]:
    evidence: dict[str, Any] = json.loads((folder / "evidence.json").read_text(encoding="utf-8"))
    return evidence


def files(folder: Path) -> dict[str, bytes]:
    thumbnails = {f"thumbnails/{f.name}": f.read_bytes() for f in (folder / "thumbnails").iterdir()}
    return thumbnails | {"evidence.json": (folder / "evidence.json").read_bytes()}


def test_equal_studies_leave_equal_evidence_and_thumbnails(place: Path) -> None:
    assert files(place / "run") == files(place / "again")


def test_the_evidence_is_whole_and_names_the_thumbnails_that_are_there(place: Path) -> None:
    evidence = evidence_of(place / "run")
    validate_evidence(evidence, 3)
    named = {name for row in evidence["examples"] for name in row["thumbnails"]}
    named |= {mistake["thumbnail"] for mistake in evidence["model"]["mistakes"]}
    assert named == {file.name for file in (place / "run" / "thumbnails").iterdir()}
    assert all(len(row["thumbnails"]) == 6 for row in evidence["examples"])


def test_the_errors_are_those_of_the_delivered_model_on_the_test_images(place: Path) -> None:
    evidence = evidence_of(place / "run")
    results = json.loads((place / "run" / "results.json").read_text())
    chosen = results["test"]["model"]
    with Ledger(place / "run" / "ledger.sqlite") as ledger:
        [record] = [
            r
            for r in ledger.records("test")
            if r.subject["seed"] == chosen["seeds"][0] and r.subject["cut"] == chosen["cut"]["index"]
            and r.subject["configuration"]["graft"] == chosen["graft"]
        ]  # fmt: skip
    dataset = open_dataset(place / "images")
    predicted, labels = record.arrays["test"].argmax(axis=1), dataset.labels("test")
    assert sum(n for *_, n in evidence["model"]["confusions"]) == len(labels)
    right = sum(n for true, said, n in evidence["model"]["confusions"] if true == said)
    assert right / len(labels) == pytest.approx(chosen["accuracy"])
    wrong = {item.path for item, p, y in zip(dataset.test, predicted, labels, strict=True) if p != y}
    assert {mistake["path"] for mistake in evidence["model"]["mistakes"]} == wrong
    gap = sum(b["images"] * abs(b["accuracy"] - b["confidence"]) for b in evidence["model"]["reliability"])
    assert gap / len(labels) == pytest.approx(chosen["calibration_error"])


def test_learning_curves_are_those_of_the_ledger(place: Path) -> None:
    with Ledger(place / "run" / "ledger.sqlite") as ledger:
        trials = ledger.records("trial")
    known = {r.subject["seed"]: r for r in trials if r.subject["configuration"]["graft"] == "retain"}
    curves = {curve["role"]: curve for curve in evidence_of(place / "run")["learning"]}
    assert {"chosen", "traditional", "linear_probe"} <= curves.keys()
    assert [seed["seed"] for seed in curves["chosen"]["seeds"]] == [1, 2]
    for seed in curves["chosen"]["seeds"]:
        assert seed["epochs"] == known[seed["seed"]].outcome["epochs"]
    # The first is validated after every epoch.
    assert [len(seed["epochs"]) for seed in curves["chosen"]["seeds"]] == [1, 0]


def test_source_classes_are_those_of_the_original_network_whatever_was_trained(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        settings = TrainingSettings(epochs=1, batch_size=8)
        bench.run([Trial(Configuration("replace", "none"), 0, "fine-tuning", 0.5, 0.5, 0, settings)], Watch())
        raised = raised_source_logits(bench)
        rows, labels = bench.store.images.rows["train"], bench.store.images.labels["train"]
        with torch.no_grad():
            logits = toy_network().eval()(bench.store.images.views.evaluation(rows)).double().numpy()
        recorded = bench.folder.ledger.records("source-pass")
        assert len(recorded) == 1
        assert np.array_equal(raised_source_logits(bench), raised)
        assert len(bench.folder.ledger.records("source-pass")) == 1
    scores = (logits - logits.mean(axis=0)) / logits.std(axis=0)
    expected = [scores[labels == label].mean(axis=0) for label in range(3)]
    assert raised.shape == (3, SOURCE_CLASSES)
    assert raised == pytest.approx(np.array(expected), abs=1e-4)


def test_the_highest_source_classes_are_named(place: Path) -> None:
    with Ledger(place / "run" / "ledger.sqlite") as ledger:
        [record] = ledger.records("source-pass")
    for row, shown in zip(record.arrays["raised"], evidence_of(place / "run")["source_classes"], strict=True):
        best = [i for i in np.argsort(-row, kind="stable")[:5] if row[i] > 0]
        assert [source["name"] for source in shown] == [f"source {i}" for i in best]
        assert [source["raised"] for source in shown] == pytest.approx([row[i] for i in best], abs=6e-4)


def test_a_study_killed_before_or_during_its_evidence_goes_on_to_the_same(place: Path, tmp_path: Path) -> None:
    source = place / "source" / "toy.json"
    arguments = ["fit", place / "images", "--source", source, "--out", tmp_path / "run", *OPTIONS]
    calls = ("inarch.study:write_model", "inarch.study:write_evidence", "inarch.evidence:write_thumbnails")
    for call in calls:
        with running(*arguments, die_at=(call, 1)) as child:
            child.join(120)
        assert not (tmp_path / "run" / "evidence.json").exists()
        assert not (tmp_path / "run" / "results.json").exists()
    ran = inarch(*arguments)
    assert ran.exit_code == 0, ran.said
    assert files(tmp_path / "run") == files(place / "run")
    assert rows(tmp_path / "run")[-1][2] == "source-pass"


def test_a_run_folder_of_an_older_version_gets_its_evidence_without_training(place: Path) -> None:
    folder = place / "again"
    before = files(folder)
    (folder / "evidence.json").unlink()
    for file in (folder / "thumbnails").iterdir():
        file.unlink()
    study(place, "again")
    assert files(folder) == before
    assert json.loads((folder / "results.json").read_text())["cost"]["trials_this_call"] == 0


def test_the_command_that_repeats_the_study_stands_in_the_results(place: Path) -> None:
    command = json.loads((place / "run" / "results.json").read_text())["cost"]["command"]
    assert command[:6] == ["inarch", "fit", "images", "--source", "toy.json", "--out"]
    options = dict(zip(command[5::2], command[6::2], strict=True))
    assert (options["--cuts"], options["--seeds"], options["--hidden"]) == ("1", "2", "8")


def test_a_thumbnail_is_the_middle_as_a_small_square_and_never_enlarged(tmp_path: Path) -> None:
    image = np.zeros((100, 300, 3), dtype=np.uint8)
    image[:, 100:200] = (0, 0, 255)
    write_thumbnails(tmp_path, {"00000000.webp": image, "11111111.webp": image[:20, 140:160]})
    place = tmp_path / "thumbnails"
    with Image.open(place / "00000000.webp") as large, Image.open(place / "11111111.webp") as small:
        assert (large.size, small.size) == ((SIDE, SIDE), (20, 20))
        assert np.asarray(large.convert("RGB"))[..., 2].min() > 240
    assert thumbnail(image) == (tmp_path / "thumbnails" / "00000000.webp").read_bytes()


def test_thumbnails_that_are_not_wanted_any_more_are_removed(tmp_path: Path) -> None:
    image = np.zeros((30, 30, 3), dtype=np.uint8)
    write_thumbnails(tmp_path, {"00000000.webp": image})
    write_thumbnails(tmp_path, {"11111111.webp": image})
    assert [file.name for file in (tmp_path / "thumbnails").iterdir()] == ["11111111.webp"]


def test_what_a_file_manager_puts_beside_thumbnails_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "thumbnails" / "@eaDir").mkdir(parents=True)
    (tmp_path / "thumbnails" / ".00000000.webp.part").write_bytes(b"half")
    write_thumbnails(tmp_path, {"11111111.webp": np.zeros((30, 30, 3), dtype=np.uint8)})
    assert {file.name for file in (tmp_path / "thumbnails").iterdir()} == {"@eaDir", "11111111.webp"}
