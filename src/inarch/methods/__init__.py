"""Methods: how the target network is trained. One final class a file, listed in `METHODS` and in `inarch.catalogue`."""

from __future__ import annotations

from inarch.catalogue import known
from inarch.methods.auto_rgn import AutoRGN
from inarch.methods.bi_tuning import BiTuning
from inarch.methods.bss import BSS
from inarch.methods.co_tuning import CoTuning
from inarch.methods.delta import DELTA
from inarch.methods.fine_tuning import FineTuning
from inarch.methods.gradual import Gradual
from inarch.methods.l2_sp import L2SP
from inarch.methods.layer_decay import LayerDecay
from inarch.methods.linear_probe import LinearProbe
from inarch.methods.lora import LoRA
from inarch.methods.lp_ft import LPFT
from inarch.methods.lwf import LwF
from inarch.methods.method import Method, Mixture, ParameterGroup, Rates, Step, Task, over_labels, trained_state
from inarch.methods.rifle import RIFLE
from inarch.methods.soup import Soup
from inarch.methods.stochnorm import StochNorm
from inarch.methods.subtuning import SubTuning
from inarch.methods.wise_ft import WiSEFT

METHODS: tuple[type[Method], ...] = (
    FineTuning,
    LinearProbe,
    LPFT,
    Gradual,
    LayerDecay,
    L2SP,
    DELTA,
    BSS,
    StochNorm,
    CoTuning,
    LwF,
    RIFLE,
    BiTuning,
    AutoRGN,
    SubTuning,
    LoRA,
    WiSEFT,
    Soup,
)

__all__ = [
    "METHODS",
    "Method",
    "Mixture",
    "ParameterGroup",
    "Rates",
    "Step",
    "Task",
    "make_method",
    "method_class",
    "over_labels",
    "trained_state",
]


def method_class(name: str) -> type[Method]:
    """The method of that name; an unknown one is a `UsageError`."""
    wanted = known(name)
    return next(method for method in METHODS if method.name == wanted)


def make_method(name: str, strength: float = 1.0) -> Method:
    """The method of that name, `strength` times as strong as by default; an unknown name is a `UsageError`."""
    return method_class(name)().scaled(strength)
