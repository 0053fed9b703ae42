"""A source network as an ordered chain of stages, which can be cut behind each of them.

Cut k freezes the first k stages and trains the rest; the last stage is the classification layer. The places come from
the traced graph (tracing.py, cuts.py), the stages that people see from the module tree (naming.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from inarch.errors import SourceError
from inarch.network.cuts import Cut, CuttableGraph
from inarch.network.naming import LAST_STAGE, block_stages, fine_names
from inarch.network.probe import evaluating, inputs, run_images
from inarch.network.tracing import chain_of_modules, trace


@dataclass(frozen=True)
class Stage:
    """One stage: `index` from 1, `cost` its share of the forward pass (0 to 1), `output_shape` without the batch."""

    index: int
    name: str
    parameters: int
    cost: float
    output_shape: tuple[int, ...]


class Stages(Protocol):
    """A network as an ordered chain of stages; see `StagedNetwork`."""

    @property
    def network(self) -> nn.Module: ...
    @property
    def stages(self) -> tuple[Stage, ...]: ...
    @property
    def fine(self) -> tuple[str, ...]: ...
    def segment(self, start: int, stop: int) -> nn.Module: ...


@final
class StagedNetwork:
    """A network as a chain of stages, made by `stage_network`.

    `stages` are the stages; `fine` names all places where the network can be cut up to its classification layer, each
    by the operation that ends there (they are the stages where `finer` was asked for).
    """

    def __init__(
        self, cuttable: CuttableGraph, cuts: Sequence[Cut], stages: Sequence[Stage], fine: Sequence[str]
    ) -> None:
        self.network = cuttable.network
        self.stages = tuple(stages)
        self.fine = tuple(fine)
        self._cuttable = cuttable
        self._cuts = (None, *cuts, None)

    def segment(self, start: int, stop: int) -> nn.Module:
        """Stages start + 1 to stop as one module; `segment(2, 2)` is the identity.

        Its modules, parameters and buffers are those of the source network, under their names there. Its mode is its
        own: call `train` and `eval` on the segment, not on the source network.
        """
        if not 0 <= start <= stop <= len(self.stages):
            raise IndexError(f"no stages {start + 1} to {stop}: there are {len(self.stages)}")
        if start == stop:
            return nn.Identity()
        return self._cuttable.segment(self._cuts[start], self._cuts[stop])

    def prefix(self, cut: int) -> nn.Module:
        """The first `cut` stages."""
        return self.segment(0, cut)

    def suffix(self, cut: int) -> nn.Module:
        """The stages behind the first `cut`, the classification layer with them."""
        return self.segment(cut, len(self.stages))

    def parameter_names(self, index: int) -> tuple[str, ...]:
        """Names in the source network of the parameters and buffers of stage `index` (from 1)."""
        return tuple(self.segment(index - 1, index).state_dict())


def stage_network(
    network: nn.Module,
    classification_layer: str,
    example: Tensor,
    *,
    finer: bool = False,
    by_hand: Sequence[str] | None = None,
) -> StagedNetwork:
    """The stages of a network: at block level, at every possible cut (`finer`), or cut behind the modules `by_hand`.

    `classification_layer` is the path of the layer whose outputs are the source logits, `example` a batch of images
    [N, C, H, W] of the size to be used. Sets `inplace` of the network's activation modules to False; its parameters,
    buffers and modes stay as they are. Raises SourceError where the network cannot be traced or cut.
    """
    reference, _ = run_images(network, example)
    with evaluating(network):
        if by_hand is not None:
            cuttable = _cuttable_by_hand(network, classification_layer, example, by_hand)
        else:
            cuttable = CuttableGraph(network, trace(network, classification_layer), example)
        last = _last_cut(cuttable, network.get_submodule(classification_layer), classification_layer)
        allowed = {p: c for p, c in _untied(cuttable).items() if c.position <= last.position}
        fine = list(dict.fromkeys(allowed.values()))
        if by_hand is not None:
            cuts, names = _cuts_by_hand(cuttable, allowed, by_hand, classification_layer, last)
        elif finer:
            cuts, names = fine, [*fine_names(cuttable, fine), LAST_STAGE]
        else:
            cuts, names = block_stages(cuttable, allowed, classification_layer, last)
        stages = _measure(cuttable, cuts, names, example, reference)
    return StagedNetwork(cuttable, cuts, stages, fine_names(cuttable, fine))


def _last_cut(cuttable: CuttableGraph, layer: nn.Module, path: str) -> Cut:
    """The cut before the classification layer."""
    network = cuttable.network
    calls = [
        position
        for position, node in enumerate(cuttable.operations)
        if node.op == "call_module" and network.get_submodule(str(node.target)) is layer
    ]
    if len(calls) == 1:
        cut = _untied(cuttable).get(calls[0] - 1)
        if cut is not None and cut.tensor in cuttable.operations[calls[0]].all_input_nodes:
            return cut
        found = "is not fed by one tensor alone, or shares parameters with the layers before it"
    else:
        found = f"runs {len(calls)} times as a layer of its own"
    raise SourceError(
        f"The network ({type(network).__name__}) cannot be cut before its classification layer '{path}': it {found}.",
        "Name the layer whose outputs are the logits ('classification_layer' in the card), or use another network.",
    )


def _untied(cuttable: CuttableGraph) -> dict[int, Cut]:
    """The cuts that separate no two uses of the same parameters: those could not be frozen and trained at once."""
    spans = {(min(uses), max(uses)) for uses in cuttable.uses().values() if uses}
    return {
        position: cut
        for position, cut in cuttable.cuts.items()
        if not any(begin <= cut.position < end for begin, end in spans)
    }


def _cuttable_by_hand(network: nn.Module, layer: str, example: Tensor, paths: Sequence[str]) -> CuttableGraph:
    """The network with the modules at `paths` kept whole; where it cannot be traced even so, these modules in a row."""
    known = dict(network.named_modules())
    if not paths:
        raise SourceError("No module is named to cut the network behind.", "Give paths of modules, like layer1.0.")
    for path in paths:
        if path not in known or not path:
            near = difflib.get_close_matches(path, known, 3)
            hint = f"Near: {', '.join(near)}." if near else "Give paths of modules, like layer1.0."
            raise SourceError(f"The network ({type(network).__name__}) has no module '{path}'.", hint)
        if layer.startswith(f"{path}."):
            raise SourceError(
                f"The module '{path}' contains the classification layer '{layer}', which is a stage of its own.",
                f"Name modules before it, or inside '{path}'.",
            )
    try:
        return CuttableGraph(network, trace(network, layer, paths), example)
    except SourceError:
        row = list(paths) if layer in paths else [*paths, layer]
    try:
        return CuttableGraph(network, chain_of_modules(network, row), example)
    except Exception as error:
        raise SourceError(
            f"The modules named by hand cannot run one after the other ({', '.join(row)}): {error}.",
            "They must follow each other without anything between them; name every module of the chain.",
        ) from error


def _cuts_by_hand(
    cuttable: CuttableGraph, allowed: dict[int, Cut], paths: Sequence[str], layer: str, last: Cut
) -> tuple[list[Cut], list[str]]:
    """A cut behind each module but the last before the classification layer, whose stage reaches up to that layer."""
    ends = {str(node.target): i for i, node in enumerate(cuttable.operations) if node.op == "call_module"}
    # Models that were delivered with modules that do not run, which changed nothing, are loaded on; see `require_cut`.
    names = [path for path in paths if path != layer and path in ends and ends[path] <= last.position]
    if not names:
        raise SourceError(
            f"None of the modules {', '.join(paths)} runs before the classification layer '{layer}'.",
            "Name one or more that do, like layer1.0.",
        )
    cuts: list[Cut] = []
    for path in names[:-1]:
        cut = allowed.get(ends[path])
        if (
            cut is None
            or cut.tensor is not cuttable.operations[ends[path]]
            or (cuts and cut.position <= cuts[-1].position)
        ):
            raise SourceError(
                f"The network cannot be cut behind the module '{path}': more than its output is needed after it, "
                "or it does not stand in the order of execution.",
                "Leave it out, or name the modules in the order in which they run.",
            )
        cuts.append(cut)
    return [*cuts, last], [*names, LAST_STAGE]


def require_cut(staged: Stages, paths: Sequence[str], layer: str) -> None:
    """`SourceError` where a module of `paths`, by which stages were named by hand, ends none of the stages; `layer`,
    the classification layer, may stand among them."""
    names = {layer, *(stage.name for stage in staged.stages)}
    for path in paths:
        if path not in names:
            raise SourceError(
                f"The network cannot be cut behind the module '{path}': it does not run as a whole before the "
                "classification layer, or lies inside another one that is named.",
                "Leave it out, or name the modules inside it.",
            )


def require_features(staged: Stages) -> None:
    """`SourceError` where a network is nothing but a classification layer, or that layer takes what is no vector of
    features or no feature map [channels, h, w]: of tokens, say, or of maps with their channels last."""
    if len(staged.stages) < 2:
        raise SourceError(
            "The network has no layer with weights before its classification layer: nothing could be kept frozen.",
            "Use a network with more layers.",
        )
    shape, last = staged.stages[-2].output_shape, len(staged.stages)
    taken = [inputs(module) for module in staged.segment(last - 1, last).modules()]
    wanted = next(filter(None, taken), shape[0])
    if len(shape) not in (1, 3) or wanted not in (shape[0], prod(shape)):
        raise SourceError(
            f"The classification layer takes {wanted} features, but what comes before it has the shape "
            f"{list(shape)}, of which new layers could make no features.",
            "Pool before the classification layer, so that it takes a vector for each image.",
        )


def _measure(
    cuttable: CuttableGraph, cuts: Sequence[Cut], names: Sequence[str], example: Tensor, reference: Tensor
) -> list[Stage]:
    """Runs the stages one after the other: cost and size of each, and whether together they are the network."""
    ends = [None, *cuts, None]
    segments = [cuttable.segment(ends[i], ends[i + 1]) for i in range(len(names))]
    value, shapes, costs = example, [], []
    for segment, name in zip(segments, names, strict=True):
        before = value.clone()
        with FlopCounterMode(display=False) as counter:
            result = segment(value)
        if not torch.equal(before, value):
            raise SourceError(
                f"The stage '{name}' writes over its input, which would spoil stored activations.",
                "Let its modules work on a copy (x = x.clone()) or without in-place operations.",
            )
        value = result
        shapes.append(tuple(value.shape[1:]))
        costs.append(float(counter.get_total_flops()))
    if not torch.allclose(value, reference, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise SourceError(
            f"The stages {', '.join(names)} run one after the other do not give the output of the network "
            f"({type(cuttable.network).__name__}).",
            "Its forward function does something that its modules alone do not: move that into a module.",
        )
    parameters = [sum(p.numel() for p in segment.parameters()) for segment in segments]
    shares = costs if sum(costs) else [float(p) for p in parameters]
    total = sum(shares) or 1.0
    return [Stage(i + 1, name, parameters[i], shares[i] / total, shapes[i]) for i, name in enumerate(names)]


def cut_json(staged: Stages, cut: int) -> dict[str, Any]:
    """A cut as files and reports name it: its index, and the stage it lies behind (`none` for 0)."""
    return {"index": cut, "name": staged.stages[cut - 1].name if cut else "none"}


def stage_rows(staged: Stages) -> list[tuple[str, str, str, str, str]]:
    """Rows for `inarch stages`: index, name, parameters, share of the forward cost, output shape."""
    return [
        (
            str(stage.index),
            stage.name,
            f"{stage.parameters:,}",
            f"{stage.cost:.1%}",
            " x ".join(str(size) for size in stage.output_shape),
        )
        for stage in staged.stages
    ]
