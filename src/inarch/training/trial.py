"""What one training run is: values only, so that a trial can be named, compared, stored and repeated."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from inarch.data import Augmentation
from inarch.errors import UsageError
from inarch.features.plan import PRECISIONS
from inarch.network.grafts import Configuration

OPTIMISERS = ("sgd", "adamw")
BALANCES = ("none", "loss", "sampler")
# The factor on a classifier's initial weights that leaves them as PyTorch draws them.
PYTORCH_START = 1.0
# What trials were before these settings existed: a fresh view every epoch, and nothing rounded.
BEFORE: dict[str, Any] = {"views": 0, "stored_precision": "fp32", "classifier_start": PYTORCH_START}


@dataclass(frozen=True)
class TrainingSettings:
    """What all trials of a study share.

    epochs: passes over the training images. batch_size: images a step. weight_decay: for every trained parameter.
    warmup: share of all steps with a linearly rising rate, then cosine. label_smoothing: from 0 to 1.
    precision: of what trains. frozen_precision: of passes through frozen stages. stored_precision: of what these hand
    over. views: of each training image, taken in turn where something is frozen (0: a fresh one every epoch).
    mixup: alpha, where 0 mixes nothing (`training/mixing.py`). ema: decay of the moving average of the weights, where 0
    averages nothing (`training/averages.py`). classifier_start: factor on the initial weights of the new classifier, as
    PyTorch draws them. It is so small that at first the classifier says nothing: features of networks without
    normalisation may be large, and old layers must not follow what it says by chance. Zeros, as in Kolesnikov et al.,
    "Big Transfer" (ECCV 2020, arXiv 1912.11370), would leave old layers without a gradient in the first step, by which
    auto-rgn weighs them.
    """

    epochs: int
    batch_size: int = 32
    optimiser: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.1
    label_smoothing: float = 0.1
    balance: str = "none"
    precision: str = "fp32"
    frozen_precision: str = "fp32"
    views: int = 8
    stored_precision: str = "bf16"
    augmentation: Augmentation = field(default_factory=Augmentation)
    mixup: float = 0.0
    ema: float = 0.0
    classifier_start: float = 0.01

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 2), ("views", 0)):
            if getattr(self, name) < low:
                raise UsageError(f"{name} is {getattr(self, name)}.", f"Give at least {low}.")
        for name, known in (
            ("optimiser", OPTIMISERS), ("balance", BALANCES), ("precision", PRECISIONS),
            ("frozen_precision", PRECISIONS), ("stored_precision", PRECISIONS),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise UsageError(f"{name} is '{getattr(self, name)}'.", f"Choose one of: {', '.join(known)}.")
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"label_smoothing is {self.label_smoothing}.", "Give a number from 0 to below 1.")
        if not 0 <= self.mixup < math.inf:
            raise UsageError(f"mixup is {self.mixup}.", "Give alpha, such as 0.2, or 0 for none.")
        if not 0 <= self.classifier_start < math.inf:
            raise UsageError(
                f"classifier_start is {self.classifier_start}.", "Give 0.01, or 1 for PyTorch's initial weights."
            )
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema is {self.ema}.", "Give a decay below 1, such as 0.99, or 0 for no average.")

    @property
    def distinct_views(self) -> int:
        """How many views of an image a trial sees in which something is frozen."""
        return min(self.views or self.epochs, self.epochs)

    def to_json(self) -> dict[str, Any]:
        """JSON that names them; what came later is left out where it is as before, so that trials keep their names."""
        before = {"mixup": 0.0, "ema": 0.0, "classifier_start": PYTORCH_START}
        values = {name: value for name, value in asdict(self).items() if before.get(name) != value}
        return values | {"augmentation": self.augmentation.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingSettings:
        known = BEFORE | dict(values)
        return cls(**known | {"augmentation": Augmentation.from_json(known["augmentation"])})


@dataclass(frozen=True)
class Trial:
    """One training run to do.

    cut: stages frozen. learning_rate: of the old layers, 0 where none of them trains. seed: decides initial weights,
    order and views. settings: see `TrainingSettings`. method: its name. strength: factor on what the method adds to
    plain fine-tuning, 1 as in its paper. shots: images a class of the draw of the training split that its seed decides,
    0 for all that there are.
    """

    configuration: Configuration
    cut: int
    method: str
    learning_rate: float
    new_layer_learning_rate: float
    seed: int
    settings: TrainingSettings
    strength: float = 1.0
    shots: int = 0

    @property
    def views(self) -> int:
        """Views that its epochs take in turn; 0: a fresh one every epoch, as where nothing is frozen to be stored."""
        return self.settings.views if self.cut else 0

    def __str__(self) -> str:
        """In a few words, for people."""
        old = f", old layers {self.learning_rate:g}" if self.learning_rate else ""
        method = "" if self.method == "fine-tuning" else f", {self.method}"
        rates = f"(rates: new layers {self.new_layer_learning_rate:g}{old})"
        return f"{self.configuration}{method}, cut {self.cut} {rates}"

    def to_json(self) -> dict[str, Any]:
        # What a trial may have beyond the first fields is left out where it has its default: keys of older ones stay.
        values = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) != f.default}
        return values | {"configuration": self.configuration.to_json(), "settings": self.settings.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Trial:
        parts = {
            "configuration": Configuration.from_json(values["configuration"]),
            "settings": TrainingSettings.from_json(values["settings"]),
        }
        return cls(**(values | parts))

    @cached_property
    def key(self) -> str:
        """A name that equal trials share and different ones do not."""
        return digest(self.to_json())


def digest(values: Any) -> str:
    """A short hexadecimal name of JSON values."""
    text = json.dumps(values, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
