"""LoRA: old weights stay as they are, and a product of two thin matrices is trained beside each of them.

Hu et al., "LoRA: Low-rank adaptation of large language models" (ICLR 2022, arXiv 2106.09685), section 4.1: a layer
computes W x + (alpha / r) B A x, where A [r, in] starts at random and B [out, r] at zero, so that training starts from
the source network. At the end (alpha / r) B A is added to W: the delivered network is an ordinary one. Adapters are
those of the library peft; in convolutions A has the kernel of the layer and B is one pixel wide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar, final

from torch import nn

from inarch.errors import UsageError
from inarch.methods.method import Method, Task
from inarch.network.adapted import AdaptedNetwork
from inarch.network.grafts import Configuration
from inarch.network.randomness import own_randomness
from inarch.network.stages import Stages


@final
@dataclass
class LoRA(Method):
    """rank, alpha: r and alpha of the formula. The paper sets alpha to the first rank that it tries: a scale of 1.

    Every linear layer and convolution behind the cut is adapted, but for grouped convolutions, whose few weights a
    product of thin matrices does not make fewer, and for convolutions that pad in a way of their own (TensorFlow's)
    where padding matters. Everything else that is old rests, batch normalisation included; so nothing old moves until
    the end, when the adapted weights do. Adapters learn at the old layers' rate, new layers as always. Where no old
    layer trains this is plain fine-tuning.
    """

    name: ClassVar[str] = "lora"

    rank: int = 8
    alpha: int = 8
    # What stood where adapters stand now, by part and path.
    _replaced: dict[tuple[str, str], nn.Module] = field(default_factory=dict, init=False, repr=False)
    _network: AdaptedNetwork | None = field(default=None, init=False, repr=False)

    def require(self, configuration: Configuration, staged: Stages) -> None:
        if find_spec("peft") is None:
            raise UsageError("lora needs the library peft, which is not installed.", "pip install 'inarch[adapters]'")
        if not adaptable(staged.network.named_modules()):
            raise UsageError("lora adapts linear layers and convolutions, and the network has none.", "Leave it out.")

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        trained, last = set(network.old_stages()), len(network.staged.stages)
        if not trained:
            return
        inside = {name for k in trained - {last} for name, _ in network.staged.segment(k - 1, k).named_modules()}
        network.rest(range(1, last + 1))
        self._network = network
        with own_randomness(task.seed):
            self._adapt("suffix", (n for n in adaptable(network.suffix.named_modules()) if n in inside))
            if network.layer is not None and last in trained:
                self._adapt("layer", adaptable(network.layer.named_modules()))
        network.to(task.labels.device)

    def _adapt(self, part: str, names: Iterable[str]) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        assert self._network is not None
        whole, names = self._network.get_submodule(part), list(names)
        if not names:
            return
        found = {name: whole.get_submodule(name) for name in names}
        targets = "|".join(map(re.escape, names))
        inject_adapter_in_model(LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=targets), whole)
        for name, module in found.items():
            self._replaced[part, name] = module
            self._network.put(part, name, whole.get_submodule(name))

    def finish(self, network: AdaptedNetwork) -> None:
        for part, name in self._replaced:
            adapted: Any = network.get_submodule(part).get_submodule(name)
            adapted.merge()
        self.release()
        network.hold(network.cut)

    def release(self) -> None:
        for (part, name), module in self._replaced.items():
            assert self._network is not None
            self._network.put(part, name, module)
        self._replaced, self._network = {}, None


def adaptable(modules: Iterable[tuple[str, nn.Module]]) -> list[str]:
    """Names of those that can have an adapter."""
    return [name for name, module in modules if name and _can_be_adapted(module)]


def _can_be_adapted(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d) and module.groups == 1:
        # Classes that derive from it pad by themselves, which an adapter does not do: no matter for single pixels.
        return type(module) is nn.Conv2d or module.kernel_size == module.stride == (1, 1)
    return type(module) is nn.Linear
