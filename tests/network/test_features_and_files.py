"""What is no network whose features new layers could take, and weights as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from inarch.errors import SourceError
from inarch.network.adapted import stage
from inarch.network.stages import require_features
from inarch.network.weights import write_weights

EXAMPLE = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


class EveryPlace(nn.Module):
    """A classification layer at every place of a picture, or for every token of a row of them; then their mean."""

    def __init__(self, tokens: bool) -> None:
        super().__init__()
        self.first, self.fc, self.tokens = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), tokens

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).permute(0, 2, 3, 1)
        return self.fc(x.flatten(1, 2)).mean(1) if self.tokens else self.fc(x).mean((1, 2))


@pytest.mark.parametrize(("tokens", "shape"), [(True, r"\[100, 8\]"), (False, r"\[10, 10, 8\]")])
def test_a_layer_that_takes_no_features_of_an_image_is_refused(tokens: bool, shape: str) -> None:
    staged = stage(EveryPlace(tokens).eval(), "fc", EXAMPLE)
    with pytest.raises(SourceError, match=rf"takes 8 features, but what comes before it has the shape {shape}"):
        require_features(staged)


@pytest.mark.parametrize(
    "head",
    [
        [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)],
        [nn.Flatten(), nn.Linear(800, 5)],
        [nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
    ],
)
def test_vectors_and_feature_maps_are_features(head: list[nn.Module]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *head).eval()
    layer = next(path for path, m in network.named_children() if path > "1" and isinstance(m, nn.Linear | nn.Conv2d))
    require_features(stage(network, layer, EXAMPLE))


def test_tied_weights_are_written_under_every_name(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    write_weights(tmp_path / "w.safetensors", {"a": tied, "b": tied, "c": tied[1:].clone()})
    found = load_file(tmp_path / "w.safetensors")
    assert found.keys() == {"a", "b", "c"}
    assert torch.equal(found["a"], tied)
    assert torch.equal(found["b"], tied)
