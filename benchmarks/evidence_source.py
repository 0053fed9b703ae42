"""What the source network has to say in the evidence run: of target classes, and of itself after it was adapted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from inarch.data import evaluation_batch, read_image, resize_to_cover
from inarch.launch.here import Workbench
from inarch.preparation import Opened, pixel_size
from inarch.training.trial import Trial

# Images of each other data set on which the source logits of adapted networks are looked at.
FOREIGN = 100
CHUNK = 50


@final
class Survival:
    """How the source logits of adapted networks agree with those of the original, on images of other data sets."""

    def __init__(self, others: tuple[Path, ...], start: Opened) -> None:
        self._others, self._start = others, start
        self._original: tuple[Tensor, Tensor] | None = None

    def of(self, bench: Workbench, trial: Trial) -> dict[str, float]:
        """Of a trained trial, whose weights are still there or are computed again.

        agreement: share of images with the same likeliest source class. divergence: mean Kullback-Leibler divergence
        of the adapted network's probabilities from the original's, in nats. Where the graft replaced the classification
        layer, the original layer is put on the adapted features again.
        """
        if self._original is None:
            pixels = foreign_images(self._others, self._start)
            bench.network(trial)  # puts the weights of the source into the modules again
            self._original = pixels, _source_logits(bench, pixels)
        pixels, before = self._original
        bench.restore(trial)
        now = _source_logits(bench, pixels)
        log_p, log_q = before.log_softmax(dim=1), now.log_softmax(dim=1)
        return {
            "agreement": float((now.argmax(dim=1) == before.argmax(dim=1)).double().mean()),
            "divergence": float((log_p.exp() * (log_p - log_q)).sum(dim=1).mean()),
        }


def _source_logits(bench: Workbench, pixels: Tensor) -> Tensor:
    """[images, source classes] from the weights that the modules have now."""
    whole = bench.staged.segment(0, len(bench.staged.stages)).eval()
    with torch.no_grad():
        parts = [whole(bench.store.machine.place(some)) for some in pixels.split(CHUNK)]
    return torch.cat(parts).double().cpu()


def foreign_images(folders: tuple[Path, ...], start: Opened) -> Tensor:
    """`FOREIGN` images of each folder, evenly taken from its test split (or all of it), as the source sees them."""
    size, pixels = pixel_size(start.source), []
    for folder in folders:
        files = sorted((folder / "test").glob("*/*")) or sorted(folder.glob("*/*"))
        for place in np.unique(np.linspace(0, len(files) - 1, FOREIGN).round().astype(int)):
            pixels.append(resize_to_cover(read_image(files[place]), size.height, size.width, size.interpolation))
    return evaluation_batch(pixels, start.source.input)


def source_classes(bench: Workbench, start: Opened) -> list[dict[str, Any]]:
    """What each class looks like to the original network, on test images, which train and choose nothing.

    share: of the class's images whose likeliest source class is the class's most frequent one, which is named.
    top: mean probability of the likeliest source class. Both None for a class without test images.
    """
    logits = torch.from_numpy(np.concatenate(list(bench.source_logits("test")))).double()
    top, likeliest = (found.numpy() for found in logits.softmax(dim=1).max(dim=1))
    labels, rows = bench.store.images.labels["test"], []
    for number, name in enumerate(start.dataset.classes):
        own = labels == number
        row: dict[str, Any] = {
            "class": name,
            "images": int(own.sum()),
            "share": None,
            "top": None,
            "source_class": None,
        }
        if own.any():
            kinds, counts = np.unique(likeliest[own], return_counts=True)
            row |= {"share": float(counts.max() / own.sum()), "top": float(top[own].mean())}
            row["source_class"] = start.source.classes[int(kinds[counts.argmax()])]
        else:
            row |= {"share": None, "top": None, "source_class": None}
        rows.append(row)
    return rows
