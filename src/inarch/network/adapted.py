"""The adapted network: the stages of a source network, cut into a frozen and a trained part, with a graft behind.

An adapted network is itself a source: its card holds, under `adapted`, what was added to the network that the card
names, oldest first, and `stage` gives it stages that go on behind those of its own source.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from inarch.errors import SourceError
from inarch.network.captured import Played, Tape
from inarch.network.card import Card
from inarch.network.ends import Body, Head
from inarch.network.grafts import Configuration, Deepen, Widths, build_graft, graft_class
from inarch.network.libraries import build_network
from inarch.network.naming import LAST_STAGE
from inarch.network.pieces import Pieces, set_submodule
from inarch.network.stages import Stage, Stages, stage_network
from inarch.network.weights import narrow_first_convolution


def stored_cut(configuration: Configuration, cut: int, stages: int) -> int:
    """The deepest cut whose activations never change while a network with that cut trains, and feed all that does."""
    graft = graft_class(configuration.graft)
    return min(cut, *graft.taps(stages)[:1], stages - 1) if graft.uses_features else cut


@final
class AdaptedNetwork(nn.Module):
    """A staged source network with a graft, frozen up to a cut.

    `cut` counts the frozen stages, from 0 to the number of stages; the last stage is the classification layer.
    `stored_cut` is the deepest cut whose activations never change while this network trains: all training needs are
    those activations and `from_stored`. The modules are shared with the source network, not copied. `held` are the
    stages that stand still now, by index from 1: those of the cut, and those that a method lets rest.
    """

    def __init__(self, staged: Stages, configuration: Configuration, widths: Widths, *, cut: int, seed: int) -> None:
        super().__init__()
        graft = graft_class(configuration.graft)
        last = len(staged.stages) - 1
        self.cut = cut
        self.staged = staged
        graft.require([each.output_shape for each in staged.stages])
        # Cuts beside the penultimate features whose activations the graft reads.
        self.taps = graft.taps(last + 1)
        self.widths = replace(widths, earlier=tuple(staged.stages[tap - 1].output_shape for tap in self.taps))
        self.configuration = configuration
        self.stored_cut = stored_cut(configuration, cut, last + 1)
        self.prefix = staged.segment(0, self.stored_cut)
        self.suffix = staged.segment(self.stored_cut, max(last, self.stored_cut))
        self._pieces = Pieces(staged, self.stored_cut, self.taps, last) if self.taps else None
        self._played: Played | None = None
        self.layer = staged.segment(last, last + 1) if graft.keeps_layer and self.stored_cut <= last else None
        self.graft = build_graft(configuration, self.widths, seed)
        self._freeze(())

    def recompute(self, stages: int) -> None:
        """Lets training steps compute the inside of the first `stages` stages again (`recomputed.py`) from now on."""
        if stages > self.stored_cut:
            self._pieces = Pieces(self.staged, self.stored_cut, self.taps, len(self.staged.stages) - 1, stages)
            self.train(self.training)

    def play_back(self, tape: Tape, images: int) -> None:
        """Lets training steps on so many images play back captured passes (`captured.py`), unless the network runs in
        pieces. From now on nothing may be put, moved or frozen."""
        self._played = Played(self.suffix, self.stored_cut, tape, images)

    def _freeze(self, more: Iterable[int]) -> None:
        """Freezes the stages up to the cut, and these."""
        last = len(self.staged.stages) - 1
        self.held = frozenset({*range(1, self.cut + 1), *more})
        self._frozen = [self.prefix, *([self.layer] if last + 1 in self.held and self.layer is not None else [])]
        within = [k for k in sorted(self.held) if self.stored_cut < k <= last]
        resting = [self.staged.segment(k - 1, k) for k in within]
        # Modules of the suffix by name: a segment of a traced network has modes of its own where it holds no layers.
        self._resting = [path for segment in resting for path, _ in segment.named_modules() if path]
        for parameter in self.parameters():
            parameter.requires_grad_(True)
        for module in (*self._frozen, *resting):
            for parameter in module.parameters():
                parameter.requires_grad_(False)

    def rest(self, stages: Iterable[int]) -> None:
        """Lets these stages, by index from 1, and those of the cut stand still from now on as if they were frozen."""
        wanted = frozenset({*range(1, self.cut + 1), *stages})
        if wanted != self.held:
            self._freeze(wanted)
            self.train(self.training)

    def hold(self, stages: int) -> None:
        """Lets the first `stages` stages stand still from now on; never less than the cut."""
        self.rest(range(1, stages + 1))

    def train(self, mode: bool = True) -> AdaptedNetwork:
        """Training mode for what trains; frozen stages stay in evaluation mode (batch normalisation, dropout)."""
        super().train(mode)
        if self._pieces:
            self._pieces.train(mode)
        for module in self._frozen:
            module.eval()
        for path in self._resting:
            self.suffix.get_submodule(path).training = False
        if self._pieces:
            self._pieces.rest(self._resting)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> AdaptedNetwork:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # Segments have dictionaries of their own for what is no module's: later ones are made from the whole network.
        self.staged.network._apply(fn, recurse)
        if self._pieces:
            self._pieces.apply(fn)
        return self

    def put(self, part: str, path: str, module: nn.Module) -> None:
        """Puts a module where another one stands, by its path in `part` (suffix or layer), wherever that is run."""
        set_submodule(self.get_submodule(part), path, module)
        if self._pieces and part == "suffix":
            self._pieces.put(path, module)

    def from_stored(self, stored: Tensor) -> Tensor:
        """Target logits [images, classes] from the activations at `stored_cut`."""
        return self.graft(*self.graft_inputs(stored))

    def graft_inputs(self, stored: Tensor) -> tuple[Tensor, Tensor | None, *tuple[Tensor, ...]]:
        """What the graft is called with, from the stored activations: penultimate features, source logits where it
        keeps the layer, and what it takes of the activations at `taps`."""
        earlier: tuple[Tensor, ...] = ()
        if self._pieces:
            features, earlier = self._pieces.run(stored, self.graft.take)
        else:
            features = (self._played or self.suffix)(stored)
        if not self.graft.keeps_layer:
            return features, None, *earlier
        return features, features if self.layer is None else self.layer(features), *earlier

    def forward(self, images: Tensor) -> Tensor:
        return self.from_stored(self.prefix(images))

    def old_parameters(self) -> list[nn.Parameter]:
        """What trains of the source network."""
        new = {id(p) for p in self.graft.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in new]

    def old_stages(self) -> dict[int, list[nn.Parameter]]:
        """What trains of each stage of the source network behind the cut, by the stage's index from 1."""
        trained = {id(p) for p in self.old_parameters()}
        used = len(self.staged.stages) - (0 if self.layer is not None else 1)
        found = {}
        for index in range(self.cut + 1, used + 1):
            stage = self.staged.segment(index - 1, index)
            found[index] = [p for p in stage.parameters() if id(p) in trained]
        return found

    def new_parameters(self) -> list[nn.Parameter]:
        """What the graft brought."""
        return list(self.graft.parameters())

    def at_cut(self, cut: int) -> AdaptedNetwork:
        """The same modules and the same graft, frozen up to another cut."""
        other = AdaptedNetwork(self.staged, self.configuration, self.widths, cut=cut, seed=0)
        other.graft = self.graft
        return other.train(self.training)

    def source_and_graft(self) -> dict[str, Tensor]:
        """Parameters and buffers under the names that they have where nothing is frozen, whatever the cut."""
        whole = AdaptedNetwork(self.staged, self.configuration, self.widths, cut=0, seed=0)
        here = {_bare(name): value for name, value in self.state_dict().items()}
        state = {name: here[_bare(name)] for name in whole.state_dict()}
        self._freeze(())  # the modules are shared: `whole` has freed them
        return state


def _bare(name: str) -> str:
    """A name without the part of the adapted network that it stands in; the graft's names stay apart."""
    part, _, rest = name.partition(".")
    return name if part == "graft" else rest


@final
class AdaptedStages:
    """The stages of an adapted network: those of its source, the hidden layers of its graft, and its last layer."""

    def __init__(self, network: AdaptedNetwork, example: Tensor) -> None:
        inner = network.staged
        last = len(inner.stages) - 1
        kept = last + 1 if network.graft.keeps_layer and not network.graft.uses_features else last
        kept = network.taps[0] if network.taps else kept
        self._inner, self._kept = inner, kept
        self.network: nn.Module = network
        names = [stage.name for stage in inner.stages[:kept]]
        if kept > last:
            names[-1] = _unused(f"source-{LAST_STAGE}", names)
        self._behind: list[nn.Module] = []
        if isinstance(network.graft, Deepen):
            for number, hidden in enumerate(network.graft.hidden, start=1):
                first = number == 1
                self._behind.append(nn.Sequential(network.graft.harmonise, hidden) if first else hidden)
                names.append(_unused(f"hidden{number}", names))
        if network.graft.body is not None:
            self._behind.append(Body(network, kept))
            names.append(_unused(network.graft.name, names))
        self._behind.append(Head(network))
        self.fine = (*inner.fine, *names[len(inner.fine) :]) if inner.fine else tuple(names)
        self.stages = tuple(self._describe([*names, LAST_STAGE], example))

    def segment(self, start: int, stop: int) -> nn.Module:
        """Stages start + 1 to stop as one module, as `StagedNetwork.segment` gives it."""
        if not 0 <= start <= stop <= self._kept + len(self._behind):
            raise IndexError(f"no stages {start + 1} to {stop}: there are {self._kept + len(self._behind)}")
        # A layer has the same name in every segment: states of networks with different cuts are told apart by names.
        parts: dict[str, nn.Module] = {}
        if start < min(stop, self._kept):
            parts["source"] = self._inner.segment(start, min(stop, self._kept))
        for index in range(max(start - self._kept, 0), max(stop - self._kept, 0)):
            parts[f"added{index + 1}"] = self._behind[index]
        return nn.Sequential(OrderedDict(parts))

    def _describe(self, names: Sequence[str], example: Tensor) -> list[Stage]:
        # What is added is small beside the source network: its cost is counted as none.
        stages = []
        value = example
        for index, name in enumerate(names, start=1):
            segment = self.segment(index - 1, index).eval()
            with torch.no_grad():
                value = segment(value)
            cost = self._inner.stages[index - 1].cost if index <= self._kept else 0.0
            parameters = sum(p.numel() for p in segment.parameters())
            stages.append(Stage(index, name, parameters, cost, tuple(value.shape[1:])))
        return stages


def _unused(name: str, names: Sequence[str]) -> str:
    while name in names:
        name = f"{name}'"
    return name


def stage(network: nn.Module, layer: str, example: Tensor, by_hand: Sequence[str] | None = None) -> Stages:
    """The stages of any source network, adapted ones included; `layer` is the path of its classification layer."""
    if isinstance(network, AdaptedNetwork):
        return AdaptedStages(network, example)
    return stage_network(network, layer, example, by_hand=by_hand)


def finely_staged(network: AdaptedNetwork, layer: str, by_hand: Sequence[str], example: Tensor) -> AdaptedNetwork:
    """The same modules and grafts, with a stage for every place where the first source network can be cut.
    layer, by_hand: the classification layer of that network, and its stages where they were named by hand (they stay).
    A graft that reads activations on the way is attached to stages by their number: its network stays as it is.
    """
    if network.taps:
        return network
    inner = network.staged.network
    if isinstance(inner, AdaptedNetwork):
        staged: Stages = AdaptedStages(finely_staged(inner, layer, by_hand, example), example)
    else:
        staged = stage_network(inner, layer, example, finer=not by_hand, by_hand=by_hand or None)
    other = AdaptedNetwork(staged, network.configuration, network.widths, cut=0, seed=0)
    other.graft = network.graft
    return other.eval()


def addition(network: AdaptedNetwork, layer: str, classes: Sequence[str], by_hand: Sequence[str]) -> dict[str, Any]:
    """What a card says of one adaptation: the graft, and what of the source is needed to attach it again.

    layer: the source's classification layer. classes: the source's class names. by_hand: its stages, if named so.
    """
    return network.configuration.to_json() | {
        "features": network.widths.features,
        "classes": network.widths.classes,
        "source_classes": list(classes),
        "source_classification_layer": layer,
        "source_stages": list(by_hand),
    }


def build(card: Card, folder: Path) -> AdaptedNetwork:
    """The adapted network of a card without its weights: its source, and every graft in the order they were added."""
    where = f"The card of '{card.network}'"
    if card.input is None or not card.adapted:
        raise SourceError(f"{where} has 'adapted' but no 'input'.", "Give the card that Inarch wrote.")
    extra = {key: value for key, value in card.extra.items() if key != "adapted"}
    plain = Card(card.network, card.arguments, python=card.python, input=card.input, extra=extra)
    network = build_network(plain, folder)
    if card.input.channels == 1 and not card.network.startswith("python:"):
        narrow_first_convolution(network)  # as weights for grey images had it done when the source was loaded
    example = card.input.example()
    for added in card.adapted:
        network = _attach(network, added, example, where)
    assert isinstance(network, AdaptedNetwork)
    return network


def _attach(network: nn.Module, added: Mapping[str, Any], example: Tensor, where: str) -> AdaptedNetwork:
    try:
        configuration = Configuration.from_json(dict(added))
        layer, by_hand = str(added["source_classification_layer"]), list(added["source_stages"])
        widths = Widths(int(added["features"]), len(added["source_classes"]), int(added["classes"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{where}: 'adapted' cannot be read ({type(error).__name__}: {error}).", "Give the card that Inarch wrote."
        ) from error
    return AdaptedNetwork(stage(network, layer, example, by_hand or None), configuration, widths, cut=0, seed=0)
