"""Figures as a reader sees them: percentages, points of difference, p-values, names of configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from inarch import catalogue
from inarch.plural import counted

ROLES: Final = {
    "chosen": "The choice",
    "model": "The delivered model (first seed of the choice)",
    "traditional": "Traditional fine-tuning of all layers",
    "linear_probe": "Linear probe (nothing old trained)",
    "replace_best_cut": "Best that replaces the layer",
    "retain_best_cut": "Retain, at its own best cut",
    "deepen_best_cut": "Deepen, at its own best cut",
    "joined_best_cut": "Joined, at its own best cut",
}
# What each graft does with the classification layer.
GRAFTS: Final = {entry.name: entry.line for entry in catalogue.GRAFTS}
KEEPING: Final = {entry.name for entry in catalogue.GRAFTS if entry.keeps_layer}
_SHORT_ROLES: Final = {
    "chosen": "the choice",
    "traditional": "traditional fine-tuning",
    "linear_probe": "linear probe",
    **{f"{graft}_best_cut": f"{graft}, best cut" for graft in GRAFTS},
    "replace_best_cut": "best that replaces",
}


def role(name: str) -> str:
    """The role of a tested configuration in words; an unknown one keeps its name."""
    own = name.replace("_best_cut", ", at its own best cut").replace("_", " ")
    return ROLES.get(name, own)


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def percent_range(interval: list[float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def points(difference: float) -> str:
    """A difference of fractions in percentage points, always with a sign; minus zero is not one."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def points_range(interval: list[float]) -> str:
    return f"{points(interval[0])} to {points(interval[1])}"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def rate(value: float) -> str:
    return f"{value:.2g}"


def data_name(results: Mapping[str, Any]) -> str | None:
    """The name of the folder or manifest of images, as the recorded command has it; None where there is none."""
    command = results["cost"].get("command", [])
    return command[2] if len(command) > 2 and command[1] in ("fit", "compare") else None


def size(bytes_: float) -> str:
    """A number of bytes, in the unit in which it is readable."""
    for unit in ("bytes", "KiB", "MiB"):
        if bytes_ < 1024:
            return f"{bytes_:.4g} {unit}"
        bytes_ /= 1024
    return f"{bytes_:.4g} GiB"


def duration(seconds: float) -> str:
    """Whole seconds, with minutes and hours where there are any."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def configuration(place: Mapping[str, Any]) -> str:
    """A graft, its hidden layers and its harmonising: `deepen 512-256, l2`."""
    sizes = "-".join(map(str, place["hidden"]))
    graft = f"{place['graft']} {sizes}" if sizes else str(place["graft"])
    return graft if place["harmonise"] == "none" else f"{graft}, {place['harmonise']}"


def frozen(cut: Mapping[str, Any]) -> str:
    """What a cut freezes."""
    return "nothing" if cut["index"] == 0 else f"{counted(cut['index'], 'stage')}, up to {cut['name']}"


def plan_sentence(plan: Mapping[str, Any]) -> str:
    """An execution plan (`cost.environment.plan`) and what it gains."""
    layout = plan["memory_format"].replace("_", " ")
    gains = plan["gain"]
    frozen, trained = (f"{plan[name]}{_gain(gains[name])}" for name in ("frozen", "trained"))
    text = f"Execution plan: {layout}, frozen stages in {frozen}, trained ones in {trained}"
    again = _recomputed(plan.get("recomputed", 0)) + _captured(plan) + _side_by_side(plan.get("workers", 1))
    if None in (gains["frozen"], gains["trained"]):
        return f"{text}.{again}"
    if gains["frozen"] == gains["trained"] == 1.0:
        return f"{text}: nothing else that was measured is faster by a tenth.{again}"
    lighter = " It takes less memory than fp32." if plan["trained"] != "fp32" and gains["trained"] < 1 else ""
    return f"{text}, as measured against channels last in fp32.{lighter}{again}"


def _side_by_side(workers: int) -> str:
    """How many trials train at a time; nothing where it is one."""
    return f" {workers} trials train side by side, with their shares of the threads." if workers > 1 else ""


def _captured(plan: Mapping[str, Any]) -> str:
    if not plan.get("captured"):
        return ""
    gain = _gain(plan["gain"].get("captured"))
    return f" The GPU plays back training steps that were captured once, as CUDA graphs{gain}, which changes no result."


def _recomputed(stages: int) -> str:
    if not stages:
        return ""
    first = "the first stage" if stages == 1 else f"the first {stages} stages"
    return f" To take less memory, training computes activations of {first} twice, which changes no result."


def training_sentence(settings: Mapping[str, Any]) -> str | None:
    """What was added to the usual training, by the settings of trials; None where nothing was."""
    parts = []
    augmentation = settings.get("augmentation") or {}
    if augmentation.get("flip") == 0:
        parts.append("views that are never mirrored")
    if augmentation.get("operations"):
        operations = counted(augmentation["operations"], "operation")
        parts.append(f"views made by RandAugment ({operations} of magnitude {augmentation['magnitude']} of 30)")
    if settings.get("mixup"):
        parts.append(
            f"mixup (alpha {settings['mixup']:g}): pixels are mixed where nothing is frozen, else the activations at "
            "the cut, which is manifold mixup"
        )
    if settings.get("ema"):
        parts.append(
            f"a moving average of the weights (decay {settings['ema']:g}), which is what was validated, tested and kept"
        )
    return f"All trials, those of the baselines too, were trained with {'; '.join(parts)}." if parts else None


def _gain(gain: float | None) -> str:
    return "" if gain in (None, 1.0) else f" ({gain:.2g} times as fast)"


def setting(value: Any) -> str:
    """A recorded setting of any kind, on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {setting(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(setting(item) for item in value)
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def short_role(name: str) -> str:
    """A role in two or three words, for pictures."""
    return _SHORT_ROLES.get(name, name.replace("_", " "))


def verdict(interval: Sequence[float]) -> str:
    """What an interval of a difference says about it."""
    low, high = interval
    if low > 0:
        return "better, beyond chance"
    return "worse, beyond chance" if high < 0 else "could be chance"
