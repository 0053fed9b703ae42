"""Every architecture that Inarch promises to cut: at each cut, prefix and suffix together are the network, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from inarch.network.stages import StagedNetwork, stage_network

CLASSES = 7
EVERY = 6


@dataclass(frozen=True)
class Case:
    """A network with random weights, the size of its test images, and its stages at block level as the module tree has them."""

    library: str
    name: str
    layer: str
    arguments: dict[str, Any]
    size: int = 64

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        make: Callable[..., nn.Module] = timm.create_model if self.library == "timm" else torchvision.models.get_model
        return make(self.name, num_classes=CLASSES, **self.arguments)

    def __str__(self) -> str:
        return f"{self.library}-{self.name}" + ("-same" if "pad_type" in self.arguments else "")


DROP = {"drop_rate": 0.2, "drop_path_rate": 0.2}
NO_INIT = {"init_weights": False, "aux_logits": True, "transform_input": True}
CASES = [
    Case("torchvision", "alexnet", "classifier.6", {}, 96),
    Case("torchvision", "vgg16", "classifier.6", {}, 32),
    Case("torchvision", "squeezenet1_1", "classifier.1", {}),
    Case("torchvision", "resnet18", "fc", {}),
    Case("timm", "resnet18", "fc", DROP),
    Case("torchvision", "densenet121", "classifier", {"drop_rate": 0.1}, 32),
    Case("timm", "densenet121", "classifier", {"drop_rate": 0.1}, 32),
    Case("timm", "mobilenetv1_100", "classifier", {"drop_rate": 0.2}),
    Case("timm", "mobilenetv1_100", "classifier", {"pad_type": "same", **DROP}),
    Case("timm", "mobilenetv2_100", "classifier", DROP),
    Case("torchvision", "mobilenet_v2", "classifier.1", {}),
    Case("timm", "mobilenetv3_small_100", "classifier", DROP),
    Case("torchvision", "mobilenet_v3_small", "classifier.3", {}),
    Case("timm", "mobilenetv4_conv_small", "classifier", DROP),
    Case("timm", "efficientnet_b0", "classifier", DROP),
    Case("timm", "tf_efficientnet_b0", "classifier", DROP),
    Case("torchvision", "efficientnet_b0", "classifier.1", {}),
    Case("timm", "convnext_atto", "head.fc", DROP),
    Case("torchvision", "convnext_tiny", "classifier.2", {}, 32),
    Case("timm", "regnety_002", "head.fc", DROP),
    Case("torchvision", "regnet_y_400mf", "fc", {}),
    Case("timm", "swin_tiny_patch4_window7_224", "head.fc", {"img_size": 56, "window_size": 7, **DROP}, 56),
    Case("torchvision", "swin_t", "head", {"dropout": 0.1, "attention_dropout": 0.1}),
    Case("timm", "vit_tiny_patch16_224", "head", {"img_size": 64, "attn_drop_rate": 0.1, **DROP}),
    Case("torchvision", "vit_b_16", "heads.head", {"image_size": 64, "dropout": 0.1, "attention_dropout": 0.1}),
    Case("torchvision", "inception_v3", "fc", NO_INIT, 96),
    Case("torchvision", "googlenet", "fc", NO_INIT),
]


def _images(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    result = network(images)
    return result if isinstance(result, Tensor) else result[0]  # Inception and GoogLeNet add auxiliary logits


def _buffers(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def _put_back(network: nn.Module, buffers: dict[str, Tensor]) -> None:
    for name, buffer in network.named_buffers():
        buffer.copy_(buffers[name])


def _same(one: dict[str, Tensor], other: dict[str, Tensor], except_for: str = "AuxLogits") -> None:
    for name, value in one.items():
        if not name.startswith((except_for, "aux")):
            assert torch.equal(value, other[name]), name


def _check_evaluation(original: nn.Module, staged: StagedNetwork, images: Tensor) -> None:
    expected = original.eval()(images)
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
    expected = _logits(original.train(), images)
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
        assert torch.equal(staged.suffix(cut).train()(staged.prefix(cut).train()(images)), expected), staged.fine[cut - 1]
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
    assert len(staged.stages) == len(staged.fine) + 1 >= 20
    _check_evaluation(original, staged, images)
    _check_training(original, staged, images)
