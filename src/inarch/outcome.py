"""From records to `results.json`: the choice, its test, the comparisons, and what they say in plain words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np

from inarch.data import DataSet
from inarch.methods import method_class
from inarch.network.grafts import Configuration, graft_class
from inarch.network.stages import Stages, cut_json
from inarch.plural import counted
from inarch.report.words import GRAFTS, percent, points
from inarch.results.metrics import mean_metrics
from inarch.results.statistics import accuracy_interval, accuracy_standard_error, holm, paired_difference
from inarch.search.choice import Candidate
from inarch.search.race import Race
from inarch.search.rounds import next_round
from inarch.search.space import History, Result, Space
from inarch.search.standing import track_results
from inarch.training.trial import Trial

FORMAT = 1
BASELINES = ("traditional", "linear_probe", "replace_best_cut")
NAMES = {"traditional": "traditional fine-tuning", "linear_probe": "the linear probe"}
SMALL_VALIDATION = 1000


@final
class Outcome:
    """What a study found. `probabilities` gives those [images, classes] of a trained trial on the test split."""

    def __init__(
        self, space: Space, history: History, staged: Stages, dataset: DataSet, test_labels: np.ndarray,
        probabilities: Callable[[Trial], np.ndarray],
    ) -> None:  # fmt: skip
        self._space, self._history, self._staged = space, history, staged
        self._dataset, self._labels, self._probabilities = dataset, test_labels, probabilities
        race = Race(space, history)
        chosen = race.choice()
        assert chosen is not None, "a study ends with at least one candidate of its proposal"
        self.chosen = chosen
        # Where the search was cut short or restricted, one side may have been tried where the other was not.
        self._done = next_round(space, history) is None and race.complete() and not any(race.pending())
        self._limits = "" if self._done else "Time was too short to tune both alike"
        if any(track.cuts is not None or track.method != space.baseline.method for track in space.proposal):
            self._limits = self._limits or "The search was restricted, so both were not tuned alike"
        self._roles = race.found()
        self._sides = race.sides()

    def to_json(self) -> dict[str, Any]:
        """Everything that equal studies share; the caller adds source, cost and what was left out."""
        kept = self._kept_layer()
        return {
            "format": FORMAT,
            "sentence": self._sentence(kept),
            "dataset": self._dataset_json(),
            "chosen": self._chosen_json(),
            "curve": self._curve(),
            "test": self._test(),
            "kept_layer": kept,
            "paired": self._paired(),
            "validation_standard_error": self._validation_standard_error(),
            "warnings": self._warnings(),
        }

    def compared(self) -> dict[str, Candidate]:
        """The choice and its baselines by role; a baseline that is the choice itself is left out."""
        others = {role: self._roles[role] for role in BASELINES if role in self._roles}
        return {"chosen": self.chosen} | {r: c for r, c in others.items() if c.trial.key != self.chosen.trial.key}

    def cut_json(self, cut: int) -> dict[str, Any]:
        return cut_json(self._staged, cut)

    def place(self, found: Candidate) -> dict[str, Any]:
        """Configuration and cut, as `results.json` names them."""
        return found.trial.configuration.to_json() | {"cut": self.cut_json(found.trial.cut)}

    def _dataset_json(self) -> dict[str, Any]:
        data = self._dataset
        return {
            "classes": list(data.classes),
            "counts": {split: len(data.split(split)) for split in ("train", "validation", "test")},
            "made_splits": list(data.made),
            "digest": data.digest,
            "set_aside": [{"path": s.path, "reason": s.reason} for s in data.set_aside],
            "warnings": list(data.warnings),
        }

    def _chosen_json(self) -> dict[str, Any]:
        trial = self.chosen.trial
        return self.place(self.chosen) | {
            "method": trial.method,
            "learning_rate": trial.learning_rate,
            "new_layer_learning_rate": trial.new_layer_learning_rate,
            "seeds": self._seeds(self.chosen),
            "confirmed": self.chosen.confirmed,
            "validation_accuracy": self.chosen.accuracy,
        }

    def _seeds(self, found: Candidate) -> list[int]:
        return [r.trial.seed for r in found.results]

    def _curve(self) -> list[dict[str, Any]]:
        """The best of each configuration and method at each tried cut, as the search saw it with its own seed.

        Two tracks may differ in nothing but the cuts that they are restricted to.
        """
        best: dict[tuple[Configuration, str, int], Result] = {}
        for track in self._space.tracks:
            for result in sorted(track_results(track, self._space, self._history), key=lambda r: r.trial.cut):
                place = (result.trial.configuration, result.trial.method, result.trial.cut)
                best[place] = max(best.get(place, result), result, key=lambda r: r.merit)
        return [
            configuration.to_json()
            | {
                "method": method,
                "cut": self.cut_json(cut),
                "validation_accuracy": result.accuracy,
                "learning_rate": result.trial.learning_rate,
                "new_layer_learning_rate": result.trial.new_layer_learning_rate,
                "epochs": result.trial.settings.epochs,
                "seeds": [result.trial.seed],
            }
            for (configuration, method, cut), result in best.items()
        ]

    def _test(self) -> dict[str, Any]:
        found = {"chosen": self._tested(self.chosen)}
        first = Candidate(self.chosen.trial, self.chosen.results[:1], self.chosen.confirmed)
        found["model"] = self._tested(first)
        return found | {role: self._tested(c) for role, c in self._roles.items()}

    def _tested(self, found: Candidate) -> dict[str, Any]:
        interval = accuracy_interval(self._correct(found))
        return mean_metrics([self._probabilities(r.trial) for r in found.results], self._labels) | {
            "interval95": [interval.low, interval.high],
            "interval_of": interval.of,
            "seeds": self._seeds(found),
            "confirmed": found.confirmed,
            "failed_seeds": found.failed,
            **self.place(found),
            "method": found.trial.method,
        }

    def _correct(self, found: Candidate) -> np.ndarray:
        """Booleans [seeds, test images]."""
        return np.stack([self._probabilities(r.trial).argmax(axis=1) == self._labels for r in found.results])

    def _paired(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for role in BASELINES:
            other = self._roles.get(role)
            if other is None or other.trial.key == self.chosen.trial.key:
                continue
            pair = paired_difference(self._correct(self.chosen), self._correct(other))
            rows.append(
                {
                    "against": role,
                    "difference": pair.difference,
                    "interval95": list(pair.interval95),
                    "p": pair.p,
                    "of": pair.of,
                    "searched_in_full": self._done,
                }
            )
        for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
            row["p_holm"] = corrected
        return rows

    def _kept_layer(self) -> dict[str, Any]:
        """The best that keeps the layer against the best that replaces it, each picked by validation."""
        kept, replaced = self._sides
        if kept is None or replaced is None:
            keeps = kept is None
            asked = any(graft_class(t.configuration.graft).keeps_layer is keeps for t in self._space.tracks)
            reason = f"No configuration that {'keeps' if keeps else 'replaces'} the layer was "
            reason += "trained in full." if asked else "tried."
            return {"kept": None, "replaced": None, "reason": reason}
        pair = paired_difference(self._correct(kept), self._correct(replaced))
        return {
            "kept": self.place(kept),
            "replaced": self.place(replaced),
            "difference": pair.difference,
            "interval95": list(pair.interval95),
            "p": pair.p,
            "of": pair.of,
            "tuned_alike": not self._limits,
            "sentence": kept_sentence(pair.difference, pair.interval95, pair.of, self._limits),
        }

    def _warnings(self) -> list[str]:
        """What must be known before the accuracy is quoted."""
        return [*self._without_effect(), *self._no_better_than_one_answer()]

    def _without_effect(self) -> list[str]:
        trial = self.chosen.trial
        kind = method_class(trial.method)
        plain = trial.method == self._space.baseline.method or kind.deepest_only
        if trial.learning_rate or plain or kind.acts_on_new_layers:
            return []
        return [
            f"At the chosen cut only new layers train, where {trial.method} has nothing to act on: the network is what "
            "plain fine-tuning of them gives."
        ]

    def _no_better_than_one_answer(self) -> list[str]:
        images = np.bincount(self._labels)
        majority = int(images.argmax())
        better = paired_difference(self._correct(self.chosen), (self._labels == majority)[None])
        if better.interval95[0] > 0:
            return []
        return [
            "The choice is not clearly better than one answer for all images: to name "
            f"{self._dataset.classes[majority]!r} every time would be right on {percent(images.max() / images.sum())} "
            "of the test images."
        ]

    def _validation_standard_error(self) -> float:
        return accuracy_standard_error(self.chosen.accuracy, len(self._dataset.validation))

    def _sentence(self, kept: dict[str, Any]) -> str:
        accuracy = float(self._correct(self.chosen).mean())
        interval = accuracy_interval(self._correct(self.chosen))
        cut = self.chosen.trial.cut
        first = "first stage" if cut == 1 else f"first {cut} stages"
        frozen = f"the {first} frozen (up to {self.cut_json(cut)['name']})" if cut else "nothing frozen"
        configuration = self.chosen.trial.configuration
        text = (
            f"Chosen: {configuration} ({GRAFTS[configuration.graft]}) with {frozen}; "
            f"it is right on {percent(accuracy)} of the {counted(len(self._labels), 'test image')} "
            f"(95 % interval {percent(interval.low)} to {percent(interval.high)}). "
        )
        traditional = self._roles.get("traditional")
        if traditional and traditional.trial.key == self.chosen.trial.key:
            text += "That is traditional fine-tuning itself. "
        for role in ("traditional", "linear_probe"):
            if role not in self._roles:
                text += f"Nothing is compared with {NAMES[role]}: it failed at every rate. "
        if not self.chosen.confirmed:
            failed = "It could not be trained again with other seeds: each time it failed. "
            text += failed if self.chosen.failed else "Time was too short to train it again with other seeds. "
        text += str(kept.get("sentence") or kept["reason"])
        images = len(self._dataset.validation)
        if images < SMALL_VALIDATION:
            text += (
                f" The choice was made on {counted(images, 'validation image')}, where an accuracy has a standard "
                f"error of {100 * self._validation_standard_error():.1f} points: differences of that size can be "
                "chance."
            )
        return text


def kept_sentence(difference: float, interval: tuple[float, float], of: str, limits: str = "") -> str:
    """What came out for the classification layer, in plain words; `limits` says why the two were not tuned alike."""
    low, high = interval
    size = f"{points(difference)} points of test accuracy (95 % interval {points(low)} to {points(high)}, over {of})"
    if limits:
        return f"{limits}; so far keeping the classification layer gives {size} against replacing it."
    if low > 0:
        return f"Keeping the classification layer helped here: {size} against replacing it."
    if high < 0:
        return f"Keeping the classification layer did not help here, it cost: {size} against replacing it."
    return f"Keeping the classification layer did not help here measurably: {size} against replacing it."
