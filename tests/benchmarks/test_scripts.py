"""Each benchmark's own logic, with measurers that stand for the real ones: what is asked, skipped, counted, written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import write_images, write_source

import common
import embedded
import finetune
import peers
import plain
import predict
import scaling
import study
import views
from inarch.training.trial import TrainingSettings
from ours import Wanted

Values = dict[str, Any]
PLAN = {"memory_format": "channels_last", "frozen": "bf16", "trained": "fp32"}
SHARES = [0.1 * stage for stage in range(11)]


class Measurer:
    """Gives made-up figures in place of every function that a child process would run."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Values, Mapping[str, str]]] = []

    def __call__(self, function: str, values: Values, environment: Mapping[str, str], note: Path) -> Values:
        self.asked.append((function, values, environment))
        return getattr(self, function.partition(":")[2])(values) | {"seconds_before": 0.0, "peak_memory_bytes": 2**30}

    def facts(self, values: Values) -> Values:
        return {"frozen_shares": SHARES, "counts": {"train": 10}}

    def measure(self, values: Values) -> Values:
        switches = values["switches"]
        seconds = 25.0 if switches.get("pixels") else 50.0 if switches.get("plan") else 100.0
        length = values["length"]
        epochs = [seconds / length["epochs"]] * length["measured_epochs"]
        trials = [
            trial | {"seconds": seconds, "seconds_of_epochs": epochs, "validation_accuracy": 0.5}
            for trial in values["trials"]
        ]
        return {"trials": trials, "seconds_once": 0.0, "threads": 2}

    def stored_trials(self, values: Values) -> Values:
        return {"trials": [{"cut": cut, "first": 15.0, "again": 5.0} for cut in values["cuts"]]}

    def study(self, values: Values) -> Values:
        exhaustive = values["options"].get("search") == "exhaustive"
        return {
            "seconds": 200.0 if exhaustive else 50.0,
            "chosen": {"validation_accuracy": 0.80 if exhaustive else 0.79},
            "validation_standard_error": 0.02,
            "cost": {"trials": 40, "peak_memory_bytes": 2**31, "environment": {"plan": PLAN | {"gain": {}}}},
            "left_out": 0,
        }

    def fine_tune(self, values: Values) -> Values:
        speed = {"inarch": 90.0, "timm": 30.0, "fastai": 20.0, "huggingface": 25.0}[values["contestant"]]
        speed += values["seed"]
        ours = {"images_per_second_from_random_tensors": 100.0, "images_per_second_steps_later": speed + 4}
        return {
            "seconds": 1000 / speed, "images_per_second": speed, "images_per_second_later": speed,
            "test_accuracy": 0.7 + 0.01 * values["seed"],
        } | (ours if values["contestant"] == "inarch" else {})  # fmt: skip

    def speeds(self, values: Values) -> Values:
        return {"rounds": [{"predict": 90.0, "decode": 200.0, "forward": 200.0, "share": 0.9}] * values["rounds"]}

    def accuracies(self, values: Values) -> Values:
        if "settings" in values:
            return self.of_embedded(values)
        loss = 0.2 if values["wanted"]["options"]["views"] == 1 else 0.0
        return {"accuracies": [0.8 - loss, 0.81 - loss, 0.79 - loss]}

    def of_embedded(self, values: Values) -> Values:
        trained = values["wanted"]["pretrained"]
        return {
            way: [
                # The middle one of the settings is the best on validation, and by chance the worst on test.
                {
                    "validation": 0.5 + 0.1 * (i == len(settings) // 2),
                    "test": 0.6 + 0.2 * trained - 0.1 * (i == len(settings) // 2),
                }
                for i in range(len(settings))
            ]
            for way, settings in values["settings"].items()
        }


@pytest.fixture
def measurer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Measurer:
    """A measurer in place of child processes, and a shared folder with one small data set."""
    found = Measurer()
    monkeypatch.setattr(common, "in_child", found)
    shared = tmp_path / "shared"
    (shared / "weights").mkdir(parents=True)
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        write_images(shared / "data" / "clothing" / split, a_class=count)
    monkeypatch.setenv("INARCH_SHARED", str(shared))
    return found


def ran(script: Any, folder: Path) -> Values:
    """What a quick run of a script writes."""
    assert script.main(["--quick", "--out", str(folder / "out"), "--json", str(folder / "out.json")]) == 0
    written: Values = json.loads((folder / "out.json").read_text())
    assert {"processor", "threads", "load_average", "versions"} <= written["machine"].keys()
    return written


def test_study_writes_ratios_gap_and_causes(measurer: Measurer, tmp_path: Path) -> None:
    written = ran(study, tmp_path)
    trials = 4 * len(SHARES) - 1
    assert written["default_speedup"] == pytest.approx(2 * trials * 100 / 50)
    assert written["exhaustive_speedup"] == pytest.approx(2 * trials * 100 / 200)
    assert written["choice_gap_points"] == pytest.approx(-1.0)
    product = 1.0
    for factor in written["causes"].values():
        product *= factor
    assert product == pytest.approx(written["default_speedup"])
    (case,) = written["cases"]
    assert len(case["seconds_by_draw"]["plain"]) == 3
    assert len(case["samples"]["plain"]["trials"]) == 3 * study.QUICK.sampled_cuts


def test_draws_on_other_machines_are_compared_each_by_itself() -> None:
    seconds = {"plain": [100.0, 600.0, 200.0], "default": [10.0, 60.0, 10.0], "one": [50.0]}
    assert study.times_faster(seconds, "plain", "default") == 10
    assert study.times_faster(seconds, "plain", "one") == 200 / 50


def test_study_gives_no_setting_of_ours_to_the_plain_loop(measurer: Measurer, tmp_path: Path) -> None:
    ran(study, tmp_path)
    plain_parts = [(v, e) for f, v, e in measurer.asked if f == "plain:measure" and not v["switches"]]
    assert plain_parts
    assert all("GOMP_SPINCOUNT" not in environment for _, environment in plain_parts)
    caches = [environment["INARCH_CACHE"] for function, _, environment in measurer.asked if function == "ours:study"]
    assert len(set(caches)) == len(caches) == 2


def test_study_gives_the_plan_that_inarch_measured_to_the_loops_that_have_one(
    measurer: Measurer, tmp_path: Path
) -> None:
    ran(study, tmp_path)
    loops = [values["switches"] for function, values, _ in measurer.asked if function == "plain:measure"]
    assert {switches["frozen"] for switches in loops if switches} == {"bf16"}
    assert any(not switches for switches in loops)


def test_study_goes_on_behind_its_finished_parts(measurer: Measurer, tmp_path: Path) -> None:
    first = ran(study, tmp_path)
    asked = len(measurer.asked)
    parts = sorted((tmp_path / "out" / "study-quick" / "parts").glob("*.json"))
    assert len(parts) == asked
    parts[0].unlink()
    again = ran(study, tmp_path)
    assert len(measurer.asked) == asked + 1
    assert again["default_speedup"] == first["default_speedup"]


def test_study_takes_the_first_draw_of_every_case_before_the_second_of_any(
    measurer: Measurer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "shared" / "data" / "landuse" / "train", a_class=6)
    monkeypatch.setattr(study, "FULL", replace(study.FULL, data_sets=("clothing", "landuse"), draws=2))
    assert study.main(["--out", str(tmp_path / "out")]) == 0
    asked = [Path(values["manifest"]).stem for function, values, _ in measurer.asked if function == "ours:study"]
    of_draws = [name.rpartition("-")[2] for name in asked]
    assert of_draws == sorted(of_draws)
    assert {name.partition("-")[0] for name in asked} == {"clothing", "landuse"}
    assert len(set(asked)) == 4


def test_study_sums_up_the_draws_that_are_whole_and_measures_nothing_more(measurer: Measurer, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="No draw is whole"):
        study.main(["--quick", "--summary", "--out", str(tmp_path / "out")])
    ran(study, tmp_path)
    asked = len(measurer.asked)
    (part,) = (tmp_path / "out" / "study-quick" / "parts").glob("*-1-plain.json")
    part.unlink()
    options = ["--quick", "--summary", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "summary.json")]
    assert study.main(options) == 0
    assert len(measurer.asked) == asked
    (case,) = json.loads((tmp_path / "summary.json").read_text())["cases"]
    assert len(case["seconds_by_draw"]["plain"]) == 1


def test_finetune_compares_with_the_fastest_peer_that_is_installed(
    measurer: Measurer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "find_spec", lambda name: None if name == "fastai" else True)
    written = ran(finetune, tmp_path)
    assert written["left_out"] == ["fastai"]
    values = written["networks"]["squeezenet1_1"]
    assert values["speedup_over_fastest_peer"] == pytest.approx(91 / 31)
    assert values["share_of_random_tensors"]["inarch"] == pytest.approx(0.95)
    assert values["contestants"]["timm"]["test_accuracy"] == pytest.approx(0.71)
    assert values["contestants"]["timm"]["rounds"] == 3


def test_finetune_interleaves_the_contestants(measurer: Measurer, tmp_path: Path) -> None:
    ran(finetune, tmp_path)
    order = [(values["seed"], values["contestant"]) for _, values, _ in measurer.asked[:6]]
    assert [seed for seed, _ in order] == sorted(seed for seed, _ in order)
    assert {"inarch", "timm"} <= {contestant for seed, contestant in order if seed == 0}


def test_step_speed_leaves_the_first_epoch_and_validation_out() -> None:
    # Two epochs of four steps of one second; a first epoch that was slow, and ten seconds between the epochs.
    steps = [5.0, 10.0, 15.0, 20.0, 31.0, 32.0, 33.0, 34.0]
    assert peers.step_speed(steps, 2, images=32, batch_size=8) == pytest.approx(8.0)


def test_scaling_moves_one_factor_at_a_time(
    measurer: Measurer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(scaling.QUICK.base, images=4, classes=2)
    factors = {"images": (4, 8), "cuts": (1, 2), "grafts": (1, 2)}
    monkeypatch.setattr(scaling, "QUICK", replace(scaling.QUICK, base=small, factors=factors))
    written = ran(scaling, tmp_path)
    assert [(row["factor"], row["value"]) for row in written["points"]] == [
        ("images", 4), ("images", 8), ("cuts", 1), ("cuts", 2), ("grafts", 1), ("grafts", 2),
    ]  # fmt: skip
    studies = [values["options"] for function, values, _ in measurer.asked if function == "scaling:study"]
    # Base values of two factors are the same point, and it is measured once.
    assert len(studies) == 4
    # What a study counts, with the processes that it trains in, and not what its own process held alone.
    assert all(row["peak_memory_bytes"] == 2**31 for row in written["points"])


def test_scaling_says_where_the_time_limit_refused_a_study() -> None:
    point = scaling.QUICK.base
    row = scaling.row("images", point, {"refused": "too short", "peak_memory_bytes": 1, "load_average": 0.0})
    assert (row["seconds"], row["stopped"]) == (None, None)


def test_predict_writes_the_share_of_the_bound(measurer: Measurer, tmp_path: Path) -> None:
    written = ran(predict, tmp_path)
    assert written["networks"]["mobilenetv1_025_128"]["share"] == pytest.approx(0.9)
    assert predict.bound(200.0, 200.0) == pytest.approx(100.0)


def test_views_are_compared_only_where_their_number_counts() -> None:
    settings = TrainingSettings(epochs=8, views=2)
    for _, cut in views.places(10):
        assert views.trial_of(views.GRAFT, cut, 1, settings, (0.0, 0.0)).views == 2


def test_views_marks_losses_beyond_noise(measurer: Measurer, tmp_path: Path) -> None:
    written = ran(views, tmp_path)
    marks = {(row["cut"], row["views"]): row["within_noise"] for row in written["rows"]}
    assert marks == {(cut, number): number != 1 for cut in (1, 5, 10) for number in (1, 4, 6)}
    one = next(row for row in written["rows"] if row["views"] == 1)
    assert one["loss_points"] == pytest.approx(20.0)
    assert one["standard_error"] == pytest.approx(0.01 / 3**0.5)
    mean = next(row for row in written["averages"] if row["views"] == 1)
    assert mean["loss_points"] == pytest.approx(20.0)
    assert mean["loss_standard_error_points"] == pytest.approx(one["loss_standard_error_points"] / 3**0.5)


def test_embedded_chooses_settings_on_validation_with_the_first_seed_alone(measurer: Measurer, tmp_path: Path) -> None:
    written = ran(embedded, tmp_path)
    asked = [values for _, values, _ in measurer.asked]
    assert len(asked) == 2 * 2 * embedded.QUICK.seeds
    first, later = asked[0]["settings"], asked[1]["settings"]
    for way in embedded.SETTINGS:
        assert len(first[way]) == len(embedded.SETTINGS[way])
        assert later[way] == [first[way][len(first[way]) // 2]]
    # Although another rate would have done better on test with the first seed.
    assert all(row["test"][0] == pytest.approx(0.7) for row in written["rows"] if row["weights"] == "embedded")


def test_embedded_compares_equal_draws_and_says_what_is_gained(measurer: Measurer, tmp_path: Path) -> None:
    written = ran(embedded, tmp_path)
    draws = {(v["wanted"]["pretrained"], v["seed"]): v["wanted"]["data"].name for _, v, _ in measurer.asked}
    assert all(draws[True, seed] == draws[False, seed] for seed in range(1, embedded.QUICK.seeds + 1))
    assert {(row["data"], row["way"]) for row in written["gains"]} == {
        (data, way) for data, *_ in embedded.QUICK.data for way in embedded.SETTINGS
    }
    assert all(row["gain_points"] == pytest.approx(20.0) for row in written["gains"])
    assert all(row["gain_error_points"] == pytest.approx(0.0, abs=1e-9) for row in written["gains"])


@pytest.mark.parametrize("validation", [False, True])
def test_embedded_draws_training_images_apart_from_validation(tmp_path: Path, validation: bool) -> None:
    for split in ("train", "test", *(["val"] if validation else [])):
        write_images(tmp_path / "data" / split, a_class=9)
    lines = embedded.drawn(tmp_path / "data", tmp_path / "drawn.csv", 3, seed=1).read_text().splitlines()[1:]
    by_split = {split: {line for line in lines if line.endswith(split)} for split in ("train", "validation", "test")}
    assert [len(found) for found in by_split.values()] == [9, 27 if validation else 9, 27]
    paths = [line.split(",")[0] for line in lines]
    assert len(set(paths)) == len(paths)
    other = embedded.drawn(tmp_path / "data", tmp_path / "other.csv", 3, seed=2).read_text().splitlines()[1:]
    assert set(other) != set(lines)


# The plain loop, which is measured against, does what it says


@pytest.mark.parametrize("graft", ["replace", "retain", "deepen", "joined"])
@pytest.mark.parametrize("pixels", [False, True])
def test_the_plain_loop_trains_what_is_not_frozen(tmp_path: Path, graft: str, pixels: bool) -> None:
    card = write_source(tmp_path / "source")
    manifest_data = tmp_path / "data"
    for split, count in (("train", 8), ("val", 3), ("test", 3)):
        write_images(manifest_data / split, a_class=count)
    manifest = common.draw(manifest_data, tmp_path / "drawn.csv", a_class=8, seed=0)
    source = Wanted(manifest, str(card)).load()
    frozen = {"0.weight", "0.bias", "1.weight", "1.bias"}
    before = {name: value.clone() for name, value in source.network.state_dict().items()}
    switches = plain.Switches(plan=pixels, pixels=pixels)
    images = plain.Images(manifest, source, switches, 8, 0)
    found = plain.train(source, frozen, graft, images, plain.Length(epochs=4, measured_epochs=2, batch_size=8))
    after = source.network.state_dict()
    for name in ("0.weight", "1.weight", "1.running_mean", "1.num_batches_tracked"):
        assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["4.weight"], after["4.weight"])
    assert found["seconds"] == pytest.approx(2 * sum(found["seconds_of_epochs"]))
    assert 0 <= found["validation_accuracy"] <= 1
