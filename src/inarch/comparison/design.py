"""Who is compared, and with which trials each is tuned: pure functions of the options and of what was found so far.

Every contestant, a method with a graft, is tuned with the same number of trials on one draw of training data: rates,
cut, harmonising and, where the method has one, its strength. The first trial has the defaults; in the others every
level of every factor comes about equally often, in an order that the seed decides (a Latin hypercube design: McKay,
Beckman and Conover, Technometrics 21, 1979; why not a grid: Bergstra and Bengio, JMLR 13, 2012, "Random search"). The
best on validation is then trained with all epochs on further draws, one a seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from inarch.methods import method_class
from inarch.network.grafts import Configuration
from inarch.search.rounds import with_seed
from inarch.search.space import MULTIPLES, TRADITIONAL, Result, Space, Track, best_result
from inarch.training.trial import Trial

REFERENCE = "traditional"
# Ratios of the old layers' rate to that of *replace*'s new layers, at the same multiple. The first is that of "Growing
# a Brain" (arXiv 1907.07844), where new layers learn ten times as fast.
RATIOS = (0.1, 0.01, 1.0)
# Traditional fine-tuning has no more settings than these; what it is compared with must not be tuned with more trials.
MOST_TRIALS = len(MULTIPLES) * len(RATIOS)
# Of what a method adds to plain fine-tuning, as multiples of its paper's default.
STRENGTHS = (1.0, 0.1, 10.0)
Level = TypeVar("Level")


@dataclass(frozen=True)
class Contestant:
    """What is tuned and compared as one. cuts: those that it may stand at; the first level of everything is the
    default."""

    name: str
    method: str
    configurations: tuple[Configuration, ...]
    cuts: tuple[int, ...]
    strengths: tuple[float, ...] = (1.0,)


def contestants(space: Space) -> list[Contestant]:
    """Traditional fine-tuning of all layers, which all others are compared with, and each method with each graft.

    `space.proposal` has a track for each combination of method and configuration.
    """
    groups: dict[tuple[str, str], list[Track]] = {}
    for track in space.proposal:
        groups.setdefault((track.method, track.configuration.graft), []).append(track)
    found = [Contestant(REFERENCE, space.baseline.method, (TRADITIONAL,), (0,))]
    for (method, graft), tracks in groups.items():
        kind, configurations = method_class(method), tuple(track.configuration for track in tracks)
        cuts = (space.deepest(configurations[0]),) if kind.deepest_only else space.coarse_cuts(tracks[0])
        strengths = STRENGTHS if kind.strength_of else (1.0,)
        found.append(Contestant(f"{method}, {graft}", method, configurations, cuts, strengths))
    return found


def tuning(contestant: Contestant, space: Space, number: int) -> list[Trial]:
    """`number` different trials on the draw of the search's seed; fewer where there are no more."""
    random = np.random.Generator(np.random.Philox(key=space.seed))
    factors = [
        _levels(levels, 8 * number, random)
        for levels in (contestant.configurations, contestant.cuts, MULTIPLES, RATIOS, contestant.strengths)
    ]
    found: dict[str, Trial] = {}
    for configuration, cut, multiple, ratio, strength in zip(*factors, strict=True):
        track = Track(configuration, contestant.method)
        old = space.old_layer_rate(ratio, multiple)
        trial = space.trial(track, min(cut, space.deepest(configuration)), old=old, multiple=multiple)
        trial = trial if strength == trial.strength else replace(trial, strength=strength)
        found.setdefault(trial.key, trial)
        if len(found) == number:
            break
    return list(found.values())


def _levels(levels: Sequence[Level], number: int, random: np.random.Generator) -> list[Level]:
    """The default first, then all levels in a random order, again and again."""
    order = [levels[0]]
    while len(order) < number:
        order += [levels[i] for i in random.permutation(len(levels))]
    return order[:number]


def tuned(contestant: Contestant, space: Space, number: int, history: Mapping[str, Result]) -> Trial | None:
    """The best of the contestant's trials on validation, with all epochs; None where none succeeded."""
    results = [history[t.key] for t in tuning(contestant, space, number) if t.key in history]
    best = best_result(r for r in results if r.accuracy >= 0)
    return space.in_full(best.trial) if best else None


def draws(space: Space, trial: Trial) -> list[Trial]:
    """The trial on every draw that is compared; the one it was tuned on is none of them."""
    return [with_seed(trial, space.seed + 1 + number) for number in range(space.seeds)]


def work(space: Space, number: int, history: Mapping[str, Result]) -> Iterator[tuple[str, Trial]]:
    """What is still to be trained of one size of draw, in order, with the name of its part; from results so far.

    First all are tuned, then draw by draw: a comparison that is cut short has compared all alike.
    """
    everybody = contestants(space)
    wanted = [trial for c in everybody for trial in tuning(c, space, number) if trial.key not in history]
    yield from (("tuning", trial) for trial in wanted)
    if wanted:
        return
    best = [trial for c in everybody if (trial := tuned(c, space, number, history))]
    for place in range(space.seeds):
        for trial in (draws(space, found)[place] for found in best):
            if trial.key not in history:
                yield f"draw {place + 1} of {space.seeds}", trial


def expected(space: Space, number: int, history: Mapping[str, Result]) -> list[Trial]:
    """Everything that is still to be trained; where the best is not known yet, the default stands for it."""
    found: dict[str, Trial] = {}  # contestants may share a trial
    for contestant in contestants(space):
        trials = tuning(contestant, space, number)
        best = tuned(contestant, space, number, history)
        if best is None:
            if all(t.key in history for t in trials):
                continue  # none of them could be trained
            best = space.in_full(trials[0])
        found |= {t.key: t for t in (*trials, *draws(space, best)) if t.key not in history}
    return list(found.values())
