"""Processes beside a study: what they answer, how they end, and when they are worth it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection

import pytest
import torch

from inarch.launch import beside
from inarch.launch.beside import end, forked, private_bytes, quickest_number


def test_a_process_has_the_threads_that_it_was_given_and_the_objects_of_the_one_before() -> None:
    shared = torch.arange(5)

    def serve(connection: Connection) -> None:
        connection.send((os.getpid(), torch.get_num_threads(), int(shared.sum()), private_bytes()))
        connection.recv()

    process, connection = forked(serve, 2)
    try:
        number, threads, total, held = connection.recv()
        assert number == process.pid != os.getpid()
        assert (threads, total) == (2, 10)
        assert held > 0
    finally:
        end(process, connection)
    assert not process.is_alive()


def test_a_forked_process_computes_with_several_threads_after_this_one_did() -> None:
    left = torch.ones(700, 700)
    expected = float((left @ left).sum())

    def serve(connection: Connection) -> None:
        torch.set_num_threads(2)
        connection.send(float((left @ left).sum()))

    process, connection = forked(serve, 2)
    try:
        assert connection.poll(30), "it waits for threads that were not forked along"
        assert connection.recv() == expected
    finally:
        end(process, connection)


def test_a_process_that_closes_its_end_says_so() -> None:
    process, connection = forked(lambda connection: connection.close(), 1)
    with pytest.raises(EOFError):
        connection.recv()
    end(process, connection)


def test_a_process_ends_with_the_one_that_forked_it() -> None:
    program = (
        "import time\nfrom inarch.launch.beside import forked\n"
        "process, connection = forked(lambda connection: time.sleep(600), 1)\n"
        "print(process.pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.send_signal(signal.SIGKILL)
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"process {child} outlived the one that forked it")


def test_processes_are_worth_it_where_steps_are_no_slower_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "COUNTED", 0.1)
    # What sleeps takes nothing from the others, however many threads it has.
    assert quickest_number(lambda: time.sleep(0.01), 4, [2]) == 2
    assert quickest_number(lambda: time.sleep(0.01), 4, [2, 4]) == 4
    assert quickest_number(lambda: time.sleep(0.01), 4, []) == 1
    # Four times as long on half of the threads: as many processes do half as much.
    assert quickest_number(lambda: time.sleep(0.16 / torch.get_num_threads() ** 2), 4, [2, 4]) == 1


def test_what_cannot_be_computed_side_by_side_is_computed_alone() -> None:
    def fails() -> None:
        os._exit(1)

    assert quickest_number(fails, 4, [2]) == 1
