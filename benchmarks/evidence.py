"""The evidence run: does keeping the classification layer pay? Real networks and images, part by part, for many hours.

    python benchmarks/evidence.py --time-limit 3h        goes on with the parts in order; quiet, killed and called again
    python benchmarks/evidence.py --parts clothing-*     only these
    python benchmarks/evidence.py --chapters starts      only these
    python benchmarks/evidence.py --list                 the parts, what is finished, what it took
    python benchmarks/evidence.py --summary              tables and figures of docs/evidence.md from the records alone

Records stand in evidence/, a file a part, and are meant to be committed: another day goes on from them where the run
folders (--out) are gone. What is asked is in evidence_design.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import common
from inarch.errors import InarchError
from inarch.texts import seconds, words

ROOT = common.HERE.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", default="*", help="names of parts, with * and ?, separated by commas")
    parser.add_argument("--chapters", type=words, default=(), help="of evidence_design.CHAPTERS, with commas")
    parser.add_argument("--time-limit", type=seconds, help="of this call, such as 3h")
    parser.add_argument("--threads", type=int, help="of each part that is begun")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "evidence", help="run folders; may be deleted")
    parser.add_argument("--records", type=Path, default=ROOT / "evidence", help="folder of records")
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--summary", type=Path, nargs="?", const=ROOT / "docs" / "evidence.md", help="write this page")
    given = parser.parse_args()
    # Read when PyTorch is loaded, which the modules below do.
    for name, value in common.AS_COMMAND_LINE.items():
        os.environ.setdefault(name, value)
    import evidence_run
    from evidence_page import write_page

    try:
        if given.list:
            evidence_run.show(given.records)
        elif given.summary:
            write_page(given.summary, list(evidence_run.finished_parts(given.records).values()))
        else:
            evidence_run.run(evidence_run.chosen(given.parts), given)
    except InarchError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
