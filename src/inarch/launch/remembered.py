"""Plans that were measured before on this machine, so that the same command in two folders computes alike.

One small file in the user's cache (results/cache.py), written whole. Where it is damaged or cannot be written, plans
are measured anew: nothing depends on it but that two folders agree.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from filelock import FileLock, Timeout

from inarch.errors import InarchError
from inarch.launch.plan import Decision
from inarch.results.cache import cache_folder
from inarch.results.folder import write_text

PLANS: Final = "plans.json"
# Of the file; another one is not read.
FORMAT: Final = 5
# Seconds to wait for a process that measures at the same time: its plan counts for this one too, and two measurements
# at once would disturb each other.
PATIENCE: Final = 60.0


def remembered(
    subject: Mapping[str, Any], measure: Callable[[], Decision], announce: Callable[[str], None]
) -> Decision:
    """The plan of `subject` (JSON: what a plan depends on); where it is not known yet it is measured, and kept."""
    file = cache_folder() / PLANS
    key = hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()[:24]
    with _alone(file):
        if (known := _known(_read(file), key)) is not None:
            return known
        decision = measure()
        # Whoever did not wait for this one to end has kept plans meanwhile, perhaps this very one.
        plans = _read(file)
        if (known := _known(plans, key)) is not None:
            return known
        plans[key] = decision.to_json() | {"of": dict(subject)}
        try:
            write_text(file, json.dumps({"format": FORMAT, "plans": plans}, indent=1) + "\n")
        except (InarchError, OSError):
            announce(f"The execution plan could not be kept in {file}: another run folder may get another one.")
    return decision


def this_processor(device: str) -> dict[str, Any]:
    """What tells this machine from another as far as plans go."""
    try:
        name = str(torch.cpu.get_capabilities()["cpu_name"])
    except (AttributeError, KeyError, RuntimeError):
        name = platform.processor() or platform.machine()
    found = {"processor": name, "instructions": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count()}
    accelerated = torch.device(device).type == "cuda"
    return found | {"device": torch.cuda.get_device_name(device) if accelerated else device}


def _known(plans: Mapping[str, Any], key: str) -> Decision | None:
    try:
        return Decision.from_json(plans[key])
    except (KeyError, TypeError, ValueError):
        return None


def _read(file: Path) -> dict[str, Any]:
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        plans = held["plans"] if held["format"] == FORMAT else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return plans if isinstance(plans, dict) else {}


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Nobody else measures meanwhile; where there can be no lock, or its holder takes too long, it goes on without."""
    lock = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file.with_suffix(".lock"), timeout=PATIENCE)
        lock.acquire()
    except (OSError, Timeout):
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
