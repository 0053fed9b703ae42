"""What a study may try: tracks, each a configuration with the cuts it may stand at, and the rates to search."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import product

from inarch.network.grafts import Configuration, graft_class
from inarch.results.statistics import accuracy_standard_error
from inarch.training.trial import TrainingSettings, Trial

# Ratios of the old layers' rate to the range test's for the new classifier of traditional fine-tuning, half a power of
# ten apart: what new layers bear differs by a factor of more than 100 between grafts, what old ones bear hardly does
# (docs/lab-notebook.md). Comparing begins with the usual one.
RATIOS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
USUAL_RATIO = 1.0
# Multiples of the rate found by the range test: every track tries the first three where only new layers train, which
# is cheap, and stands there with the best of them; the linear probe, which has no cuts to search, tries all.
MULTIPLES = (1.0, 1 / 3, 3.0)
PROBE_MULTIPLES = (*MULTIPLES, 1 / 10, 10.0)
# Those for new layers behind old ones that learn: with these, no more than the range test found was ever of use, and
# often less (docs/lab-notebook.md).
BESIDE_OLD_LAYERS = (1.0, 1 / 3)

TRADITIONAL = Configuration("replace", "none")

# How a study searches. Both compare everything with one seed and confirm the best with seeds of their own:
# halving      with a part of the epochs (successive halving: Jamieson and Talwalkar, AISTATS 2016, arXiv 1502.07943);
#              first the variants of a graft are thinned out, then the grafts, and the best is trained in full
# exhaustive   with all epochs, every track at every cut: what shorter searches are judged by
SEARCHES = ("halving", "exhaustive")
# With a quarter of the epochs, rates and cuts come out in the wrong order (docs/lab-notebook.md).
PARTS = 2


@dataclass(frozen=True)
class Track:
    """A configuration trained by a method. cuts: those it is restricted to, or none for a search over all of them."""

    configuration: Configuration
    method: str
    cuts: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Result:
    """What the search sees of a finished trial: validation accuracy and log loss; a failed one has accuracy -1."""

    trial: Trial
    accuracy: float
    log_loss: float

    @property
    def merit(self) -> tuple[float, float, int]:
        """Higher is better: accuracy, then lower log loss, then the deeper cut."""
        return self.accuracy, -self.log_loss, self.trial.cut


def best_result(results: Iterable[Result]) -> Result | None:
    """The one of the highest merit."""
    return max(results, key=lambda result: result.merit, default=None)


FAILED = -1.0

History = Mapping[str, Result]
"""Results by the key of their trial."""

Pair = tuple[float, float]
"""Ratio of the old layers' rate to the range test's for a new classifier, and the multiple of their own range test's
rate at which new layers learn beside them."""


@dataclass(frozen=True)
class Space:
    """Everything that fixes the trials of a study, apart from what they find.

    stages: of the source network, the classification layer last. proposal: tracks that may be chosen. rates: of new
    layers for each configuration, from its range test; traditional fine-tuning's among them. validation: number of
    images on which results are, by which their standard error goes; 0 where they are taken for exact. guessing: the
    accuracy that always the most frequent class would have on them. parts: a trial of the halving search has one part
    in so many of the epochs. every_cut_counts: for estimates, finer cuts are looked for however little the coarse ones
    differ.
    """

    stages: int
    proposal: tuple[Track, ...]
    settings: TrainingSettings
    rates: Mapping[Configuration, float]
    seed: int = 0
    seeds: int = 3
    search: str = "halving"
    shots: int = 0
    validation: int = 0
    guessing: float = 0.0
    parts: int = PARTS
    every_cut_counts: bool = False
    # The search asks for the same few trials, and their keys, again and again.
    _trials: dict[tuple[Track, int, float | None, float, bool], Trial] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    # For the same reason: the best pair of rates by the accuracies and log losses that it followed from.
    best_pairs: dict[tuple[tuple[float, float] | None, ...], Pair] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def exhaustive(self) -> bool:
        return self.search == "exhaustive"

    @cached_property
    def search_settings(self) -> TrainingSettings:
        """Those of the search's own trials: with fewer epochs where it is a halving one."""
        if self.exhaustive:
            return self.settings
        return replace(self.settings, epochs=math.ceil(self.settings.epochs / self.parts))

    @property
    def baseline(self) -> Track:
        """Replace without harmonising over every cut: traditional fine-tuning and the linear probe are two of them."""
        return Track(TRADITIONAL, "fine-tuning")

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The proposal, and the baseline where the proposal does not hold it already."""
        return self.proposal if self.baseline in self.proposal else (*self.proposal, self.baseline)

    def deepest(self, configuration: Configuration) -> int:
        """The cut at which no old layer trains."""
        return self.stages if graft_class(configuration.graft).keeps_layer else self.stages - 1

    def cuts(self, track: Track) -> tuple[int, ...]:
        """Every cut that the track may stand at, ascending."""
        every = range(self.deepest(track.configuration) + 1)
        return tuple(every) if track.cuts is None else tuple(k for k in every if k in track.cuts)

    def trained_cuts(self, track: Track) -> tuple[int, ...]:
        """Those at which old layers train."""
        return tuple(cut for cut in self.cuts(track) if cut < self.deepest(track.configuration))

    def coarse_cuts(self, track: Track) -> tuple[int, ...]:
        """The cuts that are looked at first, in this order; all where the track is restricted or the search exhaustive.

        The shallowest comes first, since the search may leave it out; then from the deepest, which is the cheapest.
        """
        cuts = self.cuts(track)
        if track.cuts is None and not self.exhaustive:
            deepest = cuts[-1]
            cuts = tuple(sorted({round(deepest * quarter / 4) for quarter in range(5)}))
        return (cuts[0], *cuts[:0:-1])

    def standard_error(self, accuracy: float) -> float:
        """Of an accuracy on the validation images."""
        return accuracy_standard_error(accuracy, self.validation) if self.validation else 0.0

    @cached_property
    def for_estimates(self) -> Space:
        """The same for imagined results, which are all equal."""
        return replace(self, every_cut_counts=True, guessing=0.0)

    @cached_property
    def middle(self) -> int:
        """Of the baseline's cuts at which old layers train, that nearest to half the depth; if none, its deepest."""
        deepest = self.deepest(TRADITIONAL)
        return min(self.trained_cuts(self.baseline), key=lambda cut: abs(cut - round(deepest / 2)), default=deepest)

    def trial(
        self, track: Track, cut: int, *, old: float | None = None, multiple: float = 1.0, in_full: bool = False
    ) -> Trial:
        """The search's trial of a track at a cut, `in_full` with all epochs whatever the search.

        old: the rate of its old layers, if None that at the usual ratio; left out where none of them trains.
        """
        wanted = (track, cut, old, multiple, in_full)
        if wanted not in self._trials:
            new = float(f"{self.rates[track.configuration] * multiple:.6g}")
            old = self.old_layer_rate(USUAL_RATIO) if old is None else old
            settings = self.settings if in_full else self.search_settings
            self._trials[wanted] = Trial(
                track.configuration, cut, track.method, old if cut < self.deepest(track.configuration) else 0.0, new,
                self.seed, settings, shots=self.shots,
            )  # fmt: skip
        return self._trials[wanted]

    @cached_property
    def rate_trials(self) -> dict[Pair, Trial]:
        """Those by which pairs of rates are compared: replace without harmonising at its middle cut."""
        return {pair: self.at_rates(self.middle, pair) for pair in product(RATIOS, BESIDE_OLD_LAYERS)}

    def at_rates(self, cut: int, pair: Pair) -> Trial:
        """Replace without harmonising at a cut, with a pair of rates."""
        ratio, multiple = pair
        return self.trial(self.baseline, cut, old=self.old_layer_rate(ratio), multiple=multiple)

    def old_layer_rate(self, ratio: float, multiple: float = 1.0) -> float:
        """That at this ratio to the rate of *replace*'s new layers, at this multiple of their range test's."""
        new = float(f"{self.rates[TRADITIONAL] * multiple:.6g}")
        return float(f"{new * ratio:.6g}")

    def in_full(self, trial: Trial) -> Trial:
        """A trial of the search with all epochs: what is confirmed, tested and delivered."""
        return with_settings(trial, self.settings)

    def as_searched(self, trial: Trial) -> Trial:
        """A trial with the epochs of the search."""
        return with_settings(trial, self.search_settings)

    def probe(self, track: Track, multiple: float) -> Trial:
        """A trial of the track at its deepest cut.

        Where only new layers train, which takes seconds, it has all epochs.
        """
        deepest = self.cuts(track)[-1]
        return self.trial(track, deepest, multiple=multiple, in_full=deepest == self.deepest(track.configuration))

    def probes(self, track: Track) -> tuple[Trial, ...]:
        """The trials that stand for a track before any other: at several multiples where only new layers train."""
        alone = self.cuts(track)[-1] == self.deepest(track.configuration)
        return tuple(self.probe(track, multiple) for multiple in (MULTIPLES if alone else MULTIPLES[:1]))


@lru_cache(maxsize=10_000)  # asked for again and again, and every new trial would work out its key anew
def with_settings(trial: Trial, settings: TrainingSettings) -> Trial:
    return replace(trial, settings=settings)
