"""The C library's memory allocator, told to keep what training gives back and soon asks for again.

By default glibc maps every large block anew and returns it at once; each training step then pays for fresh pages.
MobileNetV2 was 2.4 times slower forward that way on two cores (docs/lab-notebook.md). It is a matter of speed alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

# From malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TOP_PAD = 64 << 20
NEVER = (1 << 31) - 1
# Allocators that a user may have put before glibc's, which then has nothing to decide.
OTHERS = ("jemalloc", "tcmalloc", "mimalloc")


def _glibc_allocates() -> bool:
    """Whether memory comes from glibc: it is the C library, and no other allocator was loaded before it."""
    loaded = [Path(file).name for file in os.environ.get("LD_PRELOAD", "").replace(":", " ").split()]
    return platform.libc_ver()[0] == "glibc" and not any(name in file for file in loaded for name in OTHERS)


def keep_memory() -> bool:
    """Sets the allocator of this process; False where it is not glibc's and nothing was done."""
    if not _glibc_allocates():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*pair) == 1 for pair in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, TOP_PAD)))


def give_back() -> None:
    """Gives the system what is kept but not in use, which takes about half a second a gigabyte until it is back.

    What one trial leaves, in pieces of the sizes that it needed, the next one may not find use for.
    """
    if _glibc_allocates():
        ctypes.CDLL(None).malloc_trim(0)
