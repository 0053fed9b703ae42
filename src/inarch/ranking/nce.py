"""NCE: negative conditional entropy (Tran, Nguyen and Hassner, ICCV 2019, arXiv 1908.08142)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inarch.ranking.classes import members


def nce(source_labels: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """How much of the target labels the likeliest source class leaves open, in nats: -log(classes) to 0, 0 is best.

    source_labels, labels: [images]. With p the shares of images,

        NCE = -H(Y | Z) = sum over y and z of p(y, z) log p(y | z)

    The paper labels the same images for both tasks; where the source task is known by its network alone, the network's
    likeliest class stands for the label, as in the comparison of the LEEP paper (arXiv 2002.12462, section 5). Where
    most images have a source class of their own it is near 0 for a trivial reason.
    """
    total = 0.0
    for rows in members(source_labels):
        counts = np.array([len(group) for group in members(labels[rows])], dtype=np.float64)
        total += float((counts * np.log(counts / len(rows))).sum())
    return total / len(labels)
