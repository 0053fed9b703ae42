"""What a layer-wise study costs: a plain loop over all its trials, the same on our plan, Inarch exhaustive and default.

(a) plain loop: the loop that a careful user would write (plain.py); every cut x graft x seed trained in full
(b) with plan and pixels: the same loop on Inarch's execution plan, with pixels that are kept
(c) inarch exhaustive: inarch.fit(..., search="exhaustive")
(d) inarch default: inarch.fit(...)

(a) and (b) are measured on a sample of their trials and added up; the sample and the sum are shown. Draws of the
training data serve as rounds: in each, all contestants are measured one after the other. The first draw of all networks
and data sets comes before the second of any, so that what there is after some hours says something of all of them:
--summary shows it, of draws that are whole, and measures nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, geometric_mean, median
from typing import final

import common
from common import AS_COMMAND_LINE, Parts, Record
from grid import Grid, added_up, all_grafts, cost_by_cut, sample, stored_sum
from inarch.options import StudyOptions
from inarch.plural import counted
from made import MADE, RANDOM, card_of, draw_made

NETWORKS = ("mobilenetv1_025_128", "squeezenet1_1")
BATCH_SIZE = 32
# Said in every part, so that parts of another default are refused.
VIEWS = StudyOptions.views
# Epochs of the one plain trial that says whether its first epoch is like the others.
WHOLE = 3
# Every contestant has these switches of plain.py, on top of those before it.
LOOPS: dict[str, Record] = {"plain": {}, "plan": {"plan": True}, "pixels": {"plan": True, "pixels": True}}
SAMPLED = ("cut", "graft", "seconds", "validation_accuracy")
SEARCHES = ("exhaustive", "default")


@dataclass(frozen=True)
class Effort:
    """How much is measured. sampled_cuts: of all cuts, how many have trials that are measured. epochs: of every trial;
    a sampled one is measured for `measured_epochs`. searched_draws: draws on which whole studies run. images: for
    training, about so many and at most 100 a class."""

    networks: tuple[str, ...]
    data_sets: tuple[str, ...]
    draws: int = 3
    searched_draws: int = 3
    sampled_cuts: int = 4
    epochs: int = 6
    measured_epochs: int = 1
    seeds: int = 2
    confirmation_seeds: int = 3
    images: int = 1000
    image_size: int = 128


QUICK = Effort(NETWORKS[:1], ("clothing",), searched_draws=1, confirmation_seeds=2)
FULL = Effort(NETWORKS, common.DATA_SETS)
# Where there is a GPU: one draw of made images, and ResNet-50 with random weights.
GPU = Effort((RANDOM,), (MADE,), draws=1, searched_draws=1, epochs=4, confirmation_seeds=2, images=1000, image_size=224)


@final
class Case:
    """One network on one data set: its parts, draw by draw."""

    def __init__(self, parts: Parts, work: Path, effort: Effort, data: str, network: str, device: str = "cpu") -> None:
        self._parts, self._work, self._effort = parts, work, effort
        self.data, self.network = data, network
        self._card = card_of(network, work.resolve())
        self._on_device = common.on_device(device)
        # Parts by name: of the draws that are whole, and of the one at hand.
        self._draws: list[dict[str, Record]] = []
        self._of_draw: dict[str, Record] = {}
        self._plan: Record = {}
        self.grid = Grid((0.0, 1.0), (0,))

    def measure(self, draw: int) -> None:
        """Measures what is missing of a draw, once those before it are whole."""
        if draw > len(self._draws):
            raise common.NotNowError(f"draw {draw} before draw {len(self._draws)}")
        self._of_draw = {}
        images = self._effort.images
        if self.data == MADE:
            manifest = draw_made(self._work, images, draw)
        else:
            manifest = common.draw_about(self._work, self.data, images, draw)
        self._round(draw, manifest.resolve())
        self._draws.append(self._of_draw)

    def figures(self) -> Record | None:
        """The figures of this case over its draws; None where it has none."""
        if not self._draws:
            return None
        found = {name: [draw[name] for draw in self._draws if name in draw] for name in self._draws[0]}
        return figures(self.grid, found, self._effort) | {"data": self.data, "network": self.network}

    def _round(self, draw: int, manifest: Path) -> None:
        wanted: Record = {
            "data": manifest, "source": self._card, "seed": draw, "image_size": self._effort.image_size,
        } | ({"options": self._on_device} if self._on_device else {})  # fmt: skip
        shares = tuple(self._part(draw, "facts", "ours:facts", {"wanted": wanted})["frozen_shares"])
        self.grid = Grid(shares, tuple(range(len(shares))), seeds=self._effort.seeds)
        trials = sample(self.grid, self._effort.sampled_cuts, draw)
        if draw < self._effort.searched_draws:
            self._studies(draw, wanted, sorted({trial["cut"] for trial in trials}))
            self._plan = plan_of(self._of_draw["default"]["cost"]["environment"])
        for name, switches in LOOPS.items():
            self._loop(draw, name, wanted, trials, switches | (self._plan if switches else {}))
        if draw == 0:  # once for a case: whether the graft matters, and whether one epoch tells what all of them take
            self._loop(draw, "grafts", wanted, all_grafts(self.grid), {})
            deepest = [{"cut": self.grid.cuts[-1], "graft": "retain"}]
            self._loop(draw, "whole", wanted, deepest, {}, measured_epochs=WHOLE)

    def _loop(
        self, draw: int, name: str, wanted: Record, trials: list[Record], switches: Record,
        measured_epochs: int | None = None,
    ) -> None:  # fmt: skip
        measured = self._effort.measured_epochs if measured_epochs is None else measured_epochs
        length = {"epochs": self._effort.epochs, "measured_epochs": measured, "batch_size": BATCH_SIZE}
        values = {"wanted": wanted, "trials": trials, "length": length, "switches": switches}
        self._part(draw, name, "plain:measure", values, ours=bool(switches))

    def _studies(self, draw: int, wanted: Record, cuts: list[int]) -> None:
        runs = (self._work / "runs" / f"{self.data}-{self.network}-{draw}").resolve()
        options = {"epochs": self._effort.epochs, "batch_size": BATCH_SIZE, "views": VIEWS} | self._on_device
        stored = {"run": Path(f"{runs}-store"), "cuts": cuts, "grafts": ["retain", "joined"]}
        self._part(draw, "store", "ours:stored_trials", {"wanted": wanted | {"options": options}} | stored, ours=True)
        for name in SEARCHES:
            options = self._options(draw) | ({"search": "exhaustive"} if name == "exhaustive" else {})
            values = {"manifest": wanted["data"], "card": self._card, "run": Path(f"{runs}-{name}"), "options": options}
            self._part(draw, name, "ours:study", values, ours=True)

    def _options(self, draw: int) -> Record:
        """The same grafts and training for all; which rates and cuts a search tries is its own affair."""
        return {
            "grafts": ",".join(self.grid.grafts), "harmonise": "none",
            "epochs": self._effort.epochs, "batch_size": BATCH_SIZE, "seeds": self._effort.confirmation_seeds,
            "image_size": self._effort.image_size, "seed": draw, "views": VIEWS,
        } | self._on_device  # fmt: skip

    def _part(self, draw: int, name: str, function: str, values: Record, *, ours: bool = False) -> Record:
        environment = AS_COMMAND_LINE if ours else {}
        part = self._parts.measure(f"{self.data}-{self.network}-{draw}-{name}", function, values, environment)
        self._of_draw[name] = part
        return part


def plan_of(environment: Record) -> Record:
    """Memory format and precisions that a study recorded as its plan."""
    return {name: environment["plan"][name] for name in ("memory_format", "frozen", "trained")}


def figures(grid: Grid, found: dict[str, list[Record]], effort: Effort) -> Record:
    """Seconds of every contestant, ratios and gaps, from the parts of all draws."""
    seconds: dict[str, list[float]] = {}
    samples: Record = {}
    for name in LOOPS:
        by_draw = [cost_by_cut(grid, part["trials"]) for part in found[name]]
        sums = [added_up(grid, by_cut, part["seconds_once"]) for by_cut, part in zip(by_draw, found[name], strict=True)]
        seconds[name] = sums
        samples[name] = {
            "columns": list(SAMPLED),
            "trials": [[trial[key] for key in SAMPLED] for part in found[name] for trial in part["trials"]],
            "seconds_of_a_trial_by_cut": {cut: median(one[cut] for one in by_draw) for cut in grid.cuts},
        }  # fmt: skip
    seconds["store"] = [stored_sum(grid, part["trials"]) for part in found["store"]]
    for name in SEARCHES:
        seconds[name] = [part["seconds"] + part["seconds_before"] for part in found[name]]
    middle = {name: median(values) for name, values in seconds.items()}
    chosen = {name: [part["chosen"] for part in found[name]] for name in SEARCHES}
    gaps = [
        100 * (ours["validation_accuracy"] - all_of_them["validation_accuracy"])
        for ours, all_of_them in zip(chosen["default"], chosen["exhaustive"], strict=True)
    ]
    whole = found["whole"][0]["trials"][0]["seconds_of_epochs"]
    return {
        "cuts": list(grid.cuts), "trials_of_the_grid": len(grid), "epochs": effort.epochs,
        "seconds": middle, "seconds_by_draw": seconds, "samples": samples,
        "default_speedup": times_faster(seconds, "plain", "default"),
        "exhaustive_speedup": times_faster(seconds, "plain", "exhaustive"),
        "choice_gaps_points": gaps,
        "chosen": chosen,
        "standard_errors": [part["validation_standard_error"] for part in found["exhaustive"]],
        "trained": {name: [part["cost"]["trials"] for part in found[name]] for name in SEARCHES},
        "left_out": {name: [part["left_out"] for part in found[name]] for name in SEARCHES},
        "causes": causes(seconds),
        "grafts_seconds": {t["graft"]: t["seconds"] for t in found["grafts"][0]["trials"]},
        "first_epoch_to_mean_epoch": whole[0] / (sum(whole) / len(whole)),
        "peak_memory_bytes": {n: max(map(common.peak_memory, parts)) for n, parts in found.items()},
        "load_average": [part["load_average"] for parts in found.values() for part in parts],
    }  # fmt: skip


def times_faster(seconds: dict[str, list[float]], slow: str, quick: str) -> float:
    """How many times as fast one contestant is as another: the median over draws of the ratio within each, since draws
    may lie days apart and on other machines. In the quick version, where one has more draws, the ratio of medians."""
    some, others = seconds[slow], seconds[quick]
    if len(some) != len(others):
        return median(some) / median(others)
    return median(a / b for a, b in zip(some, others, strict=True))


def causes(seconds: dict[str, list[float]]) -> Record:
    """Factors of the gain, one cause after the other; of one draw their product is the whole of it.

    Batching cannot be switched off by an option: it is in the step from single stored trials to one exhaustive study,
    together with filling the store for all cuts at once, and against it what the study trains beyond the grid.
    """
    return {
        "plan": times_faster(seconds, "plain", "plan"),
        "pixels": times_faster(seconds, "plan", "pixels"),
        "prefix store": times_faster(seconds, "pixels", "store"),
        "side by side, batching, one filling, trials beyond": times_faster(seconds, "store", "exhaustive"),
        "search": times_faster(seconds, "exhaustive", "default"),
    }


def summary(cases: Sequence[Record]) -> Record:
    """What is said of all cases together: geometric means of ratios, mean and worst of gaps; a case counts once."""
    names = list(cases[0]["causes"])
    return {
        "default_speedup": geometric_mean(case["default_speedup"] for case in cases),
        "exhaustive_speedup": geometric_mean(case["exhaustive_speedup"] for case in cases),
        "choice_gap_points": fmean(fmean(case["choice_gaps_points"]) for case in cases),
        "worst_choice_gap_points": min(gap for case in cases for gap in case["choice_gaps_points"]),
        "studies": sum(len(case["choice_gaps_points"]) for case in cases),
        "causes": {name: geometric_mean(case["causes"][name] for case in cases) for name in names},
    }


def show(cases: Sequence[Record], total: Record, facts: Record) -> None:
    for case in cases:
        show_case(case)
    common.print_table(
        "Gain by cause (medians over draws, geometric means over cases)", ["cause", "factor"],
        [[name, factor] for name, factor in total["causes"].items()],
    )  # fmt: skip
    print(
        f"{counted(len(cases), 'case')}, {counted(total['studies'], 'draw')} with both searches. "
        f"Default {total['default_speedup']:.1f} times faster than the plain loop, exhaustive "
        f"{total['exhaustive_speedup']:.1f}; confirmed choice of default against exhaustive on average "
        f"{total['choice_gap_points']:+.2f} points, at worst {total['worst_choice_gap_points']:+.2f}."
    )
    load = max(load for case in cases for load in case["load_average"])
    print(f"{facts['processor']}, {facts['cores']} cores; load average at most {load:.1f} when a part began.")


def show_case(case: Record) -> None:
    grid = f"{case['trials_of_the_grid']} trials of {case['epochs']} epochs, cuts {', '.join(map(str, case['cuts']))}"
    rows = []
    for name, seconds in case["seconds"].items():
        accuracies = [f"{100 * c['validation_accuracy']:.1f}" for c in case["chosen"].get(name, [])]
        trained = case["trained"].get(name, [case["trials_of_the_grid"]])
        rounds = len(case["seconds_by_draw"][name])
        faster = times_faster(case["seconds_by_draw"], "plain", name)
        rows.append([name, seconds, faster, rounds, median(trained), ", ".join(accuracies)])
    columns = ["contestant", "seconds", "times faster", "rounds", "trials", "validation accuracy of the choice"]
    common.print_table(f"{case['data']}, {case['network']}: {grid}", columns, rows)
    for name, measured in case["samples"].items():
        sample_rows = [f"{cut}: {seconds:.1f}" for cut, seconds in measured["seconds_of_a_trial_by_cut"].items()]
        print(
            f"  {name}: {len(measured['trials'])} trials sampled; seconds of a trial by cut  {'  '.join(sample_rows)}"
        )
    grafts = "  ".join(f"{graft} {seconds:.1f}" for graft, seconds in case["grafts_seconds"].items())
    print(f"  plain, the same cut with every graft, seconds: {grafts}")
    print(f"  plain, first epoch / mean of the first {WHOLE} of a trial: {case['first_epoch_to_mean_epoch']:.3f}")


def main(given: Sequence[str] | None = None) -> int:
    parser = common.arguments(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--summary", action="store_true", help="show what is measured so far, and measure nothing")
    common.device_argument(parser)
    chosen = parser.parse_args(given)
    effort = GPU if chosen.device != "cpu" else QUICK if chosen.quick else FULL
    work = chosen.out / common.named("study", chosen)
    parts = Parts(chosen.parts or work / "parts", work, measuring=not chosen.summary)
    facts = common.machine()
    cases = [
        Case(parts, work, effort, data, network, chosen.device)
        for network in effort.networks for data in effort.data_sets
    ]  # fmt: skip
    for draw in range(effort.draws):
        for case in cases:
            with suppress(common.NotNowError):
                case.measure(draw)
    found = [figures for case in cases if (figures := case.figures()) is not None]
    if not found:
        sys.exit(f"No draw is whole yet in {parts.folder}.")
    total = summary(found)
    show(found, total, facts)
    common.write_json(chosen.json, total | {"cases": found, "machine": facts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
