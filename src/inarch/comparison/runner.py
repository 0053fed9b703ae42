"""The trials of a comparison, run draw by draw as far as the clock allows."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import final

from inarch.comparison.benches import Benches
from inarch.comparison.design import REFERENCE, contestants, draws, expected, tuned, tuning, work
from inarch.errors import DataError, UsageError
from inarch.launch.clock import Clock
from inarch.launch.cost import CostModel
from inarch.launch.here import TRIAL, result_of
from inarch.launch.progress import Progress, Standing
from inarch.results.folder import RunFolder
from inarch.search.space import Result, Space
from inarch.training.fit import OutOfTimeError, Watch
from inarch.training.trial import Trial

# Writing what was found, and whatever the estimates miss.
CLOSING_SECONDS = 10.0


@final
class DrawRunner:
    """Runs the trials of draws of one size after those of another; `number`: with which each contestant is tuned."""

    def __init__(
        self, spaces: list[Space], number: int, folder: RunFolder, benches: Benches, clock: Clock, progress: Progress
    ) -> None:
        """`spaces`: one for each size of draw, with rates that stand for those of the range tests."""
        self._number, self._benches, self._clock, self._progress = number, benches, clock, progress
        self.trained = 0
        # What the time was too short for.
        self.left_out: list[Trial] = []
        self.history: dict[str, Result] = {}
        for record in folder.ledger.records(TRIAL):
            trial = Trial.from_json(record.subject)
            self.history[trial.key] = result_of(trial, record)
        self._costs = self._cost_models(spaces)
        self.spaces = [self._with_rates(space) for space in spaces]
        self._announce()

    def run(self) -> None:
        """Everything, or what fits into the time; a draw is tested as soon as it is trained, and decides nothing."""
        for space in self.spaces:
            while (following := next(work(space, self._number, self.history), None)) is not None:
                part, trial = following
                if not self._fits(trial) or not self._train(part, trial):
                    self.left_out = self._to_come()
                    return

    def require_enough(self) -> None:
        """Raises where not even one draw of traditional fine-tuning is there."""
        if any(self.compared(space) for space in self.spaces):
            return
        if self.left_out:
            raise UsageError(
                f"The time limit ended before {self.left_out[0]}, without which nothing can be compared.",
                "Call again with a longer --time-limit; what was finished is kept.",
            )
        raise DataError(
            "Traditional fine-tuning failed in all its trials, and nothing can be compared with it.",
            "Give more --trials, or look at the data set.",
        )

    def compared(self, space: Space) -> dict[str, list[Trial]]:
        """The trials on draws that were trained, by contestant; nothing where the reference has none."""
        found: dict[str, list[Trial]] = {}
        for contestant in contestants(space):
            best = tuned(contestant, space, self._number, self.history)
            on_draws = draws(space, best) if best else []
            trained = [t for t in on_draws if t.key in self.history and self.history[t.key].accuracy >= 0]
            if trained:
                found[contestant.name] = trained
        return found if REFERENCE in found else {}

    def failed(self, space: Space) -> list[str]:
        """Contestants that no trial of tuning, or not every draw that was tried, could be trained for."""
        found = []
        for contestant in contestants(space):
            best = tuned(contestant, space, self._number, self.history)
            trials = draws(space, best) if best else tuning(contestant, space, self._number)
            tried = [self.history[t.key].accuracy for t in trials if t.key in self.history]
            if (best is None and len(tried) == len(trials)) or (best and min(tried, default=0.0) < 0):
                found.append(contestant.name)
        return found

    def _cost_models(self, spaces: list[Space]) -> dict[int, CostModel]:
        """One for each size of draw; what one learns from finished trials counts for all."""
        bench = self._benches.bench(spaces[0].shots, spaces[0].seed)
        speeds = bench.measure(spaces[0].settings)
        learned: list[tuple[float, float]] = []
        found = {}
        for space in spaces:
            bench = self._benches.bench(space.shots, space.seed)
            found[space.shots] = CostModel(bench.staged, bench.store, speeds, lambda trial: False, learned)
        return found

    def _with_rates(self, space: Space) -> Space:
        """The space with the rate of new layers for every configuration, from range tests on the tuning draw."""
        configurations = list(dict.fromkeys(track.configuration for track in space.tracks))
        rates = {}
        for number, configuration in enumerate(configurations, start=1):
            if self._clock.left() < CLOSING_SECONDS:
                raise UsageError(
                    "The time limit ended before the learning rates were found.",
                    "Call again with a longer --time-limit; what was finished is kept.",
                )
            self._progress.note(f"Learning rate of new layers: range test {number} of {len(configurations)}.")
            bench, deepest = self._benches.bench(space.shots, space.seed), space.deepest(configuration)
            rates[configuration] = bench.new_layer_rate(configuration, space.settings, deepest, space.seed, space.shots)
        return replace(space, rates=rates)

    def _to_come(self) -> list[Trial]:
        return [trial for space in self.spaces for trial in expected(space, self._number, self.history)]

    def _seconds(self, trials: list[Trial]) -> float:
        return sum(self._costs[trial.shots].seconds(trial) for trial in trials)

    def _announce(self) -> None:
        to_come = self._to_come()
        self._progress.announce(self._clock.forecast(len(to_come), self._seconds(to_come)))

    def _fits(self, trial: Trial) -> bool:
        return self._clock.left() > self._reserve(trial) + self._costs[trial.shots].seconds(trial)

    def _reserve(self, trial: Trial) -> float:
        """Seconds that are kept for the test of a trial, where it may have one, and for the end."""
        return CLOSING_SECONDS + self._costs[trial.shots].testing([trial])

    def _train(self, part: str, trial: Trial) -> bool:
        """Whether the trial was trained, and tested where it stands for a draw, before the time was up."""
        bench, costs = self._benches.bench(trial.shots, trial.seed), self._costs[trial.shots]
        to_come = self._to_come()
        done = len(self.history)
        left = min(self._seconds(to_come), self._clock.left())
        best = max((r.accuracy for r in self.history.values() if r.accuracy >= 0), default=None)
        self._progress.trial(f"{part}: {trial}", Standing(done, done + len(to_come), best, left))
        before, start = costs.raw(trial), time.monotonic()
        watch = Watch(self._clock.deadline(0.5 * self._reserve(trial)), self._progress.step, every_epoch=False)
        try:
            (result,) = bench.run((trial,), watch)
        except OutOfTimeError:
            return False
        self.trained += 1
        self.history[trial.key] = result
        if result.accuracy >= 0:
            costs.learn(before, time.monotonic() - start)
            if part != "tuning":
                bench.test(trial)
        bench.keep_checkpoints([])
        return True
