"""Trials that train side by side, each in a process of its own with its share of the threads.

What is trained, the order in which it is recorded, and every number are as if it were done one after the other with as
many threads: while one batch of trials is waited for, those that will most likely be asked for next are trained ahead
of it. Where the search takes another turn, nobody asks for them, and they are forgotten.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pickle import PicklingError
from typing import Any, Final, final

from inarch.launch.allocator import give_back
from inarch.launch.beside import can_fork, end, forked, private_bytes
from inarch.launch.here import Workbench
from inarch.profile import Profile
from inarch.results.ledger import Record
from inarch.search.space import Result
from inarch.search.together import Batch
from inarch.training.fit import OutOfTimeError, Watch

# Seconds between two steps that a process tells of.
TOLD: Final = 0.2
# How many batches for every process are known ahead where time is limited: one is being trained, one comes next.
AHEAD: Final = 2


@final
@dataclass(frozen=True)
class Job:
    """A batch of trials, when it must stop (monotonic seconds), whether it is validated after every epoch, and the
    stored cuts that a pass for it keeps, as `PrefixStore.wanted_cuts`."""

    batch: Batch
    deadline: float
    every_epoch: bool
    wanted_cuts: frozenset[int] | None


@final
@dataclass
class _Trained:
    """What a process found for a job: records, or why there are none; where its time went; the segments that it knows;
    its own bytes of memory."""

    job: Job
    records: list[Record] | Exception
    seconds: dict[str, float]
    segments: frozenset[str]
    memory: int

    def too_soon(self, asked: Job) -> bool:
        """Whether it stopped at a deadline that is not that of the one who asks."""
        return isinstance(self.records, OutOfTimeError) and self.job.deadline < asked.deadline


class _LostError(Exception):
    """A process could not be begun, or ended by itself."""


@final
class Workers:
    """Runs batches one after the other, as many at once as the machine's plan says. Close it to end its processes."""

    def __init__(self, bench: Workbench, announce: Callable[[str], None]) -> None:
        self._bench, self._announce = bench, announce
        machine = bench.store.machine
        self.number = machine.workers if can_fork(machine.device) and bench.store.on_disk else 1
        self._running: list[tuple[BaseProcess, Connection]] = []
        # What each process is doing, by its place; what is done and was not asked for yet; what the user was told.
        self._doing: dict[int, Job] = {}
        self._done: dict[Batch, _Trained] = {}
        self._told: set[str] = set()

    def run(self, job: Job, ahead: Sequence[Job], progress: Callable[[int, int], None]) -> list[Result]:
        """Trains a batch and records it; `ahead` are those that are likely to be asked for, to be begun in that order.

        progress: steps done and to come, of the batch. `OutOfTimeError` where its deadline passed.
        """
        if self.number > 1:
            try:
                found = self._asked(job, ahead, progress).records
            except _LostError:
                self.close()
                self.number = 1
                self._say(
                    "A process that trains beside others could not be begun, or was ended from outside, perhaps for "
                    "lack of memory. The study goes on with one training at a time and the same results."
                )
            else:
                if isinstance(found, Exception):
                    raise found
                return self._bench.take(job.batch, found)
        store = self._bench.store
        store.wanted_cuts = job.wanted_cuts
        try:
            return self._bench.run(job.batch, Watch(job.deadline, progress, job.every_epoch))
        finally:
            store.wanted_cuts = None

    def begun(self) -> list[Batch]:
        """What was trained, or is being trained, before it was asked for."""
        return [*self._done, *(job.batch for job in self._doing.values())]

    def close(self) -> None:
        """Ends the processes, whatever they are doing; what nobody asked for is forgotten."""
        self._bench.store.profile.works_beside(False)
        while self._running:
            end(*self._running.pop())
        if self._doing:
            self._bench.store.tidy()
        self._doing.clear()
        self._done.clear()

    def _asked(self, job: Job, ahead: Sequence[Job], progress: Callable[[int, int], None]) -> _Trained:
        """What was found for a job; `_LostError` where a process is."""
        profile = self._bench.store.profile
        waiting = list({job.batch: job for job in (job, *ahead)}.values())
        if job.batch in self._done and self._done[job.batch].too_soon(job):
            del self._done[job.batch]
        try:
            self._man(waiting)
            self._hand_out(waiting)
            profile.works_beside(True)
            while job.batch not in self._done:
                connections = {connection: place for place, (_, connection) in enumerate(self._running)}
                for connection in wait([c for c, place in connections.items() if place in self._doing]):
                    assert isinstance(connection, Connection)
                    self._hear(connections[connection], connection.recv(), job, progress)
                self._hand_out(waiting)
        except (EOFError, OSError) as error:
            raise _LostError from error
        profile.works_beside(bool(self._doing))
        return self._done.pop(job.batch)

    def _man(self, waiting: Sequence[Job]) -> None:
        """Has all processes run, and one of them free, or at the first job: else one ends that does what nobody waits
        for."""
        machine = self._bench.store.machine
        if not self._running:
            give_back()  # what is forked along should be little
        while len(self._running) < self.number:
            self._running.append(forked(self._serve, machine.threads))
        if waiting[0].batch in self.begun() or len(self._doing) < self.number:
            return
        wanted = {job.batch for job in waiting}
        for place in [place for place, job in self._doing.items() if job.batch not in wanted][:1]:
            end(*self._running[place])
            del self._doing[place]
            self._running[place] = forked(self._serve, machine.threads)
            self._bench.store.tidy()

    def _hand_out(self, waiting: Sequence[Job]) -> None:
        """Gives those who have nothing to do the first jobs that nobody does."""
        known, begun = self._bench.store.segments(), set(self.begun())
        left = [job for job in waiting if job.batch not in begun]
        for place, (_, connection) in enumerate(self._running):
            if place not in self._doing and left:
                job = left.pop(0)
                connection.send((job, known))
                self._doing[place] = job

    def _hear(self, place: int, message: Any, asked: Job, progress: Callable[[int, int], None]) -> None:
        job = self._doing[place]
        if isinstance(message, str):
            self._say(message)
        elif isinstance(message, tuple):
            if job.batch == asked.batch:
                progress(*message)
        else:
            store = self._bench.store
            del self._doing[place]
            if not (job.batch == asked.batch and message.too_soon(asked)):
                self._done[job.batch] = message
            store.learn(message.segments)
            store.profile.add_beside(place, message.seconds, message.memory)

    def _say(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._announce(text)

    # In a process beside the study's

    def _serve(self, connection: Connection) -> None:
        """Trains what comes through the connection until it is closed."""
        bench, store = self._bench, self._bench.store
        keeping = store.keeping
        store.keeping = replace(keeping, memory=keeping.memory // self.number, announce=connection.send)
        while True:
            job, known = connection.recv()
            store.learn(known)
            store.wanted_cuts, store.profile = job.wanted_cuts, Profile()
            records: list[Record] | Exception
            try:
                records = bench.trained(job.batch, Watch(job.deadline, _seldom(connection.send), job.every_epoch))
            except Exception as error:
                # What a connection takes of an error is without its traceback.
                error.add_note(traceback.format_exc())
                records = error
            found = _Trained(job, records, store.profile.seconds(), store.segments(), private_bytes())
            try:
                connection.send(found)
            except (PicklingError, TypeError, AttributeError):  # an error of somebody else, with what is no data
                connection.send(replace(found, records=_in_words(records)))


def _in_words(found: object) -> RuntimeError:
    """An error that says what another one says, notes included."""
    error = RuntimeError(repr(found))
    for note in getattr(found, "__notes__", ()):
        error.add_note(note)
    return error


def _seldom(tell: Callable[[tuple[int, int]], None]) -> Callable[[int, int], None]:
    """Tells steps through a connection, but not every one."""
    last = 0.0

    def told(step: int, steps: int) -> None:
        nonlocal last
        if step == steps or time.monotonic() - last > TOLD:
            last = time.monotonic()
            tell((step, steps))

    return told
