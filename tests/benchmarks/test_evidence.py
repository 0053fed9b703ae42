"""The evidence run on toy images: what is asked, that nothing is lost, and that the page follows from the records."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import write_images, write_source

import evidence
import evidence_design as design
import evidence_part
import evidence_run
import evidence_source
from evidence_advice import AGAINST, FOR, KEEP, REPLACE_IT, UNSETTLED, Verdict, verdict
from evidence_cost import minutes
from evidence_curves import three_instead_of_all
from evidence_design import OLD_LAYERS, Part
from evidence_numbers import (
    chosen_of,
    correlation_interval,
    critical_difference,
    curve,
    difference,
    draws_of,
    in_parts,
    over_these,
    ranks,
    surviving,
    warnings,
)
from evidence_page import write_page
from evidence_part import Where, run_part
from evidence_questions import QUESTIONS
from evidence_records import CHAPTER, DRAWN, Written, digest, put_back, read_part, write_part
from evidence_tables import accuracies_table, contrasts, contrasts_table
from evidence_words import failed, in_short
from inarch.comparison.design import tuning
from inarch.errors import RunFolderError, UsageError
from inarch.launch.clock import Clock
from inarch.launch.here import RANGE, TRIAL, Workbench
from inarch.methods import METHODS
from inarch.network.adapted import stage
from inarch.network.source import SourceOptions, load_source
from inarch.options import StudyOptions
from inarch.report.words import points
from inarch.results.folder import RunFolder
from inarch.results.ledger import Record
from inarch.results.statistics import PairedDifference, paired_on_draws
from inarch.search.space import Result, Space
from inarch.training.fit import OutOfTimeError
from inarch.training.trial import TrainingSettings

PART = Part("images", "toy", 4)
CHAPTERS = ("layer", "rates", "depth", "harmonise", "methods", "warning", "starts")
SMALL: dict[str, Any] = {
    "TRIALS": 2, "CURVE_DRAWS": 2, "KEEPING": ("retain",), "WITHOUT_LAYER": ("da-cnn, not there",),
    "RATE_SIZES": ((4,),), "RATE_MULTIPLES": (0.1, 1.0), "IN_DEPTH": ("replace", "retain"),
    "COMPARED_HARMONISE": ("none", "l2", "not there"), "STARTED": ("replace", "retain"),
    "METHODS": tuple(m for m in METHODS if m.name in ("fine-tuning", "l2-sp", "linear-probe")),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Every chapter, with few contestants."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(design, name, value)
        patch.setattr(evidence_part, "DRAWS", 2)
        patch.setattr(evidence_source, "FOREIGN", 4)
        yield


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Where:
    folder = tmp_path_factory.mktemp("place")
    write_images(folder / "images", a_class=24)
    write_images(folder / "others", a_class=3, classes=("other", "another"))
    card = write_source(folder / "source")
    options = StudyOptions(threads=1, epochs=2, batch_size=8)
    return Where(
        folder / "images", card, (folder / "others",), folder / "records" / "part.jsonl.gz", folder / "work", options,
        chapters=CHAPTERS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(where: Where) -> Written:
    assert run_part(PART, where, Clock(None))
    return read_part(where.file)


def test_every_combination_is_a_part_and_the_first_ones_know_every_data_set_and_source() -> None:
    parts = design.parts()
    assert len(parts) == len(set(parts)) == len(design.DATA) * len(design.SOURCES) * len(design.SHOTS)
    assert {part.data for part in parts[:6]} == set(design.DATA)
    assert {part.source for part in parts[:7]} == set(design.SOURCES)


def test_names_that_this_version_lacks_are_passed_over_until_it_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [one.name for one in design.asked("layer")] == ["replace", "retain"]
    monkeypatch.setattr(design, "GRAFT_NAMES", ("replace", "retain", "da-cnn, not there"))
    assert [one.name for one in design.asked("layer")] == ["replace", "retain", "da-cnn, not there"]
    assert [one.name for one in design.asked("harmonise")][:2] == ["retain, none", "retain, l2"]


def test_every_chapter_is_finished_with_what_was_asked(finished: Written) -> None:
    assert tuple(finished.chapters) == CHAPTERS
    assert list(finished.chapters["layer"]["contestants"]) == ["traditional", "replace", "retain"]
    assert list(finished.chapters["methods"]["contestants"]) == ["traditional", "linear-probe", "l2-sp"]
    for keys in finished.chapters["harmonise"]["contestants"].values():
        assert set(keys) <= finished.right.keys()
    assert len(finished.chapters["rates"]["rates"]) == 5 * 2
    cuts = [(row["name"], row["cut"]) for row in finished.chapters["depth"]["cuts"]]
    assert ("replace", 0) in cuts
    assert ("retain", 3) in cuts
    assert finished.finished_trials == len(finished.of(TRIAL))
    assert {len(right) for right in finished.right.values()} == {len(finished.labels)}


def test_draws_are_tuned_alike_and_test_images_are_read_for_draws_alone(finished: Written) -> None:
    seeds = [record.subject["seed"] for record in finished.of(DRAWN)]
    assert set(seeds) == {1, 2}
    assert sum(record.subject["seed"] == 0 for record in finished.of(TRIAL)) > 0


def test_what_was_stopped_goes_on_in_its_run_folder_or_from_its_records_and_comes_out_the_same(
    where: Where, finished: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replace(where, file=tmp_path / "part.jsonl.gz", work=tmp_path / "work")
    whole = Workbench.run
    left = {"run": 7}

    def stopped(self: Workbench, batch: Any, watch: Any) -> Any:
        if not left["run"]:
            raise OutOfTimeError
        left["run"] -= 1
        return whole(self, batch, watch)

    monkeypatch.setattr(Workbench, "run", stopped)
    assert not run_part(PART, elsewhere, Clock(None))
    first = read_part(elsewhere.file)
    assert 0 < first.finished_trials < finished.finished_trials
    left["run"] = 12
    assert not run_part(PART, elsewhere, Clock(None))
    assert read_part(elsewhere.file).finished_trials > first.finished_trials
    shutil.rmtree(elsewhere.work)
    left["run"] = 10_000
    assert run_part(PART, elsewhere, Clock(None))
    assert digest([read_part(elsewhere.file)]) == digest([finished])


def test_how_good_a_source_is_can_come_first_and_is_part_of_what_follows(
    where: Where, finished: Written, tmp_path: Path
) -> None:
    alone = replace(where, file=tmp_path / "part.jsonl.gz", work=tmp_path / "work", chapters=design.SOURCES_ALONE)
    assert run_part(PART, alone, Clock(None))
    first = read_part(alone.file)
    assert list(first.chapters) == ["usual"]
    for name in ("traditional", "replace"):
        assert draws_of(first, ("usual", name)) == draws_of(finished, ("layer", name))
    assert run_part(PART, replace(alone, chapters=CHAPTERS), Clock(None))
    again = read_part(alone.file)
    assert again.finished_trials == finished.finished_trials
    assert again.chapters["layer"] == finished.chapters["layer"]
    assert all(np.array_equal(again.right[key], found) for key, found in finished.right.items())


def test_tuning_has_the_share_of_the_epochs_that_earlier_parts_had(where: Where, tmp_path: Path) -> None:
    options = replace(where.options, epochs=8)
    longer = replace(
        where, file=tmp_path / "part.jsonl.gz", work=tmp_path / "work", options=options, chapters=design.SOURCES_ALONE
    )
    assert run_part(PART, longer, Clock(None))
    trials = [record.subject for record in read_part(longer.file).of(TRIAL)]
    assert {trial["settings"]["epochs"] for trial in trials if trial["seed"] == 0} == {2}


def test_only_the_warning_sees_every_epoch(where: Where, finished: Written) -> None:
    for name, epochs in ((PART.name, {0}), (f"{PART.name}-warning", {2})):
        with RunFolder(where.work / name) as folder:
            assert {len(record.outcome["epochs"]) for record in folder.ledger.records(TRIAL)} == epochs


def test_a_finished_part_is_left_alone_until_more_methods_are_known(
    where: Where, finished: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = where.file.read_bytes()
    assert run_part(PART, where, Clock(None))
    assert where.file.read_bytes() == before
    monkeypatch.setattr(design, "METHODS", (*SMALL["METHODS"], next(m for m in METHODS if m.name == "rifle")))
    more = replace(where, chapters=("methods",))
    try:
        assert run_part(PART, more, Clock(None))
        again = read_part(where.file)
        assert list(again.chapters["methods"]["contestants"]) == ["traditional", "linear-probe", "l2-sp", "rifle"]
        assert again.chapters["layer"] == finished.chapters["layer"]
        assert len(again.of(CHAPTER)) == len(finished.of(CHAPTER)) + 1
    finally:
        where.file.write_bytes(before)


def test_an_older_run_folder_takes_the_records_that_the_file_has_beyond_its_own(
    where: Where, finished: Written, tmp_path: Path
) -> None:
    elsewhere = replace(where, file=tmp_path / "part.jsonl.gz", work=tmp_path / "work")
    shutil.copy(where.file, elsewhere.file)
    old = Written(finished.about, finished.of(RANGE) + finished.of(TRIAL)[:2])
    with RunFolder(elsewhere.work / PART.name) as folder:
        put_back(old, folder, elsewhere.file)
    run_part(PART, elsewhere, Clock(0.0))
    assert digest([read_part(elsewhere.file)]) == digest([finished])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"environment": {"threads": 2}}, "another machine .*threads"),
        ({"identity": {"epochs": 7}}, "of another run: .*epochs"),
    ],
)
def test_records_of_another_machine_or_other_arguments_are_refused_and_stay(
    where: Where, finished: Written, tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    elsewhere = replace(where, file=tmp_path / "part.jsonl.gz", work=tmp_path / "work")
    shutil.copy(where.file, elsewhere.file)
    about = finished.about | {name: finished.about[name] | value for name, value in changed.items()}
    with RunFolder(elsewhere.work / PART.name) as folder:
        put_back(Written(about, finished.of(TRIAL)[:2]), folder, elsewhere.file)
    with pytest.raises(RunFolderError, match=f"(?s){named}.*delete the run folder"):
        run_part(PART, elsewhere, Clock(0.0))
    assert elsewhere.file.read_bytes() == where.file.read_bytes()


def test_a_file_is_never_written_with_fewer_records(where: Where, finished: Written, tmp_path: Path) -> None:
    file = tmp_path / "part.jsonl.gz"
    shutil.copy(where.file, file)
    with RunFolder(tmp_path / "work") as folder:
        put_back(Written(finished.about, finished.records[:-1]), folder, file)
        with pytest.raises(RunFolderError, match="holds 1 record that"):
            write_part(file, finished.about, folder)
    assert file.read_bytes() == where.file.read_bytes()


def test_methods_of_several_trainings_are_no_part_of_the_warning(where: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design, "METHODS", (*SMALL["METHODS"], next(m for m in METHODS if m.name == "soup")))
    source = load_source(str(where.card), SourceOptions())
    staged = stage(source.network, source.classification_layer, source.input.example())
    space = Space(len(staged.stages), (), TrainingSettings(epochs=2), {}, 0, 2, shots=4)
    assert design.names("methods", space, staged) == ["traditional", "linear-probe", "l2-sp", "soup"]
    assert design.names("warning", space, staged) == ["traditional", "linear-probe", "l2-sp"]
    rates = dict.fromkeys(design.to_be_rated("warning", space, staged), 0.1)
    space = replace(space, rates=rates)
    some = [*design.everybody("methods", space, staged), *design.everybody("layer", space, staged)]
    tuned = {t.key: Result(t, 0.5, 1.0) for c in some for t in tuning(c, space, design.TRIALS)}
    assert "soup" in design.compared(some, space, tuned)
    assert set(design.warned(space, staged, tuned)) == {"traditional", "linear-probe", "l2-sp", "replace"}


def test_the_warning_is_of_the_same_source_images_and_machine_as_its_part(where: Where, finished: Written) -> None:
    with RunFolder(where.work / f"{PART.name}-warning") as folder:
        expected = {**finished.about["identity"], "kind": "warning", "environment": finished.about["environment"]}
        assert {"source digest", "data digest", "image size", "epochs"} < set(expected)
        folder.require_identity(expected)
        for name in ("source digest", "data digest", "environment"):
            with pytest.raises(RunFolderError, match=name):
                folder.require_identity({**expected, name: "another"})


def test_no_time_is_no_work_and_no_file(where: Where, tmp_path: Path) -> None:
    elsewhere = replace(where, file=tmp_path / "part.jsonl.gz", work=tmp_path / "work")
    assert not run_part(PART, elsewhere, Clock(0.0))
    assert not elsewhere.file.exists()


def test_parts_are_run_leg_by_leg_until_the_time_is_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, tuple[str, ...], int | None]] = []

    def stand_in(part: Part, where: Where, clock: Clock) -> bool:
        asked.append((part.name, where.chapters, where.image_size))
        assert where.file == tmp_path / f"{part.name}.jsonl.gz"
        assert part.data not in {folder.name for folder in where.others}
        return len(asked) < 8

    monkeypatch.setattr(evidence_run, "run_part", stand_in)
    monkeypatch.setattr(evidence_run.common, "shared", lambda: tmp_path)
    given = argparse.Namespace(time_limit=None, records=tmp_path, out=tmp_path, threads=None, chapters=())
    evidence_run.run(evidence_run.chosen("clothing-*-5"), given)
    small, *others = (f"clothing-{source}-5" for source in design.SOURCES)
    rest = [(name, 128) for name in others]
    # The eighth call said that the time is up.
    assert asked == [
        (small, design.CHAPTERS, None), *((name, design.MAIN, side) for name, side in rest),
        *((name, design.QUESTIONS, side) for name, side in rest), (small, design.CHAPTERS, None),
    ]  # fmt: skip
    alone = [part.name for part, chapters in design.legs() if chapters == design.SOURCES_ALONE]
    assert len(alone) == 6
    assert "landuse-squeezenet1_1-5" in alone


def test_the_command_lists_and_sums_up_what_there_is(
    finished: Written, where: Where, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(design, "parts", lambda: [PART, Part("images", "toy", 0)])
    shutil.copy(where.file, tmp_path / f"{PART.name}.jsonl.gz")
    monkeypatch.setattr("sys.argv", ["evidence.py", "--records", str(tmp_path), "--list"])
    evidence.main()
    first, second = (line for line in capsys.readouterr().out.splitlines() if "images-toy" in line)
    assert f" {finished.finished_trials} " in first
    assert "lacks sizes, kept" in first
    assert " 0 " in second
    monkeypatch.setattr("sys.argv", ["evidence.py", "--records", str(tmp_path), "--summary", str(tmp_path / "page.md")])
    evidence.main()
    assert f"{finished.finished_trials} finished trials" in (tmp_path / "page.md").read_text()


def test_the_list_estimates_minutes_and_the_run_begins_with_the_cheapest_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["evidence.py", "--records", str(tmp_path), "--list"])
    evidence.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "_" in line.split(" ")[0]]
    assert [line[0] for line in lines] == [part.name for part in design.parts()]
    assert all(0 < int(line[-2]) < int(line[-1]) for line in lines)
    first = [minutes(part, design.QUESTIONS) for part in design.parts()]
    assert first[0] == min(value for value in first if value is not None)


def test_estimates_agree_with_what_parts_took() -> None:
    # Seconds of the chapter `layer` on one of two busy cores, 2026-11-25; the first one without its validations.
    took = {"clothing-mobilenetv1_025_128-5": 285, "clothing-squeezenet1_1-5": 870,
            "clothing-mobilenetv2_100-5": 1025, "clothing-mobilenetv1_025_128-20": 919}  # fmt: skip
    estimated = {part.name: minutes(part, design.MAIN) for part in design.parts() if part.name in took}
    scale = estimated["clothing-mobilenetv1_025_128-5"]
    assert scale is not None
    for name, value in estimated.items():
        assert value is not None
        assert value / scale == pytest.approx(took[name] / 285, rel=0.3)


def test_a_part_that_there_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["evidence.py", "--parts", "shoes-*"])
    with pytest.raises(SystemExit, match=r"No part of the evidence run is called shoes-\*"):
        evidence.main()


def test_differences_are_those_of_the_recorded_draws(finished: Written) -> None:
    mine, its = (draws_of(finished, ("layer", name)) for name in ("retain", "replace"))
    assert list(mine) == [0, 1]
    expected = paired_on_draws(
        np.stack([finished.right[key] for key in mine.values()]),
        np.stack([finished.right[key] for key in its.values()]),
    )
    assert difference(finished, ("layer", "retain"), ("layer", "replace")) == expected


def test_the_network_survives_where_no_old_layer_trained_and_agreement_is_a_share(finished: Written) -> None:
    assert surviving(finished, ("methods", "linear-probe")) == (1.0, 0.0)
    found = surviving(finished, ("layer", "traditional"))
    assert found is not None
    assert 0 <= found[0] <= 1
    assert found[1] > 0


def test_the_warning_is_about_test_images_and_never_below_the_last_epoch(finished: Written) -> None:
    found = warnings(finished)
    assert set(found) == {"traditional", "linear-probe", "l2-sp", "replace"}
    assert all(one["best"] >= one["last"] for one in found.values())
    images = len(finished.labels)
    assert all(one["last"] * images == pytest.approx(round(one["last"] * images)) for one in found.values())
    trained = finished.right[finished.chapters["warning"]["trials"]["traditional"]].mean()
    assert found["traditional"]["last"] == pytest.approx(trained)


def test_the_page_begins_with_the_trials_and_their_digest_and_every_figure_is_there(
    finished: Written, tmp_path: Path
) -> None:
    other = Written({**finished.about, "part": {"data": "other", "source": "toy", "shots": 0}}, finished.records)
    write_page(tmp_path / "evidence.md", [finished, other])
    text = (tmp_path / "evidence.md").read_text()
    trials, name = 2 * finished.finished_trials, digest([finished, other])
    assert text.splitlines()[2] == f"{trials} finished trials; digest of their records `{name}`."
    # No scores of these sources are known, so the ninth question has no answer.
    numbered = [f"{number}." for number in range(1, 9)]
    assert [line[3:5] for line in text.splitlines() if line.startswith("## ")] == [*numbered, "10", "De", "St", "Wh"]
    assert "without an answer so far: 9. Which score" in text
    for figure in ("layer", "grafts", "harmonise", "depth", "rates", "ranks", "similarity", "survival", "gains"):
        assert f"(evidence/{figure}.svg)" in text
        assert (tmp_path / "evidence" / f"{figure}.svg").stat().st_size < 100_000
    assert "nan" not in text
    first = (tmp_path / "evidence" / "depth.svg").read_bytes()
    write_page(tmp_path / "evidence.md", [finished, other])
    assert (tmp_path / "evidence" / "depth.svg").read_bytes() == first


def test_a_page_of_nothing_is_short_and_says_how_to_begin(tmp_path: Path) -> None:
    write_page(tmp_path / "evidence.md", [])
    text = (tmp_path / "evidence.md").read_text()
    assert text.splitlines()[2].startswith("0 finished trials; digest")
    assert "`python benchmarks/evidence.py --time-limit" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Statistics"]
    (line,) = (line for line in text.splitlines() if line.startswith("Questions without an answer so far"))
    assert all(f"{number}. {title}" in line for number, title in enumerate(QUESTIONS, start=1))


def test_a_question_is_on_the_page_once_a_record_answers_it(finished: Written, tmp_path: Path) -> None:
    records = [r for r in finished.records if r.kind != CHAPTER or r.subject["chapter"] == "depth"]
    write_page(tmp_path / "evidence.md", [Written(finished.about, records)])
    text = (tmp_path / "evidence.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## 4. Accuracy against freeze depth", "## Statistics", "## What was run"
    ]  # fmt: skip
    assert "1. Retain against replace, each at its own best cut · 2." in text


def test_the_page_of_the_documentation_is_what_the_records_give(tmp_path: Path) -> None:
    page = (evidence.ROOT / "docs" / "evidence.md").read_text()
    parts = list(evidence_run.finished_parts(evidence.ROOT / "evidence").values())
    if digest(parts) not in page:
        pytest.skip("the run has gone on since the page was written")
    write_page(tmp_path / "evidence.md", parts)
    assert (tmp_path / "evidence.md").read_text() == page


def test_the_digest_forgets_seconds_and_order_and_nothing_else(finished: Written) -> None:
    slower = [replace(record, seconds=record.seconds + 1) for record in reversed(finished.records)]
    assert digest([Written(finished.about, slower)]) == digest([finished])
    assert digest([Written(finished.about, slower[1:])]) != digest([finished])


def test_the_critical_difference_agrees_with_published_quantiles() -> None:
    # Demsar, JMLR 7 (2006), table 5a: q at 5 % is 1.960, 2.728 and 3.164 for 2, 5 and 10 methods.
    for methods, quantile in ((2, 1.960), (5, 2.728), (10, 3.164)):
        expected = quantile * np.sqrt(methods * (methods + 1) / (6 * 12))
        assert critical_difference(methods, 12) == pytest.approx(expected, rel=1e-3)


def test_ranks_are_means_over_parts_and_share_ties() -> None:
    parts = [a_part(number, {"a": 0.9, "b": 0.8, "c": 0.8}) for number in range(8)]
    found, friedman, count = ranks(parts, [("methods", name) for name in "abc"], ("methods", "b"))
    assert [(row.name, row.rank) for row in found] == [("a", 1.0), ("b", 2.5), ("c", 2.5)]
    assert count == 8
    assert friedman < 0.01
    assert found[0].difference.value == pytest.approx(0.1)
    # Eight parts, all for a: the smallest p that signed ranks can give is 2 / 2^8, times 2 by Holm.
    assert found[0].p == pytest.approx(4 / 2**8)
    assert found[2].p == 1.0


def test_a_method_that_some_part_cannot_have_is_shown_unranked_and_takes_no_part_away(tmp_path: Path) -> None:
    parts = []
    for number in range(3):
        own = {"x": 0.8, "y": 0.9} if number else {"x": 0.8}
        layer, compared = a_part(number, {"traditional": 0.5, "replace": 0.6}, "layer"), a_part(number, own)
        parts.append(Written(layer.about, [*layer.records, *compared.records]))
    text = QUESTIONS["Against each contemporary method"](parts, tmp_path)
    assert text.startswith("Mean ranks over 3 parts.")
    assert "| x | 1.0 | +30.0 (+30.0 to +30.0) |" in text
    assert "| y | not in every part | +40.0 (" in text


def test_contrasts_count_parts_and_say_an_interval_from_three_parts_on() -> None:
    parts = [a_part(number, {"a": 0.9, "b": 0.1}) for number in range(3)]
    contrast = ("a - b", [("methods", "a")], [("methods", "b")])
    some, all_of_them = contrasts_table(parts[:2], [contrast]), contrasts_table(parts, [contrast])
    mean, low, high = over_these(in_parts(parts[:2], ("methods", "a"), ("methods", "b")))
    assert f"| a - b | +80.0 ({points(low)} to {points(high)}, these 2 parts) | 2 | 2 | 0 |" in some
    assert mean == pytest.approx(0.8)
    assert "| a - b | +80.0 (+80.0 to +80.0) | 3 | 3 | 0 |" in all_of_them
    assert " | 3 | 0 | 3 |" in contrasts_table(parts, [("b - a", contrast[2], contrast[1])])
    assert contrasts_table(parts, [("a - c", [("methods", "a")], [("methods", "c")])]) == ""


def test_in_short_names_the_intervals_that_exclude_zero_and_failed_trainings_are_told_apart(tmp_path: Path) -> None:
    parts = [a_part(number, {"traditional": 0.5, "a": 0.9, "b": 0.4 + number / 10}) for number in range(3)]
    found = contrasts(parts, [(name, [("methods", name)], [("methods", "traditional")]) for name in "ab"])
    assert in_short(found).endswith("exclude zero, as one in twenty does by chance: *a* +40.0 (+40.0 to +40.0).")
    assert "of 2 intervals over parts these" in in_short(found)
    assert in_short(found[1:]) == "**In short**: none of 1 interval over parts excludes zero."
    assert in_short(contrasts(parts[:2], [("a", [("methods", "a")], [("methods", "b")])])) == ""
    # Ten classes: guessing is right on 10 %.
    assert failed(parts, "methods") == ""
    assert "*c* in 3, s, 5." in failed([*parts, a_part(3, {"c": 0.1, "d": 0.2})], "methods")
    assert "*d*" not in failed([*parts, a_part(3, {"c": 0.1, "d": 0.2})], "methods")


def test_signed_ranks_of_few_parts_are_said_to_settle_nothing(tmp_path: Path) -> None:
    methods = QUESTIONS["Against each contemporary method"]
    # Two comparisons: 2 / 2^3 and 2 / 2^6, times two by Holm; 2 / 2^7 is the first below 0.05.
    assert "Over 3 parts the least p that signed ranks can have after Holm is 0.500, so" in methods(
        both_sides(3), tmp_path
    )
    assert "Over 6 parts the least p that signed ranks can have after Holm is 0.062, so" in methods(
        both_sides(6), tmp_path
    )
    assert "signed ranks can have" not in methods(both_sides(7), tmp_path)


def both_sides(count: int) -> list[Written]:
    """Parts with traditional fine-tuning, a replaced layer and one method."""
    parts = []
    for number in range(count):
        layer = a_part(number, {"traditional": 0.5, "replace": 0.6}, "layer")
        parts.append(Written(layer.about, [*layer.records, *a_part(number, {"x": 0.8}).records]))
    return parts


def test_the_interval_of_a_correlation_is_that_of_fishers_transform() -> None:
    low, high = correlation_interval(0.5, 20) or (0.0, 0.0)
    # arctanh(0.5) = 0.5493, sqrt(1.06 / 17) = 0.2497, 1.96 of them 0.4894.
    assert low == pytest.approx(np.tanh(0.5493 - 0.4894), abs=1e-3)
    assert high == pytest.approx(np.tanh(0.5493 + 0.4894), abs=1e-3)
    assert correlation_interval(0.5, 4) is None
    assert correlation_interval(-1.0, 20) is None


def test_what_three_rates_cost_is_what_validation_loses_by_them(finished: Written) -> None:
    # Two multiples were tried, 0.1 and 1, of which `inarch fit` would try the second.
    for pair, rows in zip(three_instead_of_all([finished]), curve(finished, "rates", "rates").values(), strict=True):
        low, high = sorted(rows, key=lambda row: row["multiple"])
        expected = low["accuracy"] - high["accuracy"] if low["validation"] >= high["validation"] else 0.0
        assert pair.difference == pytest.approx(expected)


EQUAL = {"traditional": 0.5, "replace": 0.5, "retain": 0.5, "deepen": 0.5}
WHOLE = "with all images, PyTorch's initial weights"
FIVE = "with 5 images a class, PyTorch's initial weights"


def head(parts: list[Written], folder: Path) -> tuple[str, dict[str, list[str]], str]:
    """How the page begins: the paragraph to decide by, the other cells of each row of its table, and the rest."""
    write_page(folder / "page.md", parts)
    paragraphs = (folder / "page.md").read_text().partition("\n## ")[0].split("\n\n")
    at = next(n for n, text in enumerate(paragraphs) if text.startswith("**If you must decide tomorrow**, "))
    rows = [line.strip("| ").split(" | ") for line in paragraphs[at + 1].splitlines()[2:]]
    return paragraphs[at], {row[0]: row[1:] for row in rows}, paragraphs[at + 2]


@pytest.mark.parametrize(
    ("found", "said", "mean"),
    [
        ({"retain": 0.9}, KEEP, 0.4), ({"replace": 1.0}, REPLACE_IT, -0.5), ({}, UNSETTLED, 0.0),
        # Far better than a replaced layer, and yet the layer is no help.
        ({"replace": 0.1, "traditional": 0.9, "retain": 0.9}, UNSETTLED, 0.0),
        # What is worse on either side would not be chosen.
        ({"traditional": 0.1, "deepen": 0.1}, UNSETTLED, 0.0),
    ],
)  # fmt: skip
def test_the_page_begins_with_what_the_better_of_either_side_says(
    found: dict[str, float], said: Verdict, mean: float, tmp_path: Path
) -> None:
    parts = [a_part(number, EQUAL | found, "layer") for number in range(3)]
    # How good a source is says nothing about its layer.
    parts += [a_part(3, {"traditional": 0.5}, "usual")]
    decision, rows, _ = head(parts, tmp_path)
    assert decision.startswith(f"**If you must decide tomorrow**, {said.sentence}: {FIVE}, keeping it was measurably ")
    assert f"of 3 parts, on average by {points(mean)} (" in decision
    assert list(rows) == [FIVE]
    assert rows[FIVE][0].startswith(f"{points(mean)} (")
    assert (rows[FIVE][1], rows[FIVE][4]) == ("3", said.cell)
    assert "| 3, s, 5 |" not in (tmp_path / "page.md").read_text().partition("## Statistics")[0]


def test_what_was_trained_with_todays_start_is_told_first_and_apart(tmp_path: Path) -> None:
    parts = [a_part(number, EQUAL | {"retain": 0.9}, "layer") for number in range(3)]
    write_page(tmp_path / "page.md", parts)
    assert "begin small" not in (tmp_path / "page.md").read_text().partition("\n## ")[0]
    now = [a_part(n, {f"{name} now": v for name, v in (EQUAL | {"replace": 0.9}).items()}, "starts") for n in range(3)]
    for part in now:
        outcome = part.records[0].outcome
        outcome["contestants"] = {name.removesuffix(" now"): keys for name, keys in outcome["contestants"].items()}
    parts = [Written(a.about, [*a.records, *b.records]) for a, b in zip(parts, now, strict=True)]
    decision, rows, rest = head(parts, tmp_path)
    small, same, five = list(rows)
    assert (small, same, five) == (
        "with new classifiers that begin small, as by default", "in the same parts with PyTorch's initial weights", FIVE
    )  # fmt: skip
    assert f"**, {REPLACE_IT.sentence}: {small}, keeping it was measurably better in 0 and worse in 3 of 3" in decision
    assert f"on average by {points(-0.4)} (" in decision
    assert rows[small][0].startswith(f"{points(-0.4)} (")
    assert rows[small][4] == REPLACE_IT.cell
    for name in (same, five):
        assert rows[name][0].startswith(f"{points(0.4)} (")
        assert rows[name][4] == KEEP.cell
    assert f"(question 10), by which what does without the layer gains {points(0.4)} (" in rest
    answer = (tmp_path / "page.md").read_text().partition("## 10. How the new classifier begins")[2]
    assert f"| **mean over parts** | {points(-0.4)} ({points(-0.4)} to {points(-0.4)}) |" in answer
    assert "A new classifier begins with 0.01 times the weights" in answer


@pytest.mark.parametrize(("chapter", "lacking"), [("depth", "layer"), ("warning", "layer")])
def test_a_chapter_that_goes_on_from_others_is_refused_without_them(
    where: Where, tmp_path: Path, chapter: str, lacking: str
) -> None:
    alone = replace(where, file=tmp_path / "part.jsonl.gz", work=tmp_path / "work", chapters=(chapter,))
    with pytest.raises(UsageError, match=f"{chapter} goes on from {lacking}, which is not finished"):
        run_part(PART, alone, Clock(None))


def test_chapters_that_are_named_are_run_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[tuple[str, tuple[str, ...]]] = []
    monkeypatch.setattr(
        evidence_run, "run_part", lambda part, where, _: run.append((part.name, where.chapters)) or True
    )
    given = argparse.Namespace(time_limit=None, records=tmp_path, out=tmp_path, threads=None, chapters=("starts",))
    evidence_run.run(evidence_run.chosen("clothing-mobilenetv2_100-*"), given)
    assert run == [(f"clothing-mobilenetv2_100-{shots}", ("starts",)) for shots in (5, 20, "all")]
    run.clear()
    given.chapters = ("warning", "layer")
    evidence_run.run(evidence_run.chosen("clothing-mobilenetv2_100-5"), given)
    assert run == [("clothing-mobilenetv2_100-5", ("layer", "warning"))]
    given.chapters = ("starts", "nothing")
    with pytest.raises(UsageError, match="There is no chapter called nothing"):
        evidence_run.run(evidence_run.chosen("*"), given)


def test_only_the_chapter_of_starts_has_classifiers_that_begin_as_they_do_now(finished: Written) -> None:
    starts = {r.key: r.subject["settings"].get("classifier_start", 1.0) for r in finished.of(TRIAL)}
    for chapter, found in finished.chapters.items():
        if chapter in ("layer", "harmonise", "methods", "starts"):
            keys = [key for some in found["contestants"].values() for key in some]
            assert {starts[key] for key in keys} == {TrainingSettings.classifier_start if chapter == "starts" else 1.0}


@pytest.mark.parametrize(
    ("data", "unsettled", "said"),
    [("abc", 0.0, REPLACE_IT), ("abc", 0.2, UNSETTLED), ("aab", 0.0, UNSETTLED), ("abb", 0.0, REPLACE_IT)],
)
def test_settled_parts_of_two_data_sets_decide_and_nothing_against_the_mean_over_all(
    data: str, unsettled: float, said: Verdict
) -> None:
    against = PairedDifference(-0.03, (-0.05, -0.01), 0.01, "draws")
    wide = PairedDifference(unsettled, (unsettled - 0.3, unsettled + 0.3), 0.9, "draws")
    parts = [Written({"part": {"data": name, "source": "s", "shots": 5}}, []) for name in data]
    assert verdict(list(zip(parts, (against, against, wide), strict=True))) == said
    mirrored = [
        PairedDifference(-p.difference, (-p.interval95[1], -p.interval95[0]), p.p, p.of) for p in (against, wide)
    ]
    other = {REPLACE_IT: KEEP}.get(said, said)
    assert verdict(list(zip(parts, (mirrored[0], mirrored[0], mirrored[1]), strict=True))) == other


def test_grafts_that_differ_beyond_chance_are_named_with_either_initial_weights(tmp_path: Path) -> None:
    found = EQUAL | {"retain": 1.0, "deepen": 0.6, "da-cnn": 0.8}
    parts = [a_part(number, found, "layer") for number in (0, 1)]
    write_page(tmp_path / "page.md", parts)
    assert "Single grafts" not in (tmp_path / "page.md").read_text()
    parts.append(a_part(2, found | {"retain": 0.0}, "layer"))
    line = head(parts, tmp_path)[2]
    assert line.startswith("Single grafts against the better of the usual ways, with PyTorch's initial weights: of 3 ")
    assert "*deepen* +10.0 (+10.0 to +10.0), *da-cnn* +30.0 (+30.0 to +30.0)." in line
    assert "retain" not in line


@pytest.mark.parametrize(("side", "said", "mean"), [("retain", FOR, 0.1), ("replace", AGAINST, -0.1)])
def test_parts_of_which_none_is_settled_may_speak_together(
    side: str, said: Verdict, mean: float, tmp_path: Path
) -> None:
    # One right image more of ten is within chance in each part, and not when it is so in all of them.
    parts = [a_part(number, EQUAL | {side: 0.6}, "layer") for number in range(3)]
    decision, rows, _ = head(parts, tmp_path)
    assert f"{said.sentence}: " in decision
    assert rows == {FIVE: [f"{points(mean)} ({points(mean)} to {points(mean)})", "3", "0", "0", said.cell]}
    assert f"better in 0 and worse in 0 of 3 parts, on average by {rows[FIVE][0]} points of test accuracy (" in decision
    assert "(3 data sets; 3 with 5 images a class)" in decision


def test_where_there_are_several_sizes_all_parts_come_first(tmp_path: Path) -> None:
    few, whole = (a_part(number, EQUAL | {"retain": 0.9}, "layer") for number in (0, 1))
    whole.about["part"]["shots"] = 0
    decision, rows, _ = head([whole, few], tmp_path)
    every = "in all parts with PyTorch's initial weights"
    assert list(rows) == [every, FIVE, WHOLE]
    assert re.fullmatch(r"\+40\.0 \(\S+ to \S+, these 2 parts\)", rows[every][0])
    assert rows[every][1:] == ["2", "2", "0", KEEP.cell]
    assert re.fullmatch(r"\+40\.0 \(\S+ to \S+, this part\)", rows[WHOLE][0])
    assert rows[WHOLE][4] == UNSETTLED.cell
    assert f"**, {KEEP.sentence}: " in decision


def test_the_interval_about_these_parts_adds_their_own_as_standard_errors() -> None:
    parts = [a_part(number, {"a": 0.8, "b": 0.5}) for number in (0, 1)]
    one, two = (in_parts(some, ("methods", "a"), ("methods", "b")) for some in (parts[:1], parts))
    assert over_these(one)[1:] == pytest.approx(one[0].interval95)
    half = (one[0].interval95[1] - one[0].interval95[0]) / 2
    assert over_these(two)[2] - over_these(two)[0] == pytest.approx(half / 2**0.5)


def test_one_settled_part_is_no_advice(tmp_path: Path) -> None:
    parts = [a_part(0, EQUAL | {"retain": 1.0}, "layer"), *(a_part(number, EQUAL, "layer") for number in (1, 2))]
    decision, rows, _ = head(parts, tmp_path)
    assert f"**, {UNSETTLED.sentence}: " in decision
    assert "better in 1 and worse in 0 of 3 parts" in decision
    assert rows[FIVE][1:] == ["3", "1", "0", UNSETTLED.cell]


def test_of_either_side_validation_chooses_draw_by_draw(finished: Written) -> None:
    known = finished.validation
    replace, traditional = (draws_of(finished, ("layer", name)) for name in ("replace", "traditional"))
    expected = [max(replace[n], traditional[n], key=lambda key: known[key]) for n in (0, 1)]
    found = chosen_of(finished, (("layer", "replace"), ("layer", "traditional")))
    assert [known[key] for key in found] == [known[key] for key in expected]
    assert chosen_of(finished, (("layer", "replace"), ("layer", "head2toe"))) == list(replace.values())
    assert chosen_of(finished, (("layer", "head2toe"),)) == []


def test_the_best_accuracy_of_a_part_is_bold() -> None:
    parts = [a_part(1, {"a": 0.9, "b": 0.1})]
    assert "| 10.0 | **90.0** |" in accuracies_table(parts, [("b", ("methods", "b")), ("a", ("methods", "a"))])


def test_the_page_says_where_old_layers_were_tuned_the_earlier_way(tmp_path: Path) -> None:
    now = a_part(1, {"replace": 0.5, "traditional": 0.4, "retain": 0.6}, "sides")
    now.records[0].subject["old_layers"] = OLD_LAYERS
    earlier = a_part(2, {"replace": 0.5, "traditional": 0.4, "retain": 0.6}, "sides")
    usual = a_part(3, {"replace": 0.5, "traditional": 0.4}, "usual")
    assert [part.chapters_of_old for part in (now, earlier, usual)] == [[], ["sides"], ["usual"]]
    assert a_part(4, {"x": 0.5}, "rates").chapters_of_old == []
    write_page(tmp_path / "page.md", [now, earlier, usual])
    rows = [line.split(" | ") for line in (tmp_path / "page.md").read_text(encoding="utf-8").splitlines()]
    (column,) = (row.index("chapters tuned the earlier way") for row in rows if "chapters tuned the earlier way" in row)
    assert [row[column] for row in rows if len(row) == column + 2][2:] == ["", "sides", "usual"]


def a_part(number: int, accuracies: dict[str, float], chapter: str = "methods") -> Written:
    """Made-up records of one draw a contestant, 10 test images."""
    contestants = {name: [name] for name in accuracies}
    subject = {"chapter": chapter, "asked": [], "classifier_start": TrainingSettings.classifier_start}
    records = [Record("chapter", CHAPTER, subject, {"contestants": contestants})]
    for name, value in accuracies.items():
        right = np.packbits(np.arange(10) < round(10 * value))
        records.append(Record(f"{DRAWN}-{name}", DRAWN, {}, {"survival": None}, {"right": right}))
        records.append(
            Record(name, TRIAL, {}, {"status": "finished", "validation": {"accuracy": value, "log_loss": 1.0}})
        )
    about = {
        "labels": [0] * 10, "classes": list("0123456789"), "part": {"data": str(number), "source": "s", "shots": 5},
        "image_size": [8, 8],
    }  # fmt: skip
    return Written(about, records)
