"""What the evidence run asks: its parts, and the trials of each chapter; pure functions of what was found so far.

A part is a data set, a source network and a number of images a class. Every part answers every question, chapter by
chapter. In most chapters contestants are tuned with the same number of trials on one draw, chosen on validation and
trained on further draws, exactly as `inarch compare` does it (`inarch.comparison.design`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from inarch.comparison.design import REFERENCE, Contestant, contestants, draws, tuned, tuning
from inarch.errors import UsageError
from inarch.methods import METHODS, make_method
from inarch.network.grafts import GRAFT_NAMES, Configuration, configurations
from inarch.network.layers import HARMONISERS
from inarch.network.stages import Stages
from inarch.options import require
from inarch.search.rounds import with_seed
from inarch.search.space import TRADITIONAL, Result, Space, Track
from inarch.training.trial import PYTORCH_START, TrainingSettings, Trial

# --- what is compared: the one place to extend; names that this version of Inarch does not have are passed over -------
KEEPING = ("retain", "deepen", "joined", "sharpened", "residual", "deepen-joined")
WITHOUT_LAYER = ("da-cnn", "wa-cnn", "dwa-cnn", "wwa-cnn", "head2toe")
# Grafts that are tuned and trained again with classifiers that begin as they do now.
STARTED = ("replace", "retain", "deepen", "joined", "residual", "deepen-joined", "da-cnn", "wa-cnn", "dwa-cnn")
# Ways to harmonise that tuning may choose between, and those that are compared for themselves.
CHOSEN_HARMONISE = ("none", "l2")
COMPARED_HARMONISE = ("none", "l2", "batch", "l2-1", "l2-10", "l2-matched")
USUAL_SIZE = (512,)
SIZES = ((128,), (2048,), (512, 512), (512, 512, 512))
RATE_SIZES = ((128,), (512,), (2048,))
# Multiples of the range test's rate, half a power of ten apart.
RATE_MULTIPLES = (0.01, 0.0316, 0.1, 0.316, 1.0, 3.16, 10.0)
# ----------------------------------------------------------------------------------------------------------------------

TRIALS = 8
# Of an image, in every trial of the run, whatever the default has become since it was begun.
VIEWS = 4
DRAWS = 5
# Curves over cuts and rates have more places, so each has fewer draws.
CURVE_DRAWS = 3
CHAPTERS = ("layer", "rates", "depth", "harmonise", "methods", "warning", "sizes", "kept", "starts")
# Chapters that go on from what others found.
NEEDS: dict[str, tuple[str, ...]] = {"depth": ("layer",), "warning": ("layer", "methods")}
# Those without which a question has no answer; the first one answers what the project is about.
QUESTIONS = CHAPTERS[:6]
MAIN = CHAPTERS[:1]
# Beginnings of `layer` with fewer contestants: how good each source really is, and the two sides of the main question.
BEGINNINGS = ("usual", "sides")
SOURCES_ALONE, SIDES_ALONE = BEGINNINGS[:1], BEGINNINGS[1:]
IN_DEPTH = ("replace", "retain", "deepen")

# What the rates of old layers are ratios of: the rate of traditional fine-tuning's new classifier. In chapters that do
# not name it they were ratios of each graft's own new layers' rate.
OLD_LAYERS = "traditional"

# Tuning has one part in so many of the epochs, as it had in all parts so far.
PARTS = 4

DATA = ("clothing", "landuse", "grocery")
# Sources, and the side of their images where it is smaller than what the network was trained on (224), for speed.
SOURCES: dict[str, int | None] = {
    "mobilenetv1_025_128": None, "squeezenet1_1": 128, "mobilenetv2_100": 128, "mobilenetv1_100": 128,
}  # fmt: skip
SHOTS = (5, 20, 0)

History = Mapping[str, Result]


@dataclass(frozen=True)
class Part:
    """A data set, a source network and images a class (0: all)."""

    data: str
    source: str
    shots: int

    @property
    def name(self) -> str:
        return f"{self.data}-{self.source}-{self.shots or 'all'}"


def first_parts() -> list[Part]:
    """Every data set, source and size at least once, as cheaply as that goes and about from cheap to dear."""
    small, squeeze, two, one = SOURCES
    return [
        Part("clothing", small, 5), Part("landuse", small, 5), Part("clothing", squeeze, 5),
        Part("clothing", small, 20), Part("clothing", two, 5), Part("grocery", small, 5), Part("clothing", one, 5),
        Part("landuse", small, 20), Part("clothing", small, 0),
    ]  # fmt: skip


def parts() -> list[Part]:
    """All parts, the first ones first, then those with few images a class."""
    rest = [Part(data, source, shots) for shots, source, data in product(SHOTS, SOURCES, DATA)]
    return list(dict.fromkeys([*first_parts(), *rest]))


def legs() -> list[tuple[Part, tuple[str, ...]]]:
    """The order of the run: all of the cheapest part, the main question in the other first parts (its two sides where
    all images are taken), how good every source is with the fewest images, then the other questions in the first parts,
    what these lack, and all others.
    """
    first, every = first_parts(), parts()
    return [
        (first[0], CHAPTERS),
        *((part, MAIN if part.shots else SIDES_ALONE) for part in first[1:]),
        *((part, SOURCES_ALONE) for part in every if part.shots == min(filter(None, SHOTS)) and part not in first),
        *((part, QUESTIONS) for part in first[1:]),
        *((part, CHAPTERS) for part in first),
        *((part, CHAPTERS) for part in every if part not in first),
    ]


@dataclass(frozen=True)
class Asked:
    """A contestant as it is asked for: all its configurations are tuned as one."""

    name: str
    graft: str
    method: str = "fine-tuning"
    harmonise: tuple[str, ...] = CHOSEN_HARMONISE
    hidden: tuple[int, ...] = USUAL_SIZE


def asked(chapter: str) -> list[Asked]:
    """The contestants of a chapter, traditional fine-tuning apart; for `depth` and `warning` those of others."""
    others = [method.name for method in METHODS if method.name != "fine-tuning"]
    sizes = ["-".join(map(str, size)) for size in SIZES]
    every = {
        "usual": [Asked("replace", "replace")],
        "sides": [Asked(graft, graft) for graft in ("replace", "retain", "deepen")],
        "layer": [Asked(graft, graft) for graft in ("replace", *KEEPING, *WITHOUT_LAYER)],
        "harmonise": [
            Asked(f"{graft}, {h}", graft, harmonise=(h,)) for graft in ("retain", "replace") for h in COMPARED_HARMONISE
        ],
        "methods": [Asked(method, "replace", method) for method in others],
        "kept": [Asked(f"{method}, retain", "retain", method) for method in others],
        "starts": [Asked(graft, graft) for graft in STARTED],
        "sizes": [Asked(f"deepen {name}", "deepen", hidden=size) for name, size in zip(sizes, SIZES, strict=True)],
    }
    return [a for a in every.get(chapter, []) if a.graft in GRAFT_NAMES and set(a.harmonise) <= set(HARMONISERS)]


def settings_of(chapter: str, settings: TrainingSettings) -> TrainingSettings:
    """What the trials of a chapter share, from what those of the run share: classifiers begin with PyTorch's initial
    weights, as when the run was begun, and as they do by default in `starts` alone."""
    start = TrainingSettings.classifier_start if chapter == "starts" else PYTORCH_START
    return replace(settings, classifier_start=start)


def tracks(one: Asked, staged: Stages) -> tuple[Track, ...]:
    """Its configurations with its method; none where the method makes no sense for the graft or the source."""
    found = []
    # Sizes are asked of deepen; other grafts with hidden layers have those of their papers.
    hidden = (one.hidden,) if one.graft == "deepen" else ()
    for configuration in configurations((one.graft,), one.harmonise, hidden):
        try:
            require(one.method, configuration, staged)
        except UsageError:
            continue
        found.append(Track(configuration, one.method))
    return tuple(found)


def everybody(chapter: str, space: Space, staged: Stages) -> list[Contestant]:
    """The contestants of a chapter, traditional fine-tuning first. The space's rates play no part."""
    found = [contestants(replace(space, proposal=()))[0]]
    for one in asked(chapter):
        if proposal := tracks(one, staged):
            found.append(replace(contestants(replace(space, proposal=proposal))[1], name=one.name))
    return found


def names(chapter: str, space: Space, staged: Stages) -> list[str]:
    """What is compared in a chapter."""
    if chapter == "rates":
        return [f"{c} x {multiple}" for c in rate_configurations() for multiple in RATE_MULTIPLES]
    if chapter == "depth":
        return list(IN_DEPTH)
    return [
        c.name for c in (_once_trained(space, staged) if chapter == "warning" else everybody(chapter, space, staged))
    ]


def rate_configurations() -> list[Configuration]:
    """Those whose new layers are trained alone, over a range of rates."""
    found = configurations(("replace", "retain"), CHOSEN_HARMONISE, (USUAL_SIZE,))
    return [*found, *(Configuration("deepen", "l2", size) for size in RATE_SIZES)]


def to_be_rated(chapter: str, space: Space, staged: Stages) -> list[Configuration]:
    """Every configuration that needs the rate of a range test in this chapter."""
    if chapter == "rates":
        return rate_configurations()
    some = [c for name in ("layer", "methods", chapter) for c in everybody(name, space, staged)]
    needed = some if chapter in ("depth", "warning") else everybody(chapter, space, staged)
    return list(dict.fromkeys([TRADITIONAL, *(configuration for c in needed for configuration in c.configurations)]))


def compared(some: Iterable[Contestant], space: Space, history: History) -> dict[str, list[Trial]]:
    """The trials on draws of every contestant that could be tuned."""
    best = {c.name: tuned(c, space, TRIALS, history) for c in some}
    return {name: draws(space, trial) for name, trial in best.items() if trial is not None}


def following(chapter: str, space: Space, staged: Stages, history: History) -> list[Trial]:
    """What comes next in a chapter: trials of one round, some of them perhaps trained; empty where all are.

    A round is the tuning of all contestants, or one draw of all that is compared. `warning` has no rounds of its own.
    """
    if chapter == "warning":
        return []
    if chapter == "rates":
        rounds = _by_draw(trials for _, _, trials in at_rates(space))
    elif chapter == "depth":
        rounds = _by_draw(trials for _, _, trials in at_cuts(space, staged, history))
    else:
        some = everybody(chapter, space, staged)
        first = [trial for c in some for trial in tuning(c, space, TRIALS)]
        if not all(t.key in history for t in first):
            return _different(first)
        rounds = _by_draw(compared(some, space, history).values())
    return next((_different(some) for some in rounds if any(t.key not in history for t in some)), [])


def at_rates(space: Space) -> list[tuple[Configuration, float, list[Trial]]]:
    """New layers alone, with all epochs: configuration, multiple of the range test's rate, and a trial a draw."""
    found = []
    for configuration in rate_configurations():
        track, deepest = Track(configuration, "fine-tuning"), space.deepest(configuration)
        for multiple in RATE_MULTIPLES:
            trial = space.trial(track, deepest, multiple=multiple, in_full=True)
            found.append((configuration, multiple, _on_draws(space, trial)))
    return found


def at_cuts(space: Space, staged: Stages, history: History) -> list[tuple[str, int, list[Trial]]]:
    """What tuning chose for a graft, at five cuts and at its own: name, cut, and a trial a draw.

    Where it chose to train no old layer, old layers at shallower cuts learn as in tuned traditional fine-tuning.
    """
    found = []
    chosen = {c.name: (c, tuned(c, space, TRIALS, history)) for c in everybody("layer", space, staged)}
    reference = chosen[REFERENCE][1]
    for name in IN_DEPTH:
        contestant, best = chosen.get(name, (None, None))
        if contestant is None or best is None or reference is None:
            continue
        old = best.learning_rate or reference.learning_rate
        deepest = space.deepest(best.configuration)
        for cut in sorted({*contestant.cuts, best.cut}):
            trial = replace(best, cut=cut, learning_rate=old if cut < deepest else 0.0)
            found.append((name, cut, _on_draws(space, trial)))
    return found


def warned(space: Space, staged: Stages, history: History) -> dict[str, Trial]:
    """What each contestant with the layer replaced, and traditional fine-tuning, trains on the first draw.

    Methods of several trainings are left out: their epochs are means over trainings rather than what is left in the
    end, and they choose among trainings by the validation split, which in this chapter is the test split.
    """
    some = [
        *_once_trained(space, staged),
        *(c for c in everybody("layer", space, staged) if c.name == "replace"),
    ]
    return {name: trials[0] for name, trials in compared(some, space, history).items()}


def _once_trained(space: Space, staged: Stages) -> list[Contestant]:
    """The contestants of `methods` of which a trial is always one training."""
    return [c for c in everybody("methods", space, staged) if len(make_method(c.method).seeds(space.seed, True)) == 1]


def _on_draws(space: Space, trial: Trial) -> list[Trial]:
    return [with_seed(trial, space.seed + 1 + number) for number in range(CURVE_DRAWS)]


def _by_draw(trials: Iterable[Sequence[Trial]]) -> Iterator[list[Trial]]:
    return (list(some) for some in zip(*trials, strict=True))


def _different(trials: Iterable[Trial]) -> list[Trial]:
    return list({trial.key: trial for trial in trials}.values())
