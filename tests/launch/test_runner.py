"""What a time limit holds back, on made-up results. Nothing is trained but for the range tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from workbench import workbench

from inarch.errors import TimeLimitError
from inarch.launch.clock import Clock
from inarch.launch.cost import CostModel
from inarch.launch.here import Workbench
from inarch.launch.progress import Progress
from inarch.launch.runner import TrialRunner
from inarch.network.grafts import Configuration
from inarch.search.choice import confirmations
from inarch.search.rounds import next_round
from inarch.search.space import Result, Space, Track
from inarch.training.trial import TrainingSettings, Trial


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[TrialRunner]:
    """Of a halving search for one graft, with a limit that is never reached."""
    settings = TrainingSettings(epochs=8, batch_size=8)
    with workbench(tmp_path, epochs=8) as bench:
        tracks = (Track(Configuration("retain", "none"), "fine-tuning"),)
        space = Space(3, tracks, settings, {})
        rates = {track.configuration: 1.0 for track in space.tracks}
        yield TrialRunner(bench, Space(3, tracks, settings, rates), Clock(10_000.0), Progress())


def search(runner: TrialRunner, accuracy: Callable[[Trial], float]) -> None:
    while (found := next_round(runner.space, runner.history)) is not None:
        runner.history |= {t.key: Result(t, accuracy(t), 0.5) for t in found.trials[:1]}


def test_a_confirmation_that_must_be_there_is_held_back_once(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    search(runner, lambda trial: 0.5)
    monkeypatch.setattr(CostModel, "seconds", lambda model, *batch, made=None: 1.0)
    # The traditional fine-tuning, the linear probe and the proposal, one training in full of each.
    assert runner._held_back(runner._missing()) - runner._closing() == pytest.approx(3.0)


def test_the_end_of_a_study_takes_longer_the_more_seeds_are_to_be_tested(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    search(runner, lambda trial: 0.9 if trial.cut == 0 else 0.5)
    before = runner._closing()
    again = confirmations(runner.space, next(t for t in runner._to_test() if t.cut == 0))
    runner.history |= {t.key: Result(t, 0.9, 0.5) for t in again}
    a_pass = runner._costs.speeds.forward * len(runner._bench.store.images.rows["test"])
    # The graft is no longer stood for by its probe, whose test costs next to nothing less.
    assert runner._closing() - before == pytest.approx(1.3 * 2 * a_pass, rel=0.01)


def test_trials_that_differ_in_their_method_alone_have_different_words(runner: TrialRunner) -> None:
    plain = runner.space.trial(runner.space.baseline, 1)
    assert str(plain) != str(replace(plain, method="l2-sp"))


def test_range_tests_end_with_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, clock, asked = TrainingSettings(epochs=8, batch_size=8), Clock(10_000.0), []

    def takes_too_long(bench: Workbench, configuration: Configuration, *_: object) -> float:
        asked.append(configuration)
        clock.start -= 20_000.0
        return 1.0

    monkeypatch.setattr(Workbench, "new_layer_rate", takes_too_long)
    with workbench(tmp_path, epochs=8) as bench:
        tracks = tuple(Track(Configuration(graft, "none"), "fine-tuning") for graft in ("retain", "joined"))
        rates = {track.configuration: 1.0 for track in Space(3, tracks, settings, {}).tracks}
        space = Space(3, tracks, settings, rates)
        with pytest.raises(TimeLimitError, match=r"too short: .* need at least") as raised:
            TrialRunner(bench, space, clock, Progress())
    assert len(asked) == 1
    assert raised.value.least > 20_000
