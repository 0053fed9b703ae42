"""The trials of a study, run in the order that the search proposes, as far as the clock allows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import final

from inarch.errors import DataError, TimeLimitError, UsageError
from inarch.launch.clock import Clock
from inarch.launch.cost import CostModel
from inarch.launch.here import TRIAL, Workbench, result_of
from inarch.launch.progress import Progress, Standing
from inarch.launch.workers import AHEAD, Job, Workers
from inarch.network.adapted import stored_cut
from inarch.network.grafts import Configuration
from inarch.report.words import duration
from inarch.search.choice import best_of_graft, confirmations, distinct, required, roles, stand_ins
from inarch.search.race import RACE, Race
from inarch.search.rates import linear_probes
from inarch.search.rounds import expected_trials, next_round, with_seed
from inarch.search.space import Result, Space
from inarch.search.together import Batch, batches, with_companions
from inarch.training.fit import OutOfTimeError
from inarch.training.trial import Trial

# Reading checkpoints, writing the report and whatever the estimates miss.
CLOSING_SECONDS = 12.0
# How far off the first estimate may be on a machine that does other work as well.
UNCERTAINTY = 1.5


@final
class TrialRunner:
    """Runs trials in the order that the search proposes, as far as the clock allows."""

    def __init__(self, bench: Workbench, space: Space, clock: Clock, progress: Progress) -> None:
        """`space` has rates that stand for those of the range tests, which are made here."""
        self._bench, self._clock, self._progress = bench, clock, progress
        # What was left out for lack of time, in words, by key; and what the limit stopped half-way.
        self._left_out: dict[str, str] = {}
        self._stopped: dict[str, str] = {}
        self.trained = 0
        self._workers = Workers(bench, progress.announce)
        self._costs = CostModel(bench.staged, bench.store, bench.measure(space.settings), self._every_epoch)
        self.history: dict[str, Result] = {}
        for record in bench.folder.ledger.records(TRIAL):
            trial = Trial.from_json(record.subject)
            self.history[trial.key] = result_of(trial, record)
        self.space = space
        if not self.history:
            # What rates the range tests will find makes no difference to the time: nobody waits for them in vain.
            self._refuse_too_short_a_limit()
        self.space = replace(self.space, rates=self._rates())
        self._announce()

    def _rates(self) -> dict[Configuration, float]:
        """The rate of new layers for every configuration, from range tests that are recorded."""
        rates = {}
        for number, track in enumerate(self.space.tracks, start=1):
            # Of a study that has begun they are recorded.
            if not self.history and self._clock.left() <= -self._clock.overtime() / 2:
                raise self._too_short(self._least())
            self._progress.note(f"Learning rate of new layers: range test {number} of {len(self.space.tracks)}.")
            configuration, deepest = track.configuration, self.space.deepest(track.configuration)
            rates[configuration] = self._bench.new_layer_rate(
                configuration, self.space.settings, deepest, self.space.seed
            )
        return rates

    def _announce(self) -> None:
        """Says how long the study will take, that nothing is left of it, or that the limit is too short for it."""
        self._refuse_too_short_a_limit()
        to_come = self._to_come()
        seconds = self._side_by_side(to_come)
        self._progress.announce(self._clock.forecast(sum(map(len, to_come)), seconds))

    def _refuse_too_short_a_limit(self) -> None:
        if self._clock.limit is None:
            return
        least = self._least()
        if least > self._clock.limit:
            # What disturbs a machine passes: nobody is sent away on one measurement.
            self._costs.speeds = self._costs.speeds.fastest(self._bench.measure(self.space.settings))
            least = self._least()
        if self._clock.limit < least < UNCERTAINTY * self._clock.limit:
            self._progress.announce(f"The time limit is tight: at least {duration(least)} may be needed.")
        elif least > self._clock.limit:
            raise self._too_short(least)

    def _too_short(self, least: float) -> TimeLimitError:
        return TimeLimitError(
            f"--time-limit {duration(self._clock.limit or 0.0)} is too short: traditional fine-tuning, the linear "
            f"probe and their test need at least {duration(least * 1.1)} on this machine.",
            "Give that much, or fewer --epochs, or a smaller --image-size; what was computed so far is kept.",
            least * 1.1,
        )

    def _least(self) -> float:
        """Seconds from the beginning of this call until all that must be there is there, as estimated."""
        return self._clock.passed() + self._costs.total(self._missing()) + self._closing()

    def _side_by_side(self, to_come: Sequence[Batch]) -> float:
        """Seconds of many batches, shared out evenly."""
        return self._costs.total(to_come) / self._workers.number if to_come else 0.0

    def _missing(self) -> list[Batch]:
        """What must be there whatever the limit, each with the trials that are trained together with it."""
        following = next_round(self.space, self.history)
        to_come = batches(self.space, following.trials if following else ())
        return with_companions(required(self.space, self.history), to_come)

    def _closing(self) -> float:
        """Seconds for testing what is confirmed, for one pass over the training images, and for writing."""
        a_pass = len(self._bench.store.images.rows["train"]) * self._costs.speeds.forward
        return CLOSING_SECONDS + 1.3 * (a_pass + self._costs.testing(self._to_test()))

    def _to_test(self) -> list[Trial]:
        """Every finalist with the seeds that it has, or the first; while there is none, what three at cut 0 take."""
        found = [confirmations(self.space, trial) for trial in self._finalists()]
        trained = [[t for t in again if t.key in self.history] or again[:1] for again in found]
        return [t for some in trained for t in some] or [self.space.trial(self.space.baseline, 0, in_full=True)] * 3

    def _held_back(self, missing: list[Batch]) -> float:
        """Seconds that the search leaves for what is `missing`, for one confirmation of the most promising candidate of
        either side and of the two baselines, which may be missing as well, and for the end."""
        race = Race(self.space, self.history)
        first: list[Batch] = [(trial,) for trial in islice(race.pending(), race.essential)]
        return self._closing() + self._costs.total(list(dict.fromkeys([*missing, *first])))

    def run(self) -> None:
        """Search and confirmation, and again where time is left after all: first estimates may have been too dear."""
        before = -1
        try:
            while before < self.trained:
                before = self.trained
                self._search()
                self._confirm()
        finally:
            # What still trains, nobody will ask for.
            self._workers.close()
        self._bench.keep_checkpoints(self._needed())

    def _search(self) -> None:
        """Round after round, until all is searched or nothing more fits into the time."""
        while (found := self._next()) is not None:
            self._run(*found)

    def _next(self) -> tuple[Batch, str, list[Batch]] | None:
        """The next batch that fits into the time, with the name of its round and what will follow it there; what does
        not fit now may fit later."""
        passed_over = dict(self._stopped)
        while (found := next_round(self.space, self.history, frozenset(passed_over))) is not None:
            for place, batch in enumerate(of_round := batches(self.space, found.trials)):
                if self._fits(batch):
                    return batch, found.name, [b for b in self._ahead(of_round[place + 1 :]) if self._fits(b)]
            passed_over |= {trial.key: f"{found.name}: {trial}" for trial in found.trials}
        if passed_over:
            later = expected_trials(self.space, self.history)
            passed_over = {trial.key: f"search: {trial}" for trial in later} | passed_over
        self._left_out = passed_over
        return None

    def _ahead(self, following: Sequence[Batch]) -> list[Batch]:
        """The batches that may be trained before they are asked for: the longest first, so that all end at about the
        same time, or where time is limited the next few."""
        if self._workers.number < 2:
            return []
        if self._clock.limit is not None:
            return list(following[: AHEAD * self._workers.number - 1])
        # Without asking the cost model, which takes its time: what trains more stages for more epochs takes longer.
        return sorted(following, key=lambda batch: (-batch[0].settings.epochs, batch[0].cut))

    def _fits(self, batch: Batch) -> bool:
        if self._clock.limit is None:  # asked of every batch that is ahead, and what follows takes its time
            return True
        missing = self._missing()
        if batch in missing or batch in self._workers.begun():
            return True
        # A trial of the round "all epochs" is confirmed if it leads, which costs as much again.
        in_full = batch[0].learning_rate > 0 and batch[0].settings != self.space.search_settings
        return self._clock.left() > self._held_back(missing) + (1 + in_full) * self._costs.seconds(*batch)

    def _confirm(self) -> None:
        """Trains the best of each graft and the baselines in full, seed by seed, as far as time allows."""
        while True:
            passed_over = self._left_out | self._stopped
            missing = [b for b in self._missing() if b[0].key not in self._stopped]
            race = Race(self.space, self.history)
            pending: list[Batch] = [*missing, *((t,) for t in race.pending() if t.key not in passed_over)]
            if not pending:
                return
            batch, likely = pending[0], [(t,) for t in race.likely() if t.key not in passed_over]
            if batch in missing or self._confirmable(batch):
                # Any of them may get a further seed, which has views of its own.
                wanted = self._read_by([*batch, *self._finalists()])
                following = [*self._ahead(pending[1:]), *self._ahead(likely)]
                ahead = [b for b in following if self._confirmable(b)]
                self._run(batch, "confirmation", ahead, wanted)
            else:
                self._left_out[batch[0].key] = f"confirmation with seed {batch[0].seed}: {batch[0]}"

    def _confirmable(self, batch: Batch) -> bool:
        if self._clock.limit is None or batch in self._workers.begun():
            return True
        return self._clock.left() > self._closing() + self._costs.seconds(*batch)

    def _read_by(self, trials: Iterable[Trial]) -> frozenset[int]:
        """The stored cuts that trials read."""
        store, stages = self._bench.store, len(self._bench.staged.stages)
        return frozenset(store.start(stored_cut(trial.configuration, trial.cut, stages)) for trial in trials)

    def _run(
        self, batch: Batch, name: str, ahead: Sequence[Batch] = (), wanted_cuts: frozenset[int] | None = None
    ) -> None:
        """Runs a batch, and while it is waited for begins those `ahead`. wanted_cuts: as in `PrefixStore`."""
        others = f" and {len(batch) - 1} more together with it" if len(batch) > 1 else ""
        self._progress.trial(f"{name}: {batch[0]}{others}", self._standing())
        before = self._costs.raw(*batch)
        jobs = [
            Job(b, self._clock.deadline(self._reserve(b)), self._every_epoch(b[0]), wanted_cuts)
            for b in (batch, *ahead)
        ]
        try:
            results = self._workers.run(jobs[0], jobs[1:], self._progress.step)
        except OutOfTimeError:
            self._stopped |= {t.key: f"{name}, stopped by the time limit: {t}" for t in batch}
            return
        self.trained += len(batch)
        self.history |= {result.trial.key: result for result in results}
        self._left_out = {key: words for key, words in self._left_out.items() if key not in self.history}
        if any(result.accuracy >= 0 for result in results):
            self._costs.learn(before, self._bench.took(batch))
        ahead_of_time = [trial for begun in self._workers.begun() for trial in begun]
        self._bench.keep_checkpoints([*self._needed(), *ahead_of_time], writing=bool(ahead_of_time))

    def _every_epoch(self, trial: Trial) -> bool:
        """Of what is confirmed the first training has a learning curve, which tells what several would: a validation
        after every epoch is a tenth of a training. What the search itself trains with all epochs may stand for it where
        time ends; of what has fewer nobody sees a curve."""
        return trial.settings == self.space.settings and trial.seed <= self.space.seed + 1

    def _reserve(self, batch: Batch) -> float:
        """Seconds before the limit at which a running batch must stop; below zero for what must be there."""
        if self._clock.limit is None:
            return 0.0
        missing = self._missing()
        if batch in missing:
            return -0.5 * self._clock.overtime()
        return 0.5 * self._closing() + self._costs.total(missing)

    def _needed(self) -> list[Trial]:
        """Trials whose weights may still be tested or delivered: every probe may come to stand for its graft."""
        probes = [*linear_probes(self.space), *(t for track in self.space.tracks for t in self.space.probes(track))]
        return probes + [trial for best in self._finalists() for trial in (best, *confirmations(self.space, best))]

    def _finalists(self) -> list[Trial]:
        """What may be chosen, or compared with the choice, as it stands."""
        best = best_of_graft(self.space, self.history).values()
        return distinct([*roles(self.space, self.history).values(), *best, *stand_ins(self.space, self.history)])

    def _standing(self) -> Standing:
        to_come = self._to_come()
        finished = [r.accuracy for r in self.history.values() if r.accuracy >= 0]
        left = min(self._side_by_side(to_come), self._clock.left())
        done = len(self.history)
        return Standing(done, done + sum(map(len, to_come)), max(finished, default=None), left)

    def _to_come(self) -> list[Batch]:
        search = [t for t in expected_trials(self.space, self.history) if t.key not in self._left_out]
        if not (search or self._missing() or any(Race(self.space, self.history).pending())):
            return []
        found = self._finalists()
        again = [c for t in found for c in confirmations(self.space, t)[:RACE] if c.key not in self.history]
        # Before anything is known, confirmations for each graft and each baseline stand for what will come, as they
        # do for the seeds that only leaders and baselines get.
        grafts = {t.configuration.graft for t in self.space.proposal}
        unknown = max(0, len(grafts) + 2 - len(found)) * min(RACE, self.space.seeds)
        done = sum(result.trial.seed > self.space.seed + RACE for result in self.history.values())
        further = max(0, 4 * (self.space.seeds - RACE) - done)
        stand_in = self.space.trial(self.space.baseline, self.space.stages // 2, in_full=True)
        again += [with_seed(stand_in, self.space.seed + 1 + n) for n in range(unknown + further)]
        return batches(self.space, search) + [(trial,) for trial in again]

    def left_out(self) -> list[str]:
        """What the time was too short for, in words."""
        return sorted({*self._left_out.values(), *self._stopped.values()})

    def require_enough(self) -> None:
        """Raises where the limit ended before something without which nothing can be compared, or where all failed."""
        if missing := self._missing():
            raise UsageError(
                f"The time limit ended before {missing[0][0]}, without which nothing can be compared.",
                "Call again with a longer --time-limit; what was finished is kept.",
            )
        if Race(self.space, self.history).choice() is None:
            failed = [r for r in self._bench.folder.ledger.records(TRIAL) if r.outcome["status"] == "failed"]
            reason = failed[-1].outcome["reason"] if failed else "none was finished."
            raise DataError(f"No trial of the proposal succeeded: {reason}", "Look at the rates and the data set.")
