"""Where this user keeps what Inarch may reuse from one run to the next."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`INARCH_CACHE`, else `inarch` in `XDG_CACHE_HOME`, else `~/.cache/inarch`; it need not be there yet.

    Everything in it can be made again: whoever deletes it loses time and nothing else.
    """
    own = os.environ.get("INARCH_CACHE")
    if own:
        return Path(own)
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "inarch"
