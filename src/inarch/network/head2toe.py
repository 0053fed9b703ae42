"""A linear classifier on few features of all stages, chosen by a group lasso.

Evci, Dumoulin, Larochelle, Mozer, "Head2Toe: Utilizing intermediate representations for better transfer learning" (ICML
2022, arXiv 2201.03529). Maps of every stage are averaged over a grid that leaves at most so many numbers, every stage's
vector is brought to length one, and all are joined. A first linear layer is trained on them with the penalty lambda
sum_i |w_i|_2 over features i; the share of features with the largest |w_i|_2 is kept, the others are dropped, and a new
classifier is trained on what was kept, again with every stage's vector at length one:

    y = W h([n(e_1), ..., n(e_k), n(f), n(z)]_kept) + b,   n(x) = x / |x|_2 over the kept numbers of x

The layer that chooses is trained as in the authors' code: Adam, 500 steps of 128 images, the rate falling along a
cosine, lambda = 1e-4, a tenth of the features kept. The paper searches the size of the grid and the share; here they
are fixed. It chooses on the source network as it is, before the first step. Every stage is read, so activations can be
stored behind the first one alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inarch.network.graft import Activations, Configuration, Graft, Widths, pooled
from inarch.network.layers import harmoniser

# Most numbers that a stage's maps are averaged to; a stage with more channels keeps one number a channel.
TARGET = 512
KEPT = 0.1
PENALTY = 1e-4
STEPS, BATCH, RATE = 500, 128, 0.01


@final
class Selection(nn.Module):
    """The kept features [..., kept] of all that is seen, of which each stage's are brought to length one."""

    def __init__(self, kind: str, sizes: tuple[int, ...]) -> None:
        """sizes: numbers of each stage, earliest first, then of the penultimate features and of the source logits."""
        super().__init__()
        self.sizes = sizes
        total = sum(sizes)
        self.kept = max(1, int(KEPT * total))
        # Spread over all until something is chosen.
        self.register_buffer("chosen", torch.arange(self.kept) * total // self.kept)
        self.harmonise = harmoniser(kind, self.kept)

    def forward(self, features: Tensor, logits: Tensor, *earlier: Tensor) -> Tensor:
        chosen = self.get_buffer("chosen")
        mask = features.new_zeros(sum(self.sizes)).index_fill_(0, chosen, 1.0)
        parts = [
            F.normalize(part * some, dim=-1)
            for part, some in zip((*earlier, pooled(features), logits), mask.split(self.sizes), strict=True)
        ]
        return self.harmonise(torch.cat(parts, dim=-1).index_select(-1, chosen))


@final
class Head2Toe(Graft):
    """y = W h(kept features of all stages) + b; without harmonising it is the paper's."""

    name = "head2toe"
    keeps_layer = True
    uses_features = True
    stacks = False

    body: Selection

    def __init__(self, configuration: Configuration, widths: Widths) -> None:
        super().__init__(configuration, widths)
        earlier = (math.prod(grid(shape)) for shape in widths.earlier)
        self.body = Selection(configuration.harmonise, (*earlier, widths.features, widths.source_classes))
        self.classifier = nn.Linear(self.body.kept, widths.classes)

    @classmethod
    def taps(cls, stages: int) -> tuple[int, ...]:
        return tuple(range(1, stages - 1))

    @staticmethod
    def take(x: Tensor) -> Tensor:
        return on_grid(x)

    def forward(self, features: Tensor, logits: Tensor, *earlier: Tensor) -> Tensor:
        return self.classifier(self.body(features, logits, *earlier))

    def start(self, seen: Callable[[], Iterable[Activations]], labels: Tensor, seed: int) -> None:
        """Chooses the features that are kept; the classifier stays as it was drawn."""
        parts = [_normalised(*some) for some in seen()]
        scores = group_lasso_scores(torch.cat(parts), labels, self.classifier.out_features, seed)
        chosen = scores.topk(self.body.kept).indices.sort().values
        self.body.get_buffer("chosen").copy_(chosen)


def grid(shape: tuple[int, ...]) -> tuple[int, ...]:
    """What activations of a shape (without the batch) are averaged to: [channels, side, side] for maps."""
    match shape:
        case (channels, height, width):
            side = max(1, min(math.isqrt(TARGET // channels), height, width))
            return channels, side, side
        case (tokens, channels):
            return max(1, min(TARGET // channels, tokens)), channels
        case _:
            return shape


def on_grid(x: Tensor) -> Tensor:
    """Activations of any stage as vectors [images, numbers], averaged as `grid` says."""
    wanted = grid(tuple(x.shape[1:]))
    if x.ndim == 4:
        x = F.adaptive_avg_pool2d(x, wanted[-1])
    elif x.ndim == 3:
        x = F.adaptive_avg_pool1d(x.transpose(1, 2), wanted[0])
    return x.flatten(1)


def _normalised(features: Tensor | None, logits: Tensor | None, *earlier: Tensor | None) -> Tensor:
    assert features is not None
    every = [part for part in (*earlier, pooled(features), logits) if part is not None]
    return torch.cat([F.normalize(part.float(), dim=-1) for part in every], dim=-1)


def group_lasso_scores(features: Tensor, labels: Tensor, classes: int, seed: int) -> Tensor:
    """|w_i|_2^2 [features] of a linear layer trained on features [images, features] with a group lasso."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.zeros(classes, features.shape[1], device=features.device, requires_grad=True)
    bias = torch.zeros(classes, device=features.device, requires_grad=True)
    solver = torch.optim.Adam([weight, bias], lr=RATE)
    order = torch.empty(0, dtype=torch.long)
    with torch.enable_grad():
        for step in range(STEPS):
            if len(order) < min(BATCH, len(labels)):
                order = torch.randperm(len(labels), generator=random)
            some, order = order[:BATCH].to(features.device), order[BATCH:]
            solver.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
            solver.zero_grad()
            loss = F.cross_entropy(F.linear(features[some], weight, bias), labels[some])
            (loss + PENALTY * torch.linalg.vector_norm(weight, dim=0).sum()).backward()
            solver.step()
    return weight.detach().square().sum(dim=0)
