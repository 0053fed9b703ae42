"""Mixup: the network trains on weighted means of two images, and on both of their labels, weighted alike.

Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond empirical risk minimization" (ICLR 2018, arXiv 1710.09412): with
lambda ~ Beta(alpha, alpha) and another image j of the batch for each image i,

    x = lambda x_i + (1 - lambda) x_j          loss = lambda loss(y_i) + (1 - lambda) loss(y_j)

As in the authors' code there is one lambda a batch, and j is a permutation of it. What is mixed is what the trained
part reads: pixels where nothing is frozen, else the activations at the cut, which is manifold mixup at that layer
(Verma et al., ICML 2019, arXiv 1806.05236).
"""

from __future__ import annotations

import numpy as np
import torch

from inarch.errors import UsageError
from inarch.methods import Method, Mixture
from inarch.training.trial import TrainingSettings


def mixture_of(alpha: float, seed: int, number: int, images: int, device: torch.device | str = "cpu") -> Mixture | None:
    """How the images of step `number` of a trial of that seed are mixed; None where alpha is 0."""
    if not alpha:
        return None
    # The order of an epoch has the same key: it counts from 0 in the lowest word.
    random = np.random.Generator(np.random.Philox(key=[seed, number], counter=[0, 0, 0, 1]))
    share = float(random.beta(alpha, alpha))
    return Mixture(share, torch.from_numpy(random.permutation(images)).to(device))


def require_bearable(method: Method | type[Method], settings: TrainingSettings) -> None:
    """`UsageError` where images are mixed and the method's loss wants one label for each."""
    if settings.mixup and not method.bears_mixing:
        raise UsageError(
            f"{method.name} compares images by their one label, and mixup ({settings.mixup:g}) gives each image two.",
            f"Leave --mixup away, or choose another method than {method.name}.",
        )
