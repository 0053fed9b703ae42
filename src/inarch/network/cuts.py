"""Where a traced network can be cut in two, and the networks on either side.

A cut is possible wherever exactly one tensor is alive. Values that the far side can have again do not count: parameters
and buffers, what follows from them alone, and shapes that follow from the live tensor (otherwise a plain ViT could be
cut at 8 places only, as the batch size stays alive beside the tensor). Which integers follow from which shape is read
off runs with different numbers and sizes of images.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from inarch.errors import SourceError
from inarch.plural import counted

_RANDOM = ("rand", "dropout", "bernoulli", "normal", "stochastic", "multinomial")


@dataclass(frozen=True)
class TensorShape:
    """What a run remembers of a tensor."""

    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Cut:
    """A place after an operation: `position` in the list of operations, and the one tensor that is alive there."""

    position: int
    tensor: fx.Node


@dataclass(frozen=True)
class _Dimension:
    index: int


@dataclass(frozen=True)
class _Constant:
    value: Any


class _Underivable(Exception):  # noqa: N818 - not an error, an answer
    pass


class _Recorder(fx.Interpreter):
    """Runs a graph and remembers shapes of tensors, and all other values as they are."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.seen: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """As in torch.fx."""
        value = super().run_node(n)
        self.seen[n] = TensorShape(tuple(value.shape)) if isinstance(value, Tensor) else value
        return value


def _derive(values: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> Any:
    """How a value follows from a tensor, given both in several runs: an expression of dimensions and constants."""
    first = values[0]
    if isinstance(first, tuple | list):
        if any(type(value) is not type(first) or len(value) != len(first) for value in values):
            raise _Underivable
        parts = [_derive(column, shapes) for column in zip(*values, strict=True)]
        return type(first)(parts) if type(first) is list else tuple(parts)
    if type(first) is int and len({len(shape) for shape in shapes}) == 1:
        for dimension, sizes in enumerate(zip(*shapes, strict=True)):
            if all(size == value for size, value in zip(sizes, values, strict=True)):
                return _Dimension(dimension)
    simple = isinstance(first, int | float | str | bool | torch.dtype | torch.memory_format | type(None))
    if simple and all(value == first for value in values):
        return _Constant(first)
    raise _Underivable


def _emit(expression: Any, tensor: fx.Node, graph: fx.Graph) -> Any:
    if isinstance(expression, _Constant):
        return expression.value
    if isinstance(expression, _Dimension):
        shape = graph.call_function(getattr, (tensor, "shape"))
        return graph.call_function(operator.getitem, (shape, expression.index))
    return type(expression)(_emit(part, tensor, graph) for part in expression)


class CuttableGraph:
    """A traced network, the places where it can be cut, and the networks between two such places."""

    def __init__(self, network: nn.Module, graph: fx.Graph, example: Tensor) -> None:
        self.network = network
        nodes = list(graph.nodes)
        self.images = nodes[0]
        result = nodes[-1].args[0]
        if not isinstance(result, fx.Node):
            raise SourceError(
                f"The network ({type(network).__name__}) returns several values.",
                "A source network takes one batch of images and returns their logits, nothing else.",
            )
        self.logits = result
        self.constants = self._constants(nodes)
        self.operations = [n for n in nodes if n.op not in {"placeholder", "output"} and n not in self.constants]
        self._graph, self._example = graph, example
        self._modules, self._saved = set(network.modules()), frozenset(network.state_dict())
        self._runs = [self._run(example)]
        self._last_use = self._last_uses()
        self.cuts = self._find_cuts()

    @staticmethod
    def _constants(nodes: Sequence[fx.Node]) -> dict[fx.Node, None]:
        constants: dict[fx.Node, None] = {}
        for node in nodes:
            inputs = node.all_input_nodes
            random = any(word in str(node.target).lower() for word in _RANDOM)
            followed = inputs and all(i in constants for i in inputs) and not random and node.op != "output"
            if node.op == "get_attr" or followed:
                constants[node] = None
        return constants

    def _run(self, images: Tensor) -> dict[fx.Node, Any]:
        recorder = _Recorder(self.network, self._graph)
        with torch.no_grad():
            recorder.run(images)
        return recorder.seen

    def _several_runs(self) -> list[dict[fx.Node, Any]]:
        """Values in runs with different numbers of images and, where the network takes them, sizes of images."""
        count, channels, height, width = self._example.shape
        for more_height, more_width in ((64, 32), (0, 0)):
            if len(self._runs) > 1:
                break
            other = self._example.new_zeros(count + 1, channels, height + more_height, width + more_width)
            with suppress(Exception):  # networks of fixed input size refuse in many ways
                self._runs.append(self._run(other))
        if len(self._runs) == 1:
            raise SourceError(
                f"The network ({type(self.network).__name__}) takes {counted(count, 'image')} at a time "
                f"but not {count + 1}.",
                "A source network must accept any number of images: look for a fixed batch size in its code.",
            )
        return self._runs

    def _last_uses(self) -> dict[fx.Node, int]:
        place = {node: i for i, node in enumerate(self.operations)}
        last = {self.logits: len(self.operations)}
        for node in [self.images, *self.operations]:
            users = [place[user] for user in node.users if user in place]
            last[node] = max([last.get(node, -1), *users])
        return last

    def _find_cuts(self) -> dict[int, Cut]:
        """The cut after each operation that has one, by position; positions with the same live tensor share it."""
        cuts: dict[int, Cut] = {}
        first: dict[fx.Node, Cut] = {}
        alive = {self.images}
        for position, node in enumerate(self.operations):
            alive = {n for n in alive | {node} if self._last_use[n] > position}
            tensors = [n for n in alive if isinstance(self._runs[0][n], TensorShape)]
            if len(tensors) != 1 or tensors[0] is self.images:
                continue
            (tensor,) = tensors
            if all(n is tensor or self._can_be_had_again(n, tensor) for n in alive):
                cuts[position] = first.setdefault(tensor, Cut(position, tensor))
        return cuts

    def _can_be_had_again(self, node: fx.Node, tensor: fx.Node) -> bool:
        try:
            self._expression(node, tensor)
        except _Underivable:
            return _is_device(node)
        return True

    def _expression(self, node: fx.Node, tensor: fx.Node) -> Any:
        runs = self._several_runs()
        return _derive([run[node] for run in runs], [run[tensor].sizes for run in runs])

    def uses(self) -> dict[int, list[int]]:
        """For each parameter, buffer or mode (by id) that operations read: the positions of those operations."""
        found: dict[int, list[int]] = {}
        readers: dict[fx.Node, list[fx.Node]] = {node: [node] for node in self.operations}
        for node in reversed(self.constants):
            readers[node] = [reader for user in node.users for reader in readers.get(user, [])]
        place = {node: i for i, node in enumerate(self.operations)}
        for node, operations in readers.items():
            for identity in self._state(node):
                found.setdefault(identity, []).extend(place[operation] for operation in operations)
        return found

    def _state(self, node: fx.Node) -> list[int]:
        """Ids of what `node` reads that training changes: parameters, buffers of modules, modules that have a mode."""
        if node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            value = getattr(self.network.get_submodule(owner), name, None)
            return [id(value)] if isinstance(value, nn.Parameter) else []
        if node.op != "call_module":
            return []
        module = self.network.get_submodule(str(node.target))
        with_mode = [m for m in module.modules() if _reads_mode(m)]
        return [id(state) for state in (*module.parameters(), *module.buffers(), *with_mode)]

    def segment(self, begin: Cut | None, end: Cut | None) -> fx.GraphModule:
        """The network from one cut (or the images) to another (or the logits); modules and parameters are shared."""
        graph = fx.Graph()
        tensor = self.images if begin is None else begin.tensor
        copies: dict[fx.Node, Any] = {tensor: graph.placeholder("x")}

        def ensure(node: fx.Node) -> Any:
            if node not in copies and node in self.constants:
                for needed in node.all_input_nodes:
                    ensure(needed)
                copies[node] = graph.node_copy(node, copies.__getitem__)
            elif node not in copies:
                copies[node] = self._again(node, tensor, copies[tensor], graph)
            return copies[node]

        start = 0 if begin is None else begin.position + 1
        stop = len(self.operations) if end is None else end.position + 1
        for node in self.operations[start:stop]:
            for needed in node.all_input_nodes:
                ensure(needed)
            copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(ensure(self.logits if end is None else end.tensor))
        return self._share(graph)

    def _share(self, graph: fx.Graph) -> fx.GraphModule:
        """A module that runs `graph` with the modules and parameters of the network, under their own names."""
        segment = fx.GraphModule(self.network, graph)
        for path, module in segment.named_modules():
            if path and module not in self._modules:
                module.training = self.network.get_submodule(path).training
            # torch.fx registers every tensor as a buffer to save; those that the network does not save stay unsaved.
            if not path or module not in self._modules:
                names = {name: f"{path}.{name}".lstrip(".") for name in module._buffers}
                module._non_persistent_buffers_set.update(n for n in names if names[n] not in self._saved)
        return segment

    def _again(self, node: fx.Node, tensor: fx.Node, copy: fx.Node, graph: fx.Graph) -> Any:
        if _is_device(node):
            return graph.call_function(getattr, (copy, "device"))
        again = _emit(self._expression(node, tensor), copy, graph)
        return graph.call_function(torch.Size, (again,)) if isinstance(self._runs[0][node], torch.Size) else again


def _reads_mode(module: nn.Module) -> bool:
    code = getattr(type(module).forward, "__code__", None)
    return code is not None and "training" in code.co_names


def _is_device(node: fx.Node) -> bool:
    return node.target is getattr and node.args[1:] == ("device",)
