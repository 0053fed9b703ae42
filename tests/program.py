"""The program as its users run it: the command line in this process, in a child that may be killed, or from a shell."""

from __future__ import annotations

import contextlib
import importlib
import io
import multiprocessing
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

# One thread, one epoch, one small hidden layer: a study of seconds.
QUICK = ("--epochs", "1", "--batch-size", "16", "--hidden", "8", "--threads", "1")
# The least of a study: one configuration at one cut.
ONE = (*QUICK, "--grafts", "retain", "--harmonise", "none", "--cuts", "1", "--seeds", "1")
# Enough of a study to be worth interrupting, short enough to be done often.
SHORT = (*QUICK, "--grafts", "deepen", "--harmonise", "l2", "--seeds", "2")

# Loading torchvision sets an environment variable: here, so that no test is blamed for it.
importlib.import_module("inarch.study")
_CHILDREN = multiprocessing.get_context("forkserver")
_CHILDREN.set_forkserver_preload(["inarch.cli", "inarch.study", "inarch.launch.here", "inarch.report.page", "toy"])


@dataclass(frozen=True)
class Ran:
    """How a command ended. `said` is all that it printed, on one line: a narrow terminal wraps sentences."""

    exit_code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return " ".join((self.out + self.err).split())


def inarch(*arguments: str | Path) -> Ran:
    """Runs a command in this process; the number of threads is afterwards as it was."""
    from inarch.cli import main

    out, err = io.StringIO(), io.StringIO()
    before, threads = sys.argv, torch.get_num_threads()
    sys.argv = ["inarch", *map(str, arguments)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.argv = before
        torch.set_num_threads(threads)
    return Ran(code, out.getvalue(), err.getvalue())


def start(*arguments: str | Path, die_at: tuple[str, int] | None = None) -> BaseProcess:
    """Starts a command in a child and a process group of its own, which has loaded all libraries already.

    die_at: a function (`module:name`) and the number of its call at whose beginning the child kills itself (SIGKILL).
    """
    child = _CHILDREN.Process(target=_main, args=([str(a) for a in arguments], die_at))
    child.start()
    return child


def _main(arguments: list[str], die_at: tuple[str, int] | None) -> None:
    os.setsid()
    if die_at is not None:
        _die(*die_at)
    ran = inarch(*arguments)
    if ran.exit_code:
        print(ran.err, file=sys.stderr)
    sys.exit(ran.exit_code)


def _die(place: str, call: int) -> None:
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, name), iter(range(1, sys.maxsize))

    def deadly(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            os.killpg(0, signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, name, deadly)


@contextlib.contextmanager
def running(*arguments: str | Path, die_at: tuple[str, int] | None = None) -> Iterator[BaseProcess]:
    """A command in a child, killed with its group at the end if it still runs."""
    child = start(*arguments, die_at=die_at)
    try:
        yield child
    finally:
        kill(child)


def kill(child: BaseProcess) -> bool:
    """Kills the child's group and waits; whether it was still at work."""
    assert child.pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    child.join(60)
    killed = child.exitcode == -signal.SIGKILL
    child.close()
    return killed


def rows(folder: Path) -> list[tuple[Any, ...]]:
    """Everything that the ledger of a run folder holds, bit for bit, in its order; nothing where there is none."""
    file = folder / "ledger.sqlite"
    if not file.exists():
        return []
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        if not ledger.execute("SELECT 1 FROM sqlite_master WHERE name = 'record'").fetchone():
            return []
        return ledger.execute("SELECT * FROM record ORDER BY position").fetchall()


def without_cost(results: dict[str, Any]) -> dict[str, Any]:
    """What equal studies share."""
    return {name: value for name, value in results.items() if name != "cost"}


def absolute_paths(text: str) -> Sequence[str]:
    """Whatever in a JSON text looks like an absolute path: of Linux, a Mac, or Windows."""
    return re.findall(r'(?:(?<=["\s(\'])/[\w.-]+/[^"\s]*|[A-Za-z]:\\[^"\s]*)', text)
