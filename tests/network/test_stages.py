"""Stages: what they are called, what belongs to them, what they cost, and which networks cannot be cut."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from inarch.errors import SourceError
from inarch.network.source import load_source
from inarch.network.stages import require_cut, stage_network, stage_rows

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def names(network: nn.Module, layer: str, images: Tensor = IMAGES) -> list[str]:
    return [stage.name for stage in stage_network(network, layer, images).stages]


class Tiny(nn.Module):
    """Two convolutions, a row of residual blocks and a linear layer; what stands between is up to the test."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.middle = middle
        self.second = nn.Conv2d(8, 8, 3, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.norm(self.first(x)))
        return self.fc(self.flatten(self.pool(self.second(x))))


class Using(nn.Module):
    """A module with one layer that does what a function says."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def branching_on_values(module: Any, x: Tensor) -> Tensor:
    return module.conv(x) if x.sum() > 0 else module.conv(-x)


def test_alexnet_has_the_stages_of_its_paper() -> None:
    found = names(torchvision.models.alexnet(num_classes=5), "classifier.6", torch.zeros(1, 3, 64, 64))
    assert found == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "classification-layer"]


def test_resnet_is_cut_at_its_blocks() -> None:
    found = names(torchvision.models.resnet18(num_classes=5), "fc")
    blocks = [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]
    assert found == ["conv1", *blocks, "classification-layer"]


def test_squeezenet_keeps_convolution_and_pooling_in_its_last_stage() -> None:
    staged = stage_network(torchvision.models.squeezenet1_1(num_classes=5), "classifier.1", IMAGES)
    assert [s.name for s in staged.stages][:3] == ["features.0", "features.3", "features.4"]
    assert staged.stages[-1].name == "classification-layer"
    assert [s.output_shape for s in staged.stages[-2:]] == [(512, 1, 1), (5,)]
    assert staged.parameter_names(len(staged.stages)) == ("classifier.1.weight", "classifier.1.bias")


def test_stages_of_blocks_are_opened_where_they_can_be_cut() -> None:
    found = names(timm.create_model("convnext_atto", num_classes=5), "head.fc")
    assert found[:4] == ["stem.0", "stages.0.blocks.0", "stages.0.blocks.1", "stages.1.downsample.1"]
    found = names(timm.create_model("regnety_002", num_classes=5), "head.fc")
    assert found[:4] == ["stem", "s1.b1", "s2.b1", "s3.b1"]


def test_dense_blocks_and_inception_blocks_stay_whole() -> None:
    found = names(torchvision.models.DenseNet(4, (2, 2), 8, num_classes=5), "classifier")
    assert found == [
        "features.conv0",
        "features.denseblock1",
        "features.transition1",
        "features.denseblock2",
        "classification-layer",
    ]


def test_a_plain_vision_transformer_is_cut_behind_every_block() -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32, depth=3)
    assert names(network, "head") == ["patch_embed", "blocks.0", "blocks.1", "blocks.2", "classification-layer"]


def test_what_precedes_the_classification_layer_belongs_to_the_stage_before() -> None:
    network = torchvision.models.mobilenet_v2(num_classes=5)
    staged = stage_network(network, "classifier.1", IMAGES)
    assert staged.stages[-2].output_shape == (1280,)
    assert torch.equal(staged.segment(len(staged.stages) - 1, len(staged.stages))(torch.zeros(1, 1280)),
                       network.classifier[1].bias[None])  # fmt: skip


def test_stages_share_parameters_with_the_network_under_their_own_names() -> None:
    network = torchvision.models.resnet18(num_classes=5)
    staged = stage_network(network, "fc", IMAGES)
    own = dict(network.named_parameters())
    for cut in range(len(staged.stages) + 1):
        for segment in (staged.prefix(cut), staged.suffix(cut)):
            assert all(own[name] is parameter for name, parameter in segment.named_parameters())
    every = [name for i in range(1, len(staged.stages) + 1) for name in staged.parameter_names(i)]
    assert sorted(every) == sorted(network.state_dict())


def test_buffers_that_the_network_does_not_save_are_not_saved_by_its_stages() -> None:
    network = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, window_size=7, embed_dim=24,
                                depths=(1, 2), num_heads=(1, 2), num_classes=5)  # fmt: skip
    staged = stage_network(network, "head.fc", torch.zeros(1, 3, 56, 56))
    assert set(staged.prefix(3).state_dict()) | set(staged.suffix(3).state_dict()) == set(network.state_dict())


def test_costs_are_shares_and_parameters_are_all_there() -> None:
    network = torchvision.models.resnet18(num_classes=5)
    staged = stage_network(network, "fc", IMAGES)
    assert sum(stage.cost for stage in staged.stages) == pytest.approx(1)
    assert sum(stage.parameters for stage in staged.stages) == sum(p.numel() for p in network.parameters())
    last = staged.stages[-1]
    assert (last.index, last.parameters, last.output_shape) == (10, 512 * 5 + 5, (5,))
    assert stage_rows(staged)[0][:3] == ("1", "conv1", "9,536")


def test_staging_leaves_parameters_buffers_and_modes_as_they_are() -> None:
    network = torchvision.models.mobilenet_v2(num_classes=5).train()
    network.features[3].eval()
    before = copy.deepcopy(network)
    stage_network(network, "classifier.1", IMAGES)
    assert [m.training for m in network.modules()] == [m.training for m in before.modules()]
    assert all(type(m.training) is bool for m in network.modules())
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.state_dict().items())


def test_each_segment_has_a_mode_of_its_own() -> None:
    def dropout(module: Any, x: Tensor) -> Tensor:
        return nn.functional.dropout(module.conv(x), 0.5, module.training)

    staged = stage_network(Tiny(Using(dropout)).eval(), "fc", IMAGES)
    prefix, suffix = staged.prefix(1).eval(), staged.suffix(1).train()
    assert torch.equal(prefix(IMAGES), prefix(IMAGES))
    value = prefix(IMAGES)
    assert not torch.equal(suffix(value), suffix(value))
    assert torch.equal(suffix.eval()(value), suffix(value))
    frozen = copy.deepcopy(suffix).train()
    assert not torch.equal(frozen(value), frozen(value))


def test_operations_in_place_are_replaced_also_where_the_overwritten_value_is_read_again() -> None:
    def overwriting(module: Any, x: Tensor) -> Tensor:
        y = module.conv(x)
        y.relu_()
        z = nn.functional.hardtanh(y, -1, 1, inplace=True)
        z.mul_(2).add_(x)
        w = y + z
        w += x
        return torch.relu_(w)

    network = Tiny(Using(overwriting)).eval()
    expected = network(IMAGES)
    staged = stage_network(network, "fc", IMAGES, finer=True)
    value = IMAGES
    for i in range(len(staged.stages)):
        before = value.clone()
        value, kept = staged.segment(i, i + 1).eval()(value), value
        assert torch.equal(before, kept)
    assert torch.equal(value, expected)


def test_a_module_used_in_two_places_is_never_separated() -> None:
    class Twice(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            x = self.middle(self.norm(self.first(x)))
            return self.fc(self.flatten(self.pool(self.second(self.middle(x)))))

    staged = stage_network(Twice(nn.Conv2d(8, 8, 1)), "fc", IMAGES, finer=True)
    holders = [i for i in range(1, len(staged.stages) + 1) if "middle.weight" in staged.parameter_names(i)]
    assert len(holders) == 1
    assert staged.fine == ("first", "norm", "middle", "second", "pool", "flatten")


def test_auxiliary_classifiers_are_left_out_in_training_too() -> None:
    network = torchvision.models.googlenet(num_classes=5, aux_logits=True, init_weights=False)
    staged = stage_network(network, "fc", IMAGES)
    logits = staged.suffix(0).train()(IMAGES)
    assert isinstance(logits, Tensor)
    assert logits.shape == (2, 5)
    assert not any("aux" in name for i in range(1, len(staged.stages) + 1) for name in staged.parameter_names(i))


def test_stages_take_any_number_of_images() -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32, depth=2).eval()
    staged = stage_network(network, "head", IMAGES)
    images = torch.randn(5, 3, 32, 32)
    assert torch.equal(staged.suffix(2)(staged.prefix(2)(images)), network(images))


def test_a_network_that_cannot_be_traced_names_the_module_in_the_way() -> None:
    with pytest.raises(SourceError, match=r"its module 'middle' \(Using\) is in the way.*--stages"):
        stage_network(Tiny(Using(branching_on_values)), "fc", IMAGES)


def test_stages_can_be_named_by_hand_where_a_module_cannot_be_traced() -> None:
    network = Tiny(Using(branching_on_values)).eval()
    staged = stage_network(network, "fc", IMAGES, by_hand=["norm", "middle", "second"])
    assert [s.name for s in staged.stages] == ["norm", "middle", "second", "classification-layer"]
    assert [s.output_shape for s in staged.stages] == [(8, 15, 15), (8, 15, 15), (8,), (5,)]
    for cut in range(5):
        assert torch.equal(staged.suffix(cut)(staged.prefix(cut)(IMAGES)), network(IMAGES))


class Loop(Tiny):
    """Cannot be traced whole: its own forward function branches on values."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        x = self.middle(x) if x.sum() > -1e9 else x
        return self.fc(self.flatten(self.pool(self.second(x))))


def test_stages_by_hand_can_be_a_chain_of_all_modules() -> None:
    network = Loop(nn.ReLU(inplace=True)).eval()
    with pytest.raises(SourceError, match="its own forward function"):
        stage_network(network, "fc", IMAGES)
    chain = ["first", "norm", "middle", "second", "pool", "flatten"]
    staged = stage_network(network, "fc", IMAGES, by_hand=chain)
    assert [s.name for s in staged.stages] == [*chain, "classification-layer"]


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (["first", "norm", "second", "pool", "flatten"], "do not give the output of the network"),
        (["first", "norm", "middle", "second", "pool"], "cannot run one after the other"),
        (["first", "normal"], "has no module 'normal'. Near: norm"),
        ([""], "has no module ''"),
        ([], "No module is named"),
    ],
)
def test_wrong_stages_by_hand_are_refused(chain: list[str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        stage_network(Loop(nn.ReLU()), "fc", IMAGES, by_hand=chain)


def test_the_classification_layer_alone_is_no_place_to_cut() -> None:
    with pytest.raises(SourceError, match="None of the modules fc runs before the classification layer 'fc'"):
        stage_network(Tiny(nn.ReLU()).eval(), "fc", IMAGES, by_hand=["fc"])


def test_a_module_inside_one_that_is_kept_whole_is_no_place_to_cut() -> None:
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Flatten(), nn.LazyLinear(5))
    network(IMAGES)
    staged = stage_network(network.eval(), "2", IMAGES, by_hand=["0", "0.0", "1"])
    require_cut(staged, ["0", "1", "2"], "2")
    with pytest.raises(SourceError, match=r"cannot be cut behind the module '0\.0': .* inside another one"):
        require_cut(staged, ["0", "0.0", "1"], "2")


def test_a_stage_by_hand_must_not_hold_the_classification_layer() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(3072, 4), nn.Linear(4, 5)))
    with pytest.raises(SourceError, match=r"'1' contains the classification layer '1\.1'"):
        stage_network(network, "1.1", IMAGES, by_hand=["0", "1"])


def test_a_stage_by_hand_needs_one_tensor_behind_it() -> None:
    network = torchvision.models.resnet18(num_classes=5)
    with pytest.raises(SourceError, match=r"cannot be cut behind the module 'layer1\.0\.conv1'"):
        stage_network(network, "fc", IMAGES, by_hand=["layer1.0.conv1", "layer4"])


def test_two_heads_cannot_be_a_last_stage() -> None:
    network = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5, img_size=32, depth=1)
    with pytest.raises(SourceError, match="cannot be cut before its classification layer 'head_dist'"):
        stage_network(network, "head_dist", IMAGES)


def test_images_too_small_name_the_module_and_the_size() -> None:
    network = torchvision.models.alexnet(num_classes=5)
    with pytest.raises(SourceError, match=r"images of 32 x 32 pixels .*its module 'features\.\d+'.*--image-size"):
        stage_network(network, "classifier.6", IMAGES)


def test_segments_outside_the_network_do_not_exist() -> None:
    staged = stage_network(Tiny(nn.ReLU()), "fc", IMAGES)
    assert isinstance(staged.prefix(0), nn.Identity)
    assert isinstance(staged.suffix(len(staged.stages)), nn.Identity)
    with pytest.raises(IndexError, match="no stages"):
        staged.segment(0, len(staged.stages) + 1)


@pytest.mark.parametrize(
    ("card", "layer", "stages"),
    [
        ("mobilenetv1_025_128.in1k", "classifier", 15),
        ("mobilenetv1_100.in1k", "classifier", 15),
        ("mobilenetv2_100.in1k", "classifier", 20),
        ("squeezenet1_1.in1k", "classifier.1", 10),
    ],
)
def test_real_networks_load_and_are_the_sum_of_their_stages(shared: Path, card: str, layer: str, stages: int) -> None:
    source = load_source(str(shared / "weights" / f"{card}.json"), announce=lambda _: None)
    assert (source.name, source.classification_layer, len(source.classes)) == (card, layer, 1000)
    images = source.input.example()
    staged = stage_network(source.network, layer, images)
    assert len(staged.stages) == stages
    with torch.no_grad():
        value = images
        for i in range(stages):
            value = staged.segment(i, i + 1)(value)
        assert torch.equal(value, source.network(images))
