"""The last stages of an adapted network that is a source again: what its graft brought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from torch import Tensor, nn

from inarch.network.grafts import Deepen
from inarch.network.pieces import InPieces, Pieces

if TYPE_CHECKING:
    from inarch.network.adapted import AdaptedNetwork


@final
class Body(InPieces):
    """The last stage but one of an adapted network whose graft has a body: what the classifier sees, from activations
    at the first place that the graft reads."""

    def __init__(self, network: AdaptedNetwork, start: int) -> None:
        super().__init__()
        last = len(network.staged.stages) - 1
        self.rest = network.staged.segment(start, last)
        self.layer = network.staged.segment(last, last + 1) if network.graft.keeps_layer else None
        self.body = network.graft.body
        self._take, self._first = network.graft.take, bool(network.taps)
        self._pieces = Pieces(network.staged, start, network.taps[1:], last)

    def train(self, mode: bool = True) -> Body:
        super().train(mode)
        self._pieces.train(mode)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> Body:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._pieces.apply(fn)
        return self

    def follow(self, path: str, module: nn.Module) -> None:
        part, _, within = path.partition(".")
        if part == "rest":
            self._pieces.put(within, module)

    def forward(self, x: Tensor) -> Tensor:
        assert self.body is not None
        first = (self._take(x),) if self._first else ()
        features, earlier = self._pieces.run(x, self._take)
        logits = None if self.layer is None else self.layer(features)
        return self.body(features, logits, *first, *earlier)


@final
class Head(nn.Module):
    """The last stage of an adapted network: the end of its graft, with the classification layer where both meet."""

    def __init__(self, network: AdaptedNetwork) -> None:
        super().__init__()
        graft = network.graft
        self.keeps = graft.keeps_layer
        self.alone = isinstance(graft, Deepen) or graft.body is not None
        self.layer = network.layer if graft.uses_features and graft.keeps_layer and not self.alone else None
        self.graft = graft.classifier if self.alone else graft

    def forward(self, x: Tensor) -> Tensor:
        if self.alone:
            return self.graft(x)
        if self.layer is not None:
            return self.graft(x, self.layer(x))
        return self.graft(None, x) if self.keeps else self.graft(x, None)
