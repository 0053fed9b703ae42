"""Processes that compute beside this one, forked from it: they share what it has in memory until they change it.

Small networks leave most of several threads waiting for each other; as many processes with fewer threads each do more
(docs/lab-notebook.md). Whether they do is measured.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import torch

# By how much several processes must beat one: less is within what other work does to a short measurement.
MARGIN: Final = 1.15
# Seconds for which steps are counted, the fewest steps, and how long a process may take for all of it.
COUNTED, FEWEST, PATIENCE = 0.4, 3, 60.0
# Of prctl(2): a signal for this process when the one that forked it ends.
_PARENT_DEATH_SIGNAL = 1


def can_fork(device: str) -> bool:
    """Whether processes can be forked here: on Linux, with the work on the processor, and not in a process that may
    have none of its own. Nor where there is an accelerator: PyTorch's backward pass then begins threads for it, whether
    it is used or not, and refuses to work in what is forked afterwards."""
    allowed = sys.platform == "linux" and not multiprocessing.current_process().daemon
    return allowed and torch.device(device).type == "cpu" and not torch.accelerator.is_available()


def forked(serve: Callable[[Connection], None], threads: int) -> tuple[BaseProcess, Connection]:
    """A process that runs `serve` with its end of a connection, on so many threads of PyTorch, and the other end.

    It ends with this process, however that ends, and leaves interrupts from the keyboard to it.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_begin, args=(serve, ours, theirs, threads, os.getpid()), daemon=True)
    with warnings.catch_warnings():
        # PyTorch's threads are not forked along, and nothing of theirs is used there.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    theirs.close()
    return process, ours


def _begin(
    serve: Callable[[Connection], None], ours: Connection, theirs: Connection, threads: int, parent: int
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        return
    ours.close()

    def work() -> None:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        with suppress(EOFError, BrokenPipeError, ConnectionResetError):
            serve(theirs)

    # OpenMP's threads belong to the thread that called them, and the first one's were not forked along.
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def end(process: BaseProcess, connection: Connection) -> None:
    """Ends a process, whatever it is doing."""
    connection.close()
    process.kill()
    process.join()


def private_bytes() -> int:
    """Bytes of memory of this process that no other one shares; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
    return 0


def quickest_number(step: Callable[[], object], threads: int, numbers: Iterable[int]) -> int:
    """The number of processes, 1 or one of `numbers`, that together do most steps a second on `threads` threads.

    1 unless others beat it by the margin; what cannot compute a step at all does none.
    """
    one = _rate(step, 1, threads)
    rates = {number: _rate(step, number, threads // number) for number in numbers}
    best = max(rates, key=lambda number: rates[number], default=1)
    return best if one > 0 and rates.get(best, 0.0) > MARGIN * one else 1


def _rate(step: Callable[[], object], number: int, threads: int) -> float:
    """Steps a second of so many processes together, with so many threads each."""

    def count(connection: Connection) -> None:
        with suppress(RuntimeError):  # too little memory: who closes its end did no steps
            step()
            connection.send(None)
            connection.recv()
            done, start = 0, time.perf_counter()
            while done < FEWEST or time.perf_counter() - start < COUNTED:
                step()
                done += 1
            connection.send(done / (time.perf_counter() - start))

    running: list[tuple[BaseProcess, Connection]] = []
    try:
        for _ in range(number):
            running.append(forked(count, threads))
        for _, connection in running:
            _answer(connection)
        # All begin to count when all are warm.
        for _, connection in running:
            connection.send(None)
        return sum(float(_answer(connection)) for _, connection in running)
    except (OSError, EOFError):
        return 0.0
    finally:
        for process, connection in running:
            end(process, connection)


def _answer(connection: Connection) -> Any:
    """What comes through a connection; `OSError` where it takes too long."""
    if not connection.poll(PATIENCE):
        raise TimeoutError
    return connection.recv()
