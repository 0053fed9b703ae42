"""Turns a network into a graph of operations that behaves like the network in both modes and writes over nothing.

Built on torch.fx with the leaf registry of timm (`timm.layers.register_notrace_module`), which copes with
TensorFlow-style padding. Two things differ from plain symbolic tracing:

* the mode is not burnt in: while tracing, `module.training` is a value of the graph that is read again at every run.
  A module that branches on its mode (stochastic depth, attention with dropout) is kept whole; where that would
  swallow the classification layer (Inception, GoogLeNet), the evaluation branch is taken;
* operations that write over their input are replaced by those that do not, so that stored activations stay as they are.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import timm.layers
import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor, fx, nn

from inarch.errors import SourceError

_BY_HAND = "Name its stages by hand: --stages with the paths of modules that run one after the other."


class _BufferProxy(fx.Proxy):
    """A buffer in the graph whose shape is known while tracing, as torch.fx has it for parameters."""

    def __init__(self, tracer: fx.Tracer, node: fx.Node, buffer: Tensor) -> None:
        super().__init__(node, tracer)
        self.buffer = buffer

    @property
    def shape(self) -> torch.Size:
        return self.buffer.shape

    @property
    def ndim(self) -> int:
        return self.buffer.ndim

    def size(self, *dimension: int) -> Any:
        return self.buffer.size(*dimension)

    def dim(self) -> int:
        return self.buffer.dim()


class _ModeAwareTracer(fx.Tracer):
    """Symbolic tracer that reads every module's mode at run time and remembers where tracing failed."""

    def __init__(self, kept_whole: Iterable[str]) -> None:
        registry: Any = timm.layers
        functions = tuple(f for f in registry.get_notrace_functions() if callable(f))
        super().__init__(
            autowrap_modules=(math, torchvision.ops), autowrap_functions=functions, param_shapes_constant=True
        )
        self.kept_whole = frozenset(kept_whole)
        self.leaf_classes = tuple(registry.get_notrace_modules())
        self.owner_of_mode: dict[fx.Node, str] = {}
        self.branches_on_mode: set[str] = set()
        self.failed_in: str | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module becomes one node of the graph."""
        if module_qualified_name in self.kept_whole or isinstance(m, self.leaf_classes):
            return True
        # Layers of torch.nn and classes derived from them (timm.layers.Linear, BatchNormAct2d), but no containers.
        return any(
            base.__module__.startswith(("torch.nn.modules.", "torch.ao.nn."))
            and base.__module__ not in {"torch.nn.modules.module", "torch.nn.modules.container"}
            for base in type(m).__mro__
        )

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: dict[str, Any] | tuple[Any, ...] | None = None
    ) -> Any:
        """As in torch.fx; the graph exists from here on, so the modes can become values of it."""
        _, arguments = super().create_args_for_root(root_fn, is_module, concrete_args)
        for path, module in self.root.named_modules():
            if not path or not self.is_leaf_module(module, path):
                node = self.create_node("get_attr", f"{path}.training".lstrip("."), (), {})
                self.owner_of_mode[node] = path
                # nn.Module.__setattr__ would do the same; the dictionary says that nothing is registered.
                module.__dict__["training"] = self.proxy(node)
        # The network and its images: any further argument of its forward function has its default value.
        return root_fn, arguments[:2]

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """As in torch.fx; buffers become values of the graph too, else what is computed from them would be burnt in."""
        if isinstance(attr_val, Tensor) and not isinstance(attr_val, nn.Parameter):
            for name, buffer in self.root.named_buffers():
                if buffer is attr_val:
                    if name not in parameter_proxy_cache:
                        node = self.create_node("get_attr", name, (), {})
                        parameter_proxy_cache[name] = _BufferProxy(self, node, buffer)
                    return parameter_proxy_cache[name]
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """A branch on a mode takes the evaluation side and is noted; any other branch on a value cannot be traced."""
        if obj.node not in self.owner_of_mode:
            return super().to_bool(obj)
        self.branches_on_mode.add(self.owner_of_mode[obj.node])
        return False

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As in torch.fx; the innermost module that fails is remembered."""
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.failed_in is None:
                self.failed_in = self.path_of_module(m)
            raise


def _trace_once(network: nn.Module, kept_whole: Iterable[str]) -> tuple[fx.Graph, set[str]]:
    modes = {module: module.training for module in network.modules()}
    tracer = _ModeAwareTracer(kept_whole)
    try:
        graph = tracer.trace(network)
    except Exception as error:
        module = network.get_submodule(tracer.failed_in or "")
        where = f"its module '{tracer.failed_in}'" if tracer.failed_in else "its own forward function"
        reason = " ".join(str(error).split())[:200]
        raise SourceError(
            f"The network cannot be traced: {where} ({type(module).__name__}) is in the way: "
            f"{type(error).__name__}: {reason}.",
            _BY_HAND,
        ) from error
    finally:
        for module, training in modes.items():
            module.__dict__["training"] = training
    return graph, tracer.branches_on_mode


def trace(network: nn.Module, classification_layer: str, kept_whole: Iterable[str] = ()) -> fx.Graph:
    """The graph of `network`, without operations that write over their input.

    `kept_whole` are paths of modules that become one node each. Sets `inplace` of the network's activation modules to
    False. Raises SourceError that names the module in the way where the network cannot be traced.
    """
    whole = set(kept_whole)
    while True:
        graph, branching = _trace_once(network, whole)
        more = {path for path in branching - whole if path and not f"{classification_layer}.".startswith(f"{path}.")}
        if not more:
            break
        whole |= more
    _write_nothing_over(graph, network)
    graph.eliminate_dead_code(partial(_has_effect, next(iter(graph.nodes))))
    return graph


def _has_effect(images: fx.Node, node: fx.Node) -> bool:
    updates_a_buffer = node.op == "call_method" and str(node.target).endswith("_")
    return node is images or node.op == "output" or node.target is torch._assert or updates_a_buffer


def _write_nothing_over(graph: fx.Graph, network: nn.Module) -> None:
    """Replaces operations in place; whoever read the overwritten value afterwards now reads the new one."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        overwritten = node.args[0] if node.args else None
        # Writing into a buffer of the network is what a module does that keeps running statistics.
        if not isinstance(overwritten, fx.Node) or overwritten.op == "get_attr":
            continue
        if _make_out_of_place(node, network):
            overwritten.replace_all_uses_with(node, partial(_is_later, order, order[node]))
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]


def _is_later(order: dict[fx.Node, int], place: int, user: fx.Node) -> bool:
    return order[user] > place


def _make_out_of_place(node: fx.Node, network: nn.Module) -> bool:
    """Whether `node` wrote over its first argument; it no longer does (modules are switched by the caller)."""
    if node.op == "call_module":
        return getattr(network.get_submodule(str(node.target)), "inplace", False) is True
    if node.op == "call_method":
        name = str(node.target)
        if name.endswith("_") and not name.endswith("__") and hasattr(torch.Tensor, name[:-1]):
            node.target = name[:-1]
            return True
        return False
    if node.op != "call_function":
        return False
    name = getattr(node.target, "__name__", "")
    if name.endswith("_") and not name.endswith("__"):
        home = torch if hasattr(torch, name[:-1]) else F
        if hasattr(home, name[:-1]):
            node.target = getattr(home, name[:-1])
            return True
    return _clear_inplace_argument(node)


def _clear_inplace_argument(node: fx.Node) -> bool:
    with suppress(TypeError, ValueError):
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
        if bound.arguments.get("inplace") is True:
            bound.arguments["inplace"] = False
            node.args, node.kwargs = bound.args, bound.kwargs
            return True
    return False


def chain_of_modules(network: nn.Module, paths: Iterable[str]) -> fx.Graph:
    """A graph that runs the modules at `paths` one after the other, each on the output of the one before."""
    graph = fx.Graph()
    value = graph.placeholder("images")
    for path in paths:
        value = graph.call_module(path, (value,))
        value.meta["nn_module_stack"] = {path: (path, type(network.get_submodule(path)))}
    graph.output(value)
    _write_nothing_over(graph, network)
    return graph


def module_paths(node: fx.Node) -> list[str]:
    """Paths of the modules whose forward functions led to `node`, outermost first, without the root."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values() if path]
