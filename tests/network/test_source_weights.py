"""Weights of source networks: from files and hubs, fitted or refused, and nothing in them ever runs."""

from __future__ import annotations

import pickle
import re
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from saved import resnet, save
from torch import nn

from inarch.errors import SourceError
from inarch.network.source import SourceOptions, load_source
from inarch.network.weights import copy_of_weights


def test_weights_files_are_loaded_whole_and_float16_becomes_float32(tmp_path: Path) -> None:
    network = resnet(num_classes=6).half().float()
    weights = save(network, tmp_path / "w.safetensors", torch.float16)
    options = SourceOptions(weights=weights, arguments={"num_classes": 6}, image_size=64)
    source = load_source("torchvision:resnet18", options)
    for name, value in network.state_dict().items():
        assert torch.equal(source.network.state_dict()[name], value), name
    assert source.classes == tuple(f"class {i}" for i in range(6))
    assert source.input.height == 64
    assert source.card.weights == "w.safetensors"


def test_the_digest_tells_weights_apart_and_nothing_else(tmp_path: Path) -> None:
    network = resnet(num_classes=3)
    options = SourceOptions(
        weights=save(network, tmp_path / "a.safetensors"), arguments={"num_classes": 3}, image_size=32
    )
    first = load_source("torchvision:resnet18", options).digest
    again = load_source("torchvision:resnet18", options).digest
    with torch.no_grad():
        network.fc.bias[0] += 1
    save(network, tmp_path / "a.safetensors")
    assert first == again != load_source("torchvision:resnet18", options).digest


def test_one_channel_weights_make_a_network_for_grey_images(tmp_path: Path) -> None:
    network = timm.create_model("mobilenetv3_small_100", in_chans=1)
    options = SourceOptions(weights=save(network, tmp_path / "grey.safetensors"), image_size=32)
    source = load_source("timm:mobilenetv3_small_100", options)
    assert source.input.channels == 1
    assert source.input.mean == (pytest.approx(0.449),)
    assert source.network(torch.zeros(2, 1, 32, 32)).shape == (2, 1000)
    grey = resnet(num_classes=1000)
    grey.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    options = SourceOptions(weights=save(grey, tmp_path / "grey2.safetensors"), image_size=32)
    assert load_source("torchvision:resnet18", options).input.channels == 1


@pytest.mark.parametrize("text", ["timm:resnet18", "torchvision:resnet18"])
def test_without_a_hub_the_error_says_what_to_pass(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    start = time.monotonic()
    with pytest.raises(SourceError, match=r"hub cannot be reached.* --weights FILE\.safetensors, or a card"):
        load_source(text)
    assert time.monotonic() - start < 20


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, (f"open({str(self.path)!r}, 'w').write('ran')",))


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_nothing_in_it_runs(tmp_path: Path, name: str, zipped: bool) -> None:
    trap = {"fc.weight": Trap(tmp_path / "ran")}
    if zipped:
        torch.save(trap, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(trap))
    with pytest.raises(
        SourceError, match=rf"'{name}' are a pickle.*not a safetensors file.*Nothing in the file was run"
    ):
        load_source("torchvision:resnet18", SourceOptions(weights=tmp_path / name))
    assert not (tmp_path / "ran").exists()


def test_a_pickle_in_the_cache_of_a_hub_does_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    url = torchvision.models.get_model_weights("resnet18").DEFAULT.url
    (tmp_path / "checkpoints").mkdir()
    torch.save({"fc.weight": Trap(tmp_path / "ran")}, tmp_path / "checkpoints" / url.rpartition("/")[2])
    with pytest.raises(SourceError, match="cannot be had with pre-trained weights"):
        load_source("torchvision:resnet18")
    assert not (tmp_path / "ran").exists()


def test_weights_of_densenets_have_older_names(tmp_path: Path) -> None:
    network = torchvision.models.densenet121(num_classes=3)
    state = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", n): v for n, v in network.state_dict().items()}
    published = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert published.keys() - network.state_dict().keys()
    save_file(published, tmp_path / "w.safetensors")
    options = SourceOptions(weights=tmp_path / "w.safetensors", arguments={"num_classes": 3}, image_size=32)
    source = load_source("torchvision:densenet121", options)
    for name, value in network.state_dict().items():
        assert torch.equal(source.network.state_dict()[name], value), name


def test_modules_that_ask_for_their_version_take_weights(tmp_path: Path) -> None:
    network = torchvision.models.mnasnet0_5(num_classes=3)
    weights = save(network, tmp_path / "w.safetensors")
    options = SourceOptions(weights=weights, arguments={"num_classes": 3}, image_size=64)
    source = load_source("torchvision:mnasnet0_5", options)
    for name, value in network.state_dict().items():
        assert torch.equal(source.network.state_dict()[name], value), name
    kept = copy_of_weights(source.network)
    with torch.no_grad():
        source.network.classifier[1].bias.add_(1)  # type: ignore[index, union-attr, operator]
    source.network.load_state_dict(kept)
    assert torch.equal(source.network.state_dict()["classifier.1.bias"], network.state_dict()["classifier.1.bias"])


@pytest.mark.parametrize(
    ("said", "transformed"), [({}, True), ({"transform_input": False}, False), ({"num_classes": 3}, False)]
)
def test_weights_from_a_file_see_the_pixels_that_they_were_trained_on(
    tmp_path: Path, said: dict[str, Any], transformed: bool
) -> None:
    arguments = {"aux_logits": False, "init_weights": False} | said
    weights = save(torchvision.models.googlenet(**arguments), tmp_path / "w.safetensors")
    source = load_source("torchvision:googlenet", SourceOptions(weights=weights, arguments=arguments, image_size=64))
    assert source.network.transform_input is transformed
    assert source.card.arguments.get("transform_input", False) is transformed


def test_missing_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'none\.safetensors' cannot be read"):
        load_source("torchvision:resnet18", SourceOptions(weights=tmp_path / "none.safetensors"))
    (tmp_path / "half.safetensors").write_bytes(save(resnet(), tmp_path / "w.safetensors").read_bytes()[:100_000])
    with pytest.raises(SourceError, match="not a safetensors file"):
        load_source("torchvision:resnet18", SourceOptions(weights=tmp_path / "half.safetensors"))
    network = resnet()
    with torch.no_grad():
        network.layer1[0].conv1.weight[0, 0, 0, 0] = torch.nan
    save(network, tmp_path / "nan.safetensors")
    with pytest.raises(SourceError, match=r"'layer1\.0\.conv1\.weight' has 1 value\(s\) that are not finite"):
        load_source("torchvision:resnet18", SourceOptions(weights=tmp_path / "nan.safetensors"))


def test_weights_that_do_not_fit_name_the_first_keys_and_shapes(tmp_path: Path) -> None:
    options = SourceOptions(weights=save(torchvision.models.resnet34(), tmp_path / "w.safetensors"))
    with pytest.raises(SourceError, match=r"not known to the network: layer1\.2\.bn1\.bias, .* and \d+ more"):
        load_source("torchvision:resnet18", options)
    state = {"conv1.weight": torch.zeros(64, 3, 5, 5), "stem.weight": torch.zeros(1)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SourceError) as caught:
        load_source("torchvision:resnet18", options)
    assert "missing in the weights: bn1.weight, bn1.bias, bn1.running_mean and" in str(caught.value)
    assert "not known to the network: stem.weight" in str(caught.value)
    assert "conv1.weight is [64, 3, 5, 5] instead of [64, 3, 7, 7]" in str(caught.value)


def test_weights_for_another_number_of_classes_are_said_to_be_that(tmp_path: Path) -> None:
    options = SourceOptions(weights=save(resnet(num_classes=7), tmp_path / "w.safetensors"))
    with pytest.raises(SourceError, match=r'another number of classes: .*"num_classes": 7'):
        load_source("torchvision:resnet18", options)


def test_position_embeddings_are_resized_for_another_image_size(tmp_path: Path) -> None:
    network = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1, num_classes=4)
    nn.init.normal_(network.head.weight)
    arguments = {"depth": 1, "num_classes": 4}
    options = SourceOptions(weights=save(network, tmp_path / "w.safetensors"), arguments=arguments, image_size=96)
    source = load_source("timm:vit_tiny_patch16_224", options)
    assert source.network.get_parameter("pos_embed").shape == (1, 37, 192)
    assert source.card.arguments["img_size"] == source.input.height == 96
    assert torch.equal(source.network.get_parameter("head.weight"), network.head.weight)


def test_position_embeddings_of_torchvision_are_resized_too(tmp_path: Path) -> None:
    network = torchvision.models.vit_b_16(image_size=32, num_classes=4)
    options = SourceOptions(
        weights=save(network, tmp_path / "w.safetensors"), arguments={"num_classes": 4}, image_size=48
    )
    source = load_source("torchvision:vit_b_16", options)
    assert source.network.get_parameter("encoder.pos_embedding").shape == (1, 10, 768)


def test_a_size_that_a_network_cannot_take_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'torchvision:vit_b_16' cannot be built .*image_size.*: 50"):
        load_source("torchvision:vit_b_16", SourceOptions(pretrained=False, image_size=50))
    with pytest.raises(SourceError, match=r"images of 8 x 8 pixels .*its module 'features\.\d+'"):
        load_source("torchvision:alexnet", SourceOptions(pretrained=False, image_size=8))
