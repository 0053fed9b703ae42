"""LEEP: log expected empirical prediction (Nguyen et al., ICML 2020, arXiv 2002.12462, section 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inarch.ranking.classes import members


def leep(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """How well target labels follow from source classes, in nats an image: at most 0, higher is better.

    probabilities: [images, source classes], the softmax of the source logits, each row summing to 1; labels: [images].
    With p(y, z) the mean over all images of their probability of source class z, where their label is y and else 0, and
    p(y | z) = p(y, z) / p(z), every image is classified by its own source probabilities:

        LEEP = mean over images i of log sum over z of p(y_i | z) probability(z | x_i)

    It is an average log-likelihood, so never above that of the best classifier on these probabilities that is linear in
    them, and never below NCE plus the mean log-probability of the likeliest source class (the paper's properties 1 and
    2). Numbers are summed in float64.
    """
    classes = members(labels)
    joint = np.stack([probabilities[rows].sum(axis=0, dtype=np.float64) for rows in classes])
    source = joint.sum(axis=0)
    # A source class that no image is given any probability of meets only zeros below.
    conditional = np.divide(joint, source, out=np.zeros_like(joint), where=source > 0)
    total = sum(
        np.log(probabilities[rows].astype(np.float64) @ given).sum()
        for rows, given in zip(classes, conditional, strict=True)
    )
    return float(total / len(labels))
