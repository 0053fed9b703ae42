"""Records of the evidence run, a small file a part: a run folder can be made from it again, and every table and figure.

Gzipped JSON lines: first what the part is, then a record a line. Of a trial on a draw it holds, bit by bit, which test
images were classified right; no probabilities and no weights.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from evidence_design import BEGINNINGS, CHAPTERS, OLD_LAYERS
from inarch.errors import RunFolderError
from inarch.launch.here import RANGE
from inarch.plural import counted
from inarch.results.folder import TRIAL, RunFolder
from inarch.results.ledger import Record
from inarch.training.trial import Trial

FORMAT = 1
# A trial on a draw, tested; one whose validation split was the test split; a finished chapter; source classes.
DRAWN, WARNING, CHAPTER, SIMILARITY = "drawn", "warning", "chapter", "similarity"
KINDS = (RANGE, TRIAL, DRAWN, WARNING, CHAPTER, SIMILARITY)
RIGHT = "right"
# In `rates` new layers train alone.
TRAINING_OLD_LAYERS = [chapter for chapter in (*BEGINNINGS, *CHAPTERS) if chapter != "rates"]
REMEDY = (
    "To go on from the file, delete the run folder or name another with --out; to go on in the run folder, move the "
    "file away."
)
# Kinds whose key follows from their trial, and what stands in front of it.
PREFIX = {TRIAL: "", DRAWN: f"{DRAWN}-", WARNING: f"{WARNING}-"}


@final
@dataclass(frozen=True)
class Written:
    """What a file holds. about: the part, its identity, environment, stages, classes, test labels and counts."""

    about: dict[str, Any]
    records: list[Record]

    def of(self, kind: str) -> list[Record]:
        return [record for record in self.records if record.kind == kind]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        return np.array(self.about["labels"], dtype=np.int64)

    @cached_property
    def right(self) -> dict[str, NDArray[np.bool_]]:
        """Right or wrong [test images] of every tested trial, by the trial's key."""
        images = len(self.labels)
        return {
            record.key.removeprefix(PREFIX[DRAWN]): np.unpackbits(record.arrays[RIGHT], count=images).astype(bool)
            for record in self.of(DRAWN)
        }

    @cached_property
    def validation(self) -> dict[str, float]:
        """Validation accuracy of every finished trial by key."""
        finished = (r for r in self.of(TRIAL) if r.outcome["status"] == "finished")
        return {r.key: r.outcome["validation"]["accuracy"] for r in finished}

    @cached_property
    def chapters(self) -> dict[str, dict[str, Any]]:
        """What belongs to each finished chapter; of one that was gone through again, as it was last."""
        return {record.subject["chapter"]: record.outcome for record in self.of(CHAPTER)}

    @property
    def chapters_of_old(self) -> list[str]:
        """Chapters whose old layers were tuned in another way than they are now."""
        now = {r.subject["chapter"]: r.subject.get("old_layers") == OLD_LAYERS for r in self.of(CHAPTER)}
        return [chapter for chapter in TRAINING_OLD_LAYERS if not now.get(chapter, True)]

    @property
    def finished_trials(self) -> int:
        return sum(record.outcome["status"] == "finished" for record in self.of(TRIAL))


def write_part(file: Path, about: dict[str, Any], folder: RunFolder) -> None:
    """Writes what the ledger of a run folder holds, whole; equal ledgers give equal files but for seconds.

    A draw that is trained and not tested is left out: its weights are only in the run folder. Raises `RunFolderError`
    and writes nothing where the file holds records that the ledger lacks: another process has gone on with the part.
    """
    known = {record.key for record in folder.ledger.records()}
    lacking = [r.key for r in (read_part(file).records if file.exists() else []) if r.key not in known]
    if lacking:
        raise RunFolderError(
            f"{file} holds {counted(len(lacking), 'record')} that {folder.path} lacks, so it is left as it is.",
            "Another process went on with this part: wait for it to end, then call again, which joins both.",
        )
    records = [record for kind in KINDS for record in folder.ledger.records(kind)]
    tested = {record.key.removeprefix(PREFIX[DRAWN]) for record in records if record.kind == DRAWN}
    lines = [_line({"format": FORMAT, **about})]
    for record in records:
        untested = record.kind == TRIAL and record.outcome["status"] == "finished" and record.subject["seed"] > 0
        if not (untested and record.key not in tested):
            lines.append(_line(_values(record)))
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.part")
    # No time and no name in the header: the same records are the same bytes.
    beside.write_bytes(gzip.compress("".join(lines).encode(), compresslevel=9, mtime=0))
    beside.replace(file)


def read_part(file: Path) -> Written:
    """The part that a file holds."""
    first, *lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    about = json.loads(first)
    if about["format"] != FORMAT:
        raise ValueError(f"{file} has format {about['format']}, this version reads {FORMAT}")
    return Written(about, [_record(json.loads(line)) for line in lines])


def put_back(written: Written, folder: RunFolder, file: Path) -> None:
    """Puts what a file holds and a run folder lacks into the folder, which goes on from there.

    Raises `RunFolderError` where a folder that has begun is of other arguments or another machine than the file.
    """
    about = written.about
    if not folder.begun:
        folder.keep_environment(about["environment"])
    elif folder.environment != about["environment"]:
        known = folder.environment
        names = [
            name
            for name in sorted({*known, *about["environment"]})
            if known.get(name) != about["environment"].get(name)
        ]
        raise RunFolderError(
            f"{folder.path} was begun on another machine or in another way than the records in {file}: "
            f"{', '.join(names)} differ.",
            REMEDY,
        )
    try:
        folder.require_identity(about["identity"])
    except RunFolderError as error:
        raise RunFolderError(f"The records in {file} are of another run: {error.problem}", REMEDY) from error
    known = {record.key for record in folder.ledger.records()}
    folder.ledger.add_all(record for record in written.records if record.key not in known)


def digest(parts: Sequence[Written]) -> str:
    """A short name of all records of parts, whatever their order, but for the seconds that they took."""
    lines = [
        json.dumps({"part": written.about["part"], **_values(record), "seconds": 0.0}, sort_keys=True)
        for written in parts
        for record in written.records
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:24]


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"


def _values(record: Record) -> dict[str, Any]:
    outcome = record.outcome
    if record.kind == TRIAL:
        kept = {"status": outcome["status"]}
        if outcome["status"] == "finished":
            kept["validation"] = {name: outcome["validation"][name] for name in ("accuracy", "log_loss")}
        else:
            kept["reason"] = outcome["reason"]
        outcome = kept
    elif record.kind == RANGE:
        outcome = {"chosen": outcome["chosen"]}
    values = {"kind": record.kind, "subject": record.subject, "outcome": outcome, "seconds": round(record.seconds, 3)}
    if record.kind not in PREFIX:
        values["key"] = record.key
    if RIGHT in record.arrays:
        values[RIGHT] = base64.b64encode(record.arrays[RIGHT].tobytes()).decode()
    return values


def _record(values: dict[str, Any]) -> Record:
    kind, subject = values["kind"], values["subject"]
    key = PREFIX[kind] + Trial.from_json(subject).key if kind in PREFIX else values["key"]
    arrays = {RIGHT: np.frombuffer(base64.b64decode(values[RIGHT]), dtype=np.uint8)} if RIGHT in values else {}
    return Record(key, kind, subject, values["outcome"], arrays, values["seconds"])
