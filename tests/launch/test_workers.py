"""Trials side by side: the same records in the same order as one after the other, whatever happens to a process."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from program import inarch, rows, running, without_cost
from safetensors.torch import load_file
from toy import write_images, write_source
from workbench import SETTINGS, small, workbench

from inarch.errors import RunFolderError
from inarch.features.machine import Machine
from inarch.features.plan import Plan
from inarch.features.shelf import Shelf
from inarch.features.store import Keeping
from inarch.launch.here import Workbench
from inarch.launch.plan import Decision
from inarch.launch.workers import Job, Workers
from inarch.search.together import Batch
from inarch.training import fit as training
from inarch.training.fit import OutOfTimeError
from inarch.training.trial import Trial


def trial(cut: int, seed: int = 1, rate: float = 0.01, graft: str = "retain") -> Trial:
    return Trial(small(graft), cut, "fine-tuning", 0.002 if cut < 3 else 0.0, rate, seed, SETTINGS)


BATCHES: tuple[Batch, ...] = (
    (trial(0),), (trial(3), trial(3, rate=0.02)), (trial(2),), (trial(1, seed=2),), (trial(2, seed=2, graft="joined"),),
)  # fmt: skip


def job(batch: Batch, deadline: float = math.inf) -> Job:
    return Job(batch, deadline, True, None)


@contextmanager
def side_by_side(folder: Path, number: int, *, on_disk: bool = True) -> Iterator[tuple[Workbench, Workers, list[str]]]:
    """A bench of the toy network whose plan has so many workers; what was announced is the third."""
    said: list[str] = []
    keeping = Keeping((1, 2), shelf=Shelf(folder / "store", 1 << 30) if on_disk else None)
    with workbench(folder, keeping=keeping) as bench:
        bench.store.machine = Machine(threads=1, workers=number)
        workers = Workers(bench, said.append)
        try:
            yield bench, workers, said
        finally:
            workers.close()


def everything(folder: Path, number: int) -> tuple[list[Any], dict[str, Any]]:
    """What the ledger holds after all batches, but for seconds, and the weights of all checkpoints."""
    with side_by_side(folder, number) as (bench, workers, _):
        for place, batch in enumerate(BATCHES):
            workers.run(job(batch), [job(b) for b in BATCHES[place + 1 :]], lambda step, steps: None)
        records = bench.folder.ledger.records("trial")
        weights = {file.name: load_file(file) for file in bench.folder.checkpoints.iterdir()}
    return [(r.key, r.outcome, {k: v.tobytes() for k, v in r.arrays.items()}) for r in records], weights


def test_two_at_a_time_leave_what_one_after_the_other_does(tmp_path: Path) -> None:
    alone, weights = everything(tmp_path / "one", 1)
    beside, their_weights = everything(tmp_path / "two", 2)
    assert [key for key, *_ in beside] == [t.key for batch in BATCHES for t in batch]
    assert beside == alone
    assert weights.keys() == their_weights.keys()
    for name, state in weights.items():
        assert all(np.array_equal(value, their_weights[name][key]) for key, value in state.items())


def test_what_is_trained_ahead_is_there_when_it_is_asked_for(tmp_path: Path) -> None:
    with side_by_side(tmp_path, 2) as (bench, workers, _):
        first, second = BATCHES[0], BATCHES[2]
        workers.run(job(first), [job(second)], lambda step, steps: None)
        assert workers.begun() == [second]
        # Only what was asked for is recorded.
        assert [r.key for r in bench.folder.ledger.records("trial")] == [first[0].key]
        (result,) = workers.run(job(second), [], lambda step, steps: None)
        assert result.trial == second[0]
        assert workers.begun() == []


def test_what_nobody_asks_for_leaves_nothing_in_the_ledger(tmp_path: Path) -> None:
    with side_by_side(tmp_path, 2) as (bench, workers, _):
        workers.run(job(BATCHES[0]), [job(b) for b in BATCHES[1:]], lambda step, steps: None)
        workers.close()
        assert workers.begun() == []
        assert len(bench.folder.ledger.records("trial")) == 1
        # And whoever asks afterwards gets it from new processes.
        (result,) = workers.run(job(BATCHES[3]), [], lambda step, steps: None)
        assert result.trial == BATCHES[3][0]


def test_steps_are_told_up_to_the_last(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with side_by_side(tmp_path, 2) as (_, workers, _):
        workers.run(job(BATCHES[0]), [], lambda step, steps: told.append((step, steps)))
    assert told[-1][0] == told[-1][1] > 1


def test_a_deadline_ends_a_batch_beside_the_study_as_well(tmp_path: Path) -> None:
    with side_by_side(tmp_path, 2) as (bench, workers, _):
        with pytest.raises(OutOfTimeError):
            workers.run(job(BATCHES[0], time.monotonic() - 1), [job(BATCHES[2])], lambda step, steps: None)
        workers.run(job(BATCHES[2]), [], lambda step, steps: None)
        assert [r.key for r in bench.folder.ledger.records("trial")] == [BATCHES[2][0].key]


def test_what_stopped_at_an_earlier_deadline_than_that_of_the_one_who_asks_is_trained_again(tmp_path: Path) -> None:
    with side_by_side(tmp_path, 2) as (_, workers, _):
        hurried = job(BATCHES[2], time.monotonic() - 1)
        workers.run(job(BATCHES[0]), [hurried], lambda step, steps: None)
        (result,) = workers.run(job(BATCHES[2]), [], lambda step, steps: None)
        assert result.trial == BATCHES[2][0]


def test_what_is_named_twice_is_trained_once(tmp_path: Path) -> None:
    with side_by_side(tmp_path, 2) as (_, workers, _):
        workers.run(job(BATCHES[0]), [job(BATCHES[0]), job(BATCHES[2]), job(BATCHES[2])], lambda step, steps: None)
        assert workers.begun() == [BATCHES[2]]


def test_what_nobody_waits_for_any_more_makes_room_for_what_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless, run = trial(1, seed=3), training.train_together

    def waits(networks: Any, trials: Any, *given: Any) -> Any:
        if trials[0].seed == endless.seed:
            time.sleep(600)
        return run(networks, trials, *given)

    monkeypatch.setattr("inarch.launch.here.train_together", waits)
    with side_by_side(tmp_path, 2) as (_, workers, _):
        # Whatever becomes free takes one of them, and neither ends.
        workers.run(job(BATCHES[0]), [job((endless,)), job((replace(endless, cut=2),))], lambda step, steps: None)
        (result,) = workers.run(job(BATCHES[2]), [], lambda step, steps: None)
        assert result.trial == BATCHES[2][0]


def test_where_no_process_can_be_begun_the_study_goes_on_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError("too many processes")

    monkeypatch.setattr("inarch.launch.workers.forked", fails)
    with side_by_side(tmp_path, 2) as (_, workers, said):
        (result,) = workers.run(job(BATCHES[0]), [job(BATCHES[2])], lambda step, steps: None)
        assert result.trial == BATCHES[0][0]
        assert workers.number == 1
        assert "could not be begun" in said[0]


def test_an_error_that_is_no_data_arrives_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class LocalError(Exception):
        pass

    def fails(*_: object) -> None:
        raise LocalError("a fault of ours")

    monkeypatch.setattr(Workbench, "_save", fails)
    with (
        side_by_side(tmp_path, 2) as (_, workers, said),
        pytest.raises(RuntimeError, match=r"LocalError\('a fault of ours'\)") as raised,
    ):
        workers.run(job(BATCHES[0]), [], lambda step, steps: None)
    assert said == []
    assert "in fails" in raised.value.__notes__[0]


def test_an_error_of_a_process_beside_says_where_it_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(Workbench, "_save", fails)
    with side_by_side(tmp_path, 2) as (_, workers, _), pytest.raises(ValueError, match="a fault of ours") as raised:
        workers.run(job(BATCHES[0]), [], lambda step, steps: None)
    assert "in fails" in raised.value.__notes__[0]


def test_checkpoints_that_are_being_written_are_left_alone(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        half, other = bench.folder.checkpoints / ".tmpAbc", bench.folder.checkpoints / "other.safetensors"
        for file in (half, other):
            file.write_bytes(b"0")
        bench.keep_checkpoints([], writing=True)
        assert (half.exists(), other.exists()) == (True, False)
        bench.keep_checkpoints([])
        assert not half.exists()


def test_an_error_that_a_user_can_mend_arrives_as_it_was_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RunFolderError("No room.", "Make some.")

    monkeypatch.setattr(Workbench, "_save", full)
    with side_by_side(tmp_path, 2) as (_, workers, said):
        with pytest.raises(RunFolderError) as caught:
            workers.run(job(BATCHES[0]), [], lambda step, steps: None)
        assert (caught.value.problem, caught.value.remedy) == ("No room.", "Make some.")
        assert said == []


def test_where_a_process_is_ended_from_outside_the_study_goes_on_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = everything(tmp_path / "one", 1)
    study, run = os.getpid(), training.train_together

    def killed(*given: Any) -> Any:
        if os.getpid() != study:
            os._exit(9)
        return run(*given)

    monkeypatch.setattr("inarch.launch.here.train_together", killed)
    with side_by_side(tmp_path / "two", 2) as (bench, workers, said):
        for batch in BATCHES:
            workers.run(job(batch), [job(BATCHES[-1])], lambda step, steps: None)
        found = bench.folder.ledger.records("trial")
    assert [(r.key, r.outcome) for r in found] == [(key, outcome) for key, outcome, _ in expected]
    assert len(said) == 1
    assert "the same results" in said[0]


def test_activations_in_memory_alone_are_not_computed_once_for_every_process(tmp_path: Path) -> None:
    with side_by_side(tmp_path, 2, on_disk=False) as (_, workers, _):
        assert workers.number == 1


def test_where_the_time_of_processes_went_stands_in_the_profile(tmp_path: Path) -> None:
    with side_by_side(tmp_path, 2) as (bench, workers, _):
        before = time.perf_counter()
        for batch in BATCHES:
            workers.run(job(batch), [], lambda step, steps: None)
        passed = time.perf_counter() - before
        workers.close()
        found = bench.store.profile.seconds()
        assert {"training", "views", "prefix passes", "evaluation on validation", "checkpoints"} <= found.keys()
        assert sum(found.values()) == pytest.approx(passed, rel=0.5)
        assert bench.store.profile.memory_beside > 0


def test_a_whole_study_finds_the_same_with_two_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, images = write_source(tmp_path / "source"), write_images(tmp_path / "images", a_class=12)
    found, threads, find_rate = [], set[int](), Workbench.new_layer_rate

    def noted(*given: Any) -> float:
        threads.add(torch.get_num_threads())
        return find_rate(*given)

    monkeypatch.setattr(Workbench, "new_layer_rate", noted)
    for workers in (1, 2):
        # Each trial has one thread, whichever way.
        monkeypatch.setenv("INARCH_CACHE", str(tmp_path / f"cache-{workers}"))
        decision = Decision(Plan(), 1.0, 1.0, workers)
        monkeypatch.setattr("inarch.environment._decided", lambda *_, decision=decision: decision)
        out = tmp_path / str(workers)
        options = ("--epochs", "4", "--batch-size", "8", "--seeds", "2", "--grafts", "retain,joined")
        ran = inarch("fit", images, "--source", source, "--out", out, "--threads", str(workers), *options)
        assert ran.exit_code == 0, ran.said
        assert ("2 trials train side by side" in ran.said) is (workers == 2)
        found.append(json.loads((out / "results.json").read_text()))
    assert threads == {1}
    assert without_cost(found[0]) == without_cost(found[1])
    assert [row[:3] for row in rows(tmp_path / "1")] == [row[:3] for row in rows(tmp_path / "2")]
    assert found[1]["cost"]["environment"]["plan"]["workers"] == 2
    for name in ("card.json", "model.safetensors"):
        assert (tmp_path / "1" / "model" / name).read_bytes() == (tmp_path / "2" / "model" / name).read_bytes()


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str | Path]]:
    """A run folder whose recorded plan trains two side by side, before its first trial, and what goes on with it."""
    source, images = write_source(tmp_path / "source"), write_images(tmp_path / "images", a_class=12)
    options = ("--epochs", "4", "--batch-size", "8", "--seeds", "2", "--grafts", "retain,joined", "--threads", "2")

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    command = ["fit", images, "--source", source, *options]
    with monkeypatch.context() as patch:
        patch.setattr("inarch.environment._decided", lambda *_: Decision(Plan(), 1.0, 1.0, 2))
        patch.setattr(Workers, "run", interrupted)
        ran = inarch(*command, "--out", tmp_path / "begun")
    assert "2 trials train side by side" in ran.said
    assert ran.exit_code == 1
    return tmp_path / "begun", command


def test_killed_while_two_train_side_by_side_a_study_goes_on_to_the_same_results(
    begun: tuple[Path, list[str | Path]], tmp_path: Path
) -> None:
    folder, command = begun
    for name in ("whole", "killed"):
        shutil.copytree(folder, tmp_path / name)

    def of(name: str) -> list[str | Path]:
        return [*command, "--out", tmp_path / name, "--store", tmp_path / f"{name}-store"]

    assert inarch(*of("whole")).exit_code == 0
    expected = rows(tmp_path / "whole")
    # The study's process alone: those beside it end with it, and leave the folder free.
    with running(*of("killed")) as child:
        end = time.monotonic() + 120
        while not any(row[2] == "trial" for row in rows(tmp_path / "killed")):
            assert child.is_alive()
            assert time.monotonic() < end
            time.sleep(0.01)
    moments = (
        ("inarch.launch.workers:Workers._hand_out", 1),  # no process has anything to do yet
        ("inarch.training.fit:Watch.step", 30),  # in a process beside the study's, of which there is one more
        ("inarch.features.shelf:SegmentWriter.finish", 2),  # likewise, while it stores activations
        ("inarch.launch.here:Workbench.take", 3),  # trained, not recorded, and others are ahead
        ("inarch.launch.workers:end", 1),  # all is searched and confirmed
    )
    for moment in moments:
        before = rows(tmp_path / "killed")
        with running(*of("killed"), die_at=moment) as child:
            child.join(120)
            assert child.exitcode == -signal.SIGKILL, f"{moment} was not met"
        assert rows(tmp_path / "killed")[: len(before)] == before
    assert inarch(*of("killed")).exit_code == 0
    assert [row[:3] for row in rows(tmp_path / "killed")] == [row[:3] for row in expected]
    found = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "killed")]
    assert without_cost(found[0]) == without_cost(found[1])
    assert found[1]["cost"]["environment"]["plan"]["workers"] == 2
