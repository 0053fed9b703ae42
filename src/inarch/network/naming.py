"""Stages at block level: which blocks a network is made of, and what people call them.

From the root of the module tree, containers are opened, and so are modules that are rows of alike blocks (the stages of
ConvNeXt, Swin or RegNet), if the network can be cut between those blocks. What is not opened and has weights that
connect channels (two or more dimensions) starts a stage; normalisation, activations and pooling belong to the stage
before them. The classification layer is always the last stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn

from inarch.network.cuts import Cut, CuttableGraph
from inarch.network.tracing import module_paths

LAST_STAGE = "classification-layer"
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class _Blocks:
    """The module tree of a network as people see it."""

    def __init__(self, cuttable: CuttableGraph, allowed: set[int], classification_layer: str) -> None:
        self.network = cuttable.network
        self.modules = dict(cuttable.network.named_modules())
        self.stacks = [module_paths(node) for node in cuttable.operations]
        self.allowed = allowed
        self.classification_layer = classification_layer
        self.first: dict[str, int] = {}
        for position, stack in enumerate(self.stacks):
            for path in stack:
                self.first.setdefault(path, position)
        self.rows = self._rows()

    def _children(self, path: str) -> Iterator[str]:
        """Children of a module that run, those of containers instead of the containers."""
        for name, child in self.modules[path].named_children():
            child_path = f"{path}.{name}".lstrip(".")
            if type(child) in _CONTAINERS:
                yield from self._children(child_path)
            elif child_path in self.first:
                yield child_path

    def _alike(self, path: str) -> list[str]:
        """The largest group of children of one class that are blocks: they have children with parameters."""
        blocks = [
            child
            for child in self._children(path)
            if any(True for grandchild in self.modules[child].children() for _ in grandchild.parameters())
        ]
        count = Counter(type(self.modules[block]) for block in blocks)
        if not count:
            return []
        common = count.most_common(1)[0][0]
        return sorted((b for b in blocks if type(self.modules[b]) is common), key=self.first.__getitem__)

    def _rows(self) -> set[type[nn.Module]]:
        """Classes whose every instance can be cut between its blocks, and at least one has several of them."""
        separable: dict[type[nn.Module], bool] = {}
        several: set[type[nn.Module]] = set()
        for path in self.first:
            blocks = self._alike(path)
            kind = type(self.modules[path])
            cut = all(self.first[block] - 1 in self.allowed for block in blocks[1:])
            separable[kind] = separable.get(kind, True) and cut
            if len(blocks) > 1:
                several.add(kind)
        return {kind for kind in several if separable[kind]}

    def _is_opened(self, path: str) -> bool:
        kind = type(self.modules[path])
        return kind in _CONTAINERS or kind in self.rows or f"{self.classification_layer}.".startswith(f"{path}.")

    def starts(self) -> Iterator[tuple[int, str]]:
        """Position of the first operation and path of each block that has weights, in order of execution."""
        current = None
        for position, stack in enumerate(self.stacks):
            block = next((path for path in stack if not self._is_opened(path)), None)
            if block is None or block == current:
                continue
            if any(parameter.dim() >= 2 for parameter in self.modules[block].parameters()):
                current = block
                yield position, block


def block_stages(
    cuttable: CuttableGraph, cuts: dict[int, Cut], classification_layer: str, last: Cut
) -> tuple[list[Cut], list[str]]:
    """The cuts between stages at block level, and the names of the stages (one more than cuts).

    `cuts` are those allowed, by position; `last` is the one before the classification layer. Where a block does not
    begin at an allowed cut it is merged with the one before it.
    """
    blocks = _Blocks(cuttable, set(cuts), classification_layer)
    between: list[Cut] = []
    paths: list[str] = []
    for position, path in blocks.starts():
        cut = cuts.get(position - 1)
        if not paths:
            paths.append(path)
        elif cut is not None and cut.position < last.position and cut not in between:
            between.append(cut)
            paths.append(path)
    if not paths:
        return [], [LAST_STAGE]
    return [*between, last], [*_names(paths, blocks.modules), LAST_STAGE]


def _names(paths: list[str], modules: dict[str, nn.Module]) -> list[str]:
    """Paths, except in plain chains of numbered layers (AlexNet, VGG): kind and running number, as in the papers."""
    kinds = ["fc" if isinstance(modules[p], nn.Linear) else "conv" for p in paths]
    plain = all(
        isinstance(modules[p], nn.Linear | nn.modules.conv._ConvNd) and p.rpartition(".")[2].isdigit() for p in paths
    )
    return [f"{kind}{i}" for i, kind in enumerate(kinds, 1)] if plain else unique(paths)


def fine_names(cuttable: CuttableGraph, cuts: list[Cut]) -> list[str]:
    """A name for what ends at each cut: the path of a module, or of the module that a function is in, and its name."""
    names = []
    for cut in cuts:
        node = cut.tensor
        if node.op == "call_module":
            names.append(str(node.target))
        else:
            operation = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.name)
            names.append(".".join([*module_paths(node)[-1:], str(operation).strip("_")]))
    return unique(names)


def unique(names: list[str]) -> list[str]:
    """The names, the second and further of the same name with a number."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name}:{seen[name]}")
    return result
