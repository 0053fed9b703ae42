"""The architectures that Inarch promises to cut: at each cut, prefix and suffix are the network, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from inarch.network.stages import StagedNetwork, stage_network

CLASSES = 7
EVERY = 6


def small_densenet(**arguments: Any) -> nn.Module:
    return torchvision.models.DenseNet(8, (3, 4, 6, 4), 16, **arguments)


def small_swin(**arguments: Any) -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 24, [2, 2, 4, 2], [1, 2, 4, 8], [7, 7], **arguments)


def small_vit(**arguments: Any) -> nn.Module:
    return torchvision.models.VisionTransformer(64, 16, 4, 3, 48, 96, **arguments)


@dataclass(frozen=True)
class Case:
    """How to build a network with random weights, its classification layer, and the size of its test images."""

    make: str | Callable[..., nn.Module]
    layer: str
    arguments: dict[str, Any]
    size: int = 64

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        make = self.make
        if isinstance(make, str):
            library, _, name = make.partition(":")
            make = partial(timm.create_model if library == "timm" else torchvision.models.get_model, name)
        network = make(num_classes=CLASSES, **self.arguments)
        # Vision transformers start theirs at zero: any features would give the same logits.
        nn.init.normal_(network.get_submodule(self.layer).weight, std=0.1)
        return network

    def __str__(self) -> str:
        name = self.make if isinstance(self.make, str) else f"torchvision:{self.make.__name__}"
        return name + ("-same" if "pad_type" in self.arguments else "")


DROP = {"drop_rate": 0.2, "drop_path_rate": 0.2}
DROP_OUT = {"dropout": 0.1, "attention_dropout": 0.1}
CASES = [
    Case("torchvision:alexnet", "classifier.6", {}),
    Case("torchvision:vgg16", "classifier.6", {}, 32),
    Case("torchvision:squeezenet1_1", "classifier.1", {}),
    Case("torchvision:resnet18", "fc", {}),
    Case("timm:densenet121", "classifier", {"drop_rate": 0.1}, 32),
    Case(small_densenet, "classifier", {"drop_rate": 0.1}),
    Case("timm:mobilenetv1_100", "classifier", {"drop_rate": 0.2}, 32),
    Case("timm:mobilenetv1_100", "classifier", {"pad_type": "same", **DROP}, 32),
    Case("timm:mobilenetv2_100", "classifier", DROP, 32),
    Case("torchvision:mobilenet_v2", "classifier.1", {}, 32),
    Case("timm:mobilenetv3_small_100", "classifier", DROP),
    Case("torchvision:mobilenet_v3_small", "classifier.3", {}),
    Case("timm:mobilenetv4_conv_small", "classifier", DROP),
    Case("timm:efficientnet_b0", "classifier", DROP, 32),
    Case("timm:tf_efficientnet_b0", "classifier", DROP, 32),
    Case("torchvision:efficientnet_b0", "classifier.1", {}, 32),
    Case("timm:convnext_atto", "head.fc", DROP),
    Case("torchvision:convnext_tiny", "classifier.2", {}, 32),
    Case("timm:regnety_002", "head.fc", DROP),
    Case("torchvision:regnet_y_400mf", "fc", {}),
    Case(
        "timm:swin_tiny_patch4_window7_224",
        "head.fc",
        {"img_size": 56, "window_size": 7, "embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), **DROP},
        56,
    ),
    Case(small_swin, "head", DROP_OUT),
    Case("timm:vit_tiny_patch16_224", "head", {"img_size": 64, "depth": 6, "attn_drop_rate": 0.1, **DROP}),
    Case(small_vit, "heads.head", DROP_OUT),
    # Auxiliary classifiers would draw from the random numbers that the dropout before the classification layer gets.
    Case("torchvision:inception_v3", "fc", {"init_weights": False, "aux_logits": False, "transform_input": True}, 80),
]


def _images(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def _buffers(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def _put_back(network: nn.Module, buffers: dict[str, Tensor]) -> None:
    for name, buffer in network.named_buffers():
        buffer.copy_(buffers[name])


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def _check_evaluation(original: nn.Module, staged: StagedNetwork, images: Tensor) -> None:
    expected = original.eval()(images)
    assert expected.std() > 0
    value = images
    for cut in range(1, len(staged.stages)):
        value = staged.segment(cut - 1, cut).eval()(value)
        before = value.clone()
        assert torch.equal(staged.suffix(cut).eval()(value), expected), staged.fine[cut - 1]
        assert torch.equal(before, value), staged.fine[cut - 1]
        if cut % EVERY == 1:
            assert torch.equal(staged.prefix(cut).eval()(images), value), staged.fine[cut - 1]


def _check_training(original: nn.Module, staged: StagedNetwork, images: Tensor) -> None:
    start = _buffers(original)
    torch.manual_seed(2)
    expected = original.train()(images)
    end = _buffers(original)
    values = [images]
    copies = [images.clone()]
    torch.manual_seed(2)
    for stage in range(len(staged.stages)):
        values.append(staged.segment(stage, stage + 1).train()(values[-1]))
        copies.append(values[-1].clone())
    assert torch.equal(values[-1], expected)
    _same(end, _buffers(staged.network))
    for value, copied, name in zip(values, copies, ("images", *staged.fine, "logits"), strict=True):
        assert torch.equal(value, copied), name
    for cut in range(1, len(staged.stages), EVERY):
        _put_back(staged.network, start)
        torch.manual_seed(2)
        value = staged.prefix(cut).train()(images)
        assert torch.equal(staged.suffix(cut).train()(value), expected), staged.fine[cut - 1]
        _same(end, _buffers(staged.network))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Images this small gain nothing from more, and lose much where threads compete."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=str)
@torch.no_grad()
def test_prefix_and_suffix_are_the_network_at_every_cut(case: Case) -> None:
    network = case.build()
    original = copy.deepcopy(network)
    images = _images(case.size)
    staged = stage_network(network, case.layer, images, finer=True)
    assert len(staged.stages) == len(staged.fine) + 1 >= 16
    _check_evaluation(original, staged, images)
    _check_training(original, staged, images)
