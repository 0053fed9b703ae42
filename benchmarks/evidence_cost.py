"""How long the parts of the evidence run take about, by counting trials and images; an estimate, not a measurement.

Two cores alone. The seconds of an image are fitted to the estimates of docs/lab-notebook.md ("what the evidence run
will cost"), which a measurement of 16 trainings and 15 tests agreed with; what a part took stands beside in --list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import evidence_design as design
from evidence_design import Part
from inarch.training.schedule import default_epochs

BATCH_SIZE = 32


@dataclass(frozen=True)
class Counts:
    """Classes of a data set and images of its splits; all images where a part takes all of them."""

    classes: int
    train: int
    validation: int
    test: int


# Of landuse, which has no validation split of its own, 15 % of each class are held out.
COUNTS = {
    "clothing": Counts(10, 3068, 341, 372),
    "landuse": Counts(21, 1428, 252, 420),
    "grocery": Counts(81, 2640, 296, 2485),
}
# Seconds of an image that is trained on and of one that is evaluated, with mobilenetv1_025_128.
TRAINED, EVALUATED = 0.00096, 0.00005
# Other sources at the size of their images here, as multiples of it; mobilenetv1_100 has about as many operations as
# mobilenetv2_100.
TIMES = {"mobilenetv1_025_128": 1.0, "squeezenet1_1": 2.4, "mobilenetv2_100": 3.4, "mobilenetv1_100": 3.4}


def trials(chapters: Sequence[str]) -> int:
    """About how many trials chapters have: those that are tuned, on draws, or of a curve."""
    count = sum(len(design.asked(chapter)) for chapter in chapters) * (design.TRIALS + design.DRAWS)
    for chapter in ("layer", "starts"):
        count += (chapter in chapters) * (design.TRIALS + design.DRAWS)  # traditional fine-tuning
    if "rates" in chapters:
        count += len(design.rate_configurations()) * len(design.RATE_MULTIPLES) * design.CURVE_DRAWS
    if "depth" in chapters:
        # Five cuts, of which one is often the chosen one, whose draws are trained already.
        count += 4 * len(design.IN_DEPTH) * design.CURVE_DRAWS
    if "warning" in chapters:
        count += len(design.asked("methods"))
    return count


def minutes(part: Part, chapters: Sequence[str]) -> float | None:
    """Estimated minutes of chapters of a part from nothing; None of a data set or source that is not known here."""
    if part.data not in COUNTS or part.source not in TIMES:
        return None
    data = COUNTS[part.data]
    train = min(data.train, part.shots * data.classes) if part.shots else data.train
    epochs = default_epochs(train, BATCH_SIZE)
    seconds = TRAINED * epochs * train + EVALUATED * (data.validation + data.test)
    return trials(chapters) * TIMES[part.source] * seconds / 60
