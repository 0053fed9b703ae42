"""Where Inarch keeps what can be computed again, and how much of it: folders and bytes; no PyTorch."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from inarch.errors import UsageError
from inarch.results.cache import cache_folder

GIB = 1 << 30
# What one study's segments may take where the user did not say: a quarter of the free disk and half of all memory, as a
# power of two so that the answer practically never changes on a machine, between these two.
LEAST_LIMIT, MOST_LIMIT = GIB // 2, 8 * GIB
# What all segments of all studies may take: a quarter of the disk that they and free space make up, at most this.
MOST_TOTAL = 32 * GIB
# Left free on the disk whatever happens: a full disk would end other programs.
RESERVE = GIB

_UNITS = {"": 1, "B": 1} | {
    f"{letter}{kind}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for kind, base in (("B", 1000), ("iB", 1024), ("", 1000))
}


def store_folder(given: Path | None = None) -> Path:
    """The folder of stored activations: what the user gave, else `store` in the cache folder."""
    return cache_folder() / "store" if given is None else given


def bytes_of(text: str) -> int:
    """`200MB`, `1.5GiB` or `7B` as a number; MB is 1000 x 1000, MiB 1024 x 1024. Else a `UsageError`.

    A number without a unit is refused, but for 0: who writes 4 means gigabytes, never bytes.
    """
    text = text.strip()
    found = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([kKMGT]?i?B?)", text)
    unit = "" if found is None else found[2].replace("k", "K")
    if found is None or unit not in _UNITS:
        raise UsageError(f"--store-limit {text} is not a size.", "Try 200MB, 4GB, 512MiB or 4GiB; 0 stores nothing.")
    size = float(found[1])
    if not unit and size:
        raise UsageError(f"--store-limit {text} has no unit.", f"Try {text}GB, or {text}B for bytes.")
    return int(size * _UNITS[unit])


def readable(size: int) -> str:
    """Bytes as a person reads them, in decimal units as `bytes_of` takes them."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def free_space(folder: Path) -> int:
    """Free bytes of the disk that holds a folder, or would hold it; 0 where that cannot be known."""
    # Not folder.exists(), which raises where a folder may not be entered.
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def all_memory() -> int:
    """Bytes of memory that the machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2 * LEAST_LIMIT


def available_memory() -> int:
    """Bytes that could be used without swapping, as the system estimates it; a quarter of all where it does not."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = {name: value for name, _, value in (line.partition(":") for line in lines)}
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return all_memory() // 4


def default_limit(folder: Path) -> int:
    """Bytes that one study may store in `folder`; what was once found there is remembered and holds from then on.

    Which cuts are stored decides by a rounding what later cuts are computed from, so two runs of the same study on a
    machine must get the same limit, whatever the disk holds by then.
    """
    memory = folder / "default-limit"
    try:
        return int(memory.read_text(encoding="ascii"))
    except (OSError, ValueError):
        pass
    share = min(free_space(folder) // 4, all_memory() // 2)
    limit = min(MOST_LIMIT, max(LEAST_LIMIT, 1 << max(0, share.bit_length() - 1)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".default-limit.{os.getpid()}.part"
        beside.write_text(str(limit), encoding="ascii")
        beside.replace(memory)
    except OSError:
        pass  # a folder that cannot be written has no store to remember a limit for
    return limit
