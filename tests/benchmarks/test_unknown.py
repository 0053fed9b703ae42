"""The benchmark of `--unknown`: that it reads what the delivered model did, and splits anew without losing an image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from program import ONE, inarch
from toy import write_images, write_source

import inarch as api
import unknown
from inarch.data import open_dataset


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_images(folder / "images", a_class=60)
    write_images(folder / "others", a_class=3, classes=("other", "another"))
    ran = inarch("fit", folder / "images", "--source", write_source(folder / "source"), "--out", folder / "run", *ONE)
    assert ran.exit_code == 0, ran.said
    return folder / "run"


def test_the_probabilities_are_those_of_the_delivered_model(run: Path) -> None:
    images = run.parent / "images"
    dataset = open_dataset(images)
    model = api.load(run, announce=lambda text: None)
    for split, found in zip(("validation", "test"), unknown.delivered_probabilities(run), strict=True):
        predicted = model.predict([images / item.path for item in dataset.split(split)])
        assert found.max(axis=1) == pytest.approx([p.probabilities[0] for p in predicted], abs=1e-5)


def test_shares_of_known_and_other_images_are_written(run: Path, tmp_path: Path) -> None:
    others = run.parent / "others"
    options = ["--rate", "0.1", "--splits", "50", "--json", str(tmp_path / "out.json")]
    assert unknown.main([str(run), str(others), *options]) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    counts = json.loads((run / "results.json").read_text())["dataset"]["counts"]
    assert written["shares"]["test"]["images"] == counts["test"]
    assert written["shares"]["others"]["images"] == 6
    assert written["validation_images"] == counts["validation"]
    assert 0 < written["shares"]["test"]["mean"] <= 0.15


def test_over_random_splits_the_mean_keeps_the_promise_although_the_own_split_breaks_it() -> None:
    random = np.random.default_rng(5)
    validation, test, strange = random.exponential(size=300), 2 * random.exponential(size=300), np.full(10, 99.0)
    found = unknown.split_anew(validation, test, {"strange": strange}, 0.05, 200, 0)
    assert found["test"]["own_split"] > 0.1
    assert found["test"]["mean"] == pytest.approx(15 / 301, abs=0.004)
    assert found["strange"]["mean"] == found["strange"]["own_split"] == 1.0
    assert unknown.split_anew(validation, test, {"strange": strange}, 0.05, 200, 0) == found
    assert found["test"]["range95"][0] < found["test"]["mean"] < found["test"]["range95"][1]
