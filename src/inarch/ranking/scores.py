"""The scores of a source network, in the order in which they are shown; a new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from inarch.ranking.h_score import h_score
from inarch.ranking.leep import leep
from inarch.ranking.logme import logme
from inarch.ranking.nce import nce
from inarch.ranking.regularised_h_score import regularised_h_score
from inarch.ranking.transrate import transrate


@final
@dataclass(frozen=True)
class Observed:
    """What a source network makes of the training images.

    features: penultimate features, float32 [images, features]. probabilities: softmax of the source logits, float32
    [images, source classes]. labels: of the target task, int64 [images].
    """

    features: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]


@final
@dataclass(frozen=True)
class Score:
    """name: its key in results; title: as people write it; of: the score, higher is better."""

    name: str
    title: str
    of: Callable[[Observed], float]


SCORES = (
    Score("logme", "LogME", lambda seen: logme(seen.features, seen.labels)),
    Score("regularised_h_score", "regularised H-score", lambda seen: regularised_h_score(seen.features, seen.labels)),
    Score("h_score", "H-score", lambda seen: h_score(seen.features, seen.labels)),
    Score("transrate", "TransRate", lambda seen: transrate(seen.features, seen.labels)),
    Score("leep", "LEEP", lambda seen: leep(seen.probabilities, seen.labels)),
    Score("nce", "NCE", lambda seen: nce(seen.probabilities.argmax(axis=1), seen.labels)),
)
# The score that sources are ordered by; docs/decisions.md says why.
RECOMMENDED = SCORES[0]
