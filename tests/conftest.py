"""What every test may use: the shared folder of real networks and images, and a guard against leaks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

# As the command line sets it; here so that it holds before PyTorch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real networks and data sets: `INARCH_SHARED`, or `shared` beside the checkout."""
    folder = Path(os.environ.get("INARCH_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "weights").is_dir():
        pytest.skip(f"needs the shared folder with real networks and images, and {folder} is not there")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test, and no child of one, reads or writes the cache of the user who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def bf16_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this processor computed in bf16; where it does not, PyTorch emulates it, slowly."""
    for module in ("features.plan", "launch.plan", "predict"):
        monkeypatch.setattr(f"inarch.{module}.computes_in_bf16", lambda device: True)


@pytest.fixture
def no_bf16_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor without bf16."""
    for module in ("features.plan", "launch.plan", "predict"):
        monkeypatch.setattr(f"inarch.{module}.computes_in_bf16", lambda device: False)


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """A test that leaves a thread or an environment variable behind fails."""
    threads, environment = set(threading.enumerate()), dict(os.environ)
    yield
    left = [t.name for t in set(threading.enumerate()) - threads if not t.daemon]
    assert not left, f"threads left behind: {left}"
    changed = {k for k in environment.keys() | os.environ.keys() if environment.get(k) != os.environ.get(k)}
    changed -= {"PYTEST_CURRENT_TEST"}
    assert not changed, f"environment variables changed: {sorted(changed)}"
