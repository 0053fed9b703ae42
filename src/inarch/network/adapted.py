"""The adapted network: the stages of a source network, cut into a frozen and a trained part, with a graft behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from torch import Tensor, nn

from inarch.errors import SourceError
from inarch.network.grafts import Configuration, Widths, build_graft, graft_class

if TYPE_CHECKING:
    from inarch.network.stages import StagedNetwork


@final
class AdaptedNetwork(nn.Module):
    """A staged source network with a graft, frozen up to a cut.

    `cut` counts the frozen stages, from 0 to the number of stages; the last stage is the classification layer.
    `stored_cut` is the deepest cut whose activations never change while this network trains: all training needs are
    those activations and `from_stored`. The modules are shared with the source network, not copied.
    """

    def __init__(self, staged: StagedNetwork, configuration: Configuration, widths: Widths, *, cut: int, seed: int):
        super().__init__()
        graft = graft_class(configuration.graft)
        last = len(staged.stages) - 1
        self.cut = cut
        self.configuration = configuration
        self.stored_cut = cut if cut <= last or not graft.uses_features else last
        self.prefix = staged.segment(0, self.stored_cut)
        self.suffix = staged.segment(self.stored_cut, max(last, self.stored_cut))
        self.layer = staged.segment(last, last + 1) if graft.keeps_layer and self.stored_cut <= last else None
        self.graft = build_graft(configuration, widths, seed)
        self._freeze(layer_too=cut > last)

    def _freeze(self, *, layer_too: bool) -> None:
        self._frozen = [self.prefix, *([self.layer] if layer_too and self.layer is not None else [])]
        for parameter in self.parameters():
            parameter.requires_grad_(True)
        for module in self._frozen:
            for parameter in module.parameters():
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> AdaptedNetwork:
        """Training mode for what trains; frozen stages stay in evaluation mode (batch normalisation, dropout)."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def from_stored(self, stored: Tensor) -> Tensor:
        """Target logits [images, classes] from the activations at `stored_cut`."""
        features = self.suffix(stored)
        if not self.graft.keeps_layer:
            return self.graft(features, None)
        logits = features if self.layer is None else self.layer(features)
        return self.graft(features, logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.from_stored(self.prefix(images))

    def old_parameters(self) -> list[nn.Parameter]:
        """What trains of the source network."""
        new = {id(p) for p in self.graft.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in new]

    def new_parameters(self) -> list[nn.Parameter]:
        """What the graft brought."""
        return list(self.graft.parameters())
