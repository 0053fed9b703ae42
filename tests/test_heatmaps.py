"""Heat maps: the figures of Grad-CAM, where in a network they are taken, their pictures and the names of these."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn
from toy import DEEPER, SIDE, toy_network, write_images, write_source
from workbench import small

from inarch.errors import MissingExtraError, SourceError, UsageError
from inarch.features.machine import Machine
from inarch.heatmaps import HeatMaps, deepest_maps, overlay, overlay_names, picture_of
from inarch.network.adapted import AdaptedNetwork, addition, stage
from inarch.network.card import Card, InputSpec
from inarch.network.grafts import Configuration, Widths
from inarch.network.source import Source, load_source
from inarch.network.stages import stage_network
from inarch.python import load

SPEC = InputSpec(3, 32, 32, (0.5,) * 3, (0.5,) * 3)
SMALL = InputSpec(3, SIDE, SIDE, (0.5,) * 3, (0.5,) * 3)


def by_hand(before: nn.Module, behind: nn.Module, pixels: torch.Tensor, classes: torch.Tensor) -> np.ndarray:
    """Grad-CAM as its paper has it: weights are the mean gradients of the class's logit, the sum is rectified."""
    maps = before(pixels).detach().requires_grad_(True)
    logits = behind(maps).gather(1, classes[:, None]).sum()
    (gradient,) = torch.autograd.grad(logits, maps)
    heat = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1).relu().detach()
    return (heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)).numpy()


@pytest.fixture
def toy(tmp_path: Path) -> Source:
    return load_source(str(write_source(tmp_path / "source")), announce=lambda text: None)


def adapted(toy: Source, graft: str) -> Source:
    """The toy with a graft that nobody trained, as a model folder would give it."""
    staged = stage(toy.network, toy.classification_layer, toy.input.example())
    network = AdaptedNetwork(staged, Configuration(graft, "none", (7,) if graft == "deepen" else ()),
                             Widths(12, 6, 3), cut=1, seed=3).eval()  # fmt: skip
    added = addition(network, toy.classification_layer, toy.classes, ())
    card = Card("python:toy.py:toy", input=toy.input, extra={"adapted": [added]})
    return Source("adapted", card, network, toy.input, ("a", "b", "c"), "graft.classifier", "", Path())


def test_heat_is_that_of_the_paper_at_the_last_feature_maps_of_the_source(toy: Source) -> None:
    pixels, classes = toy.input.example(4), torch.tensor([0, 5, 2, 2])
    layers = list(toy.network.eval().children())
    expected = by_hand(nn.Sequential(*layers[:8]), nn.Sequential(*layers[8:]), pixels, classes)
    found = HeatMaps(toy, Machine()).of(pixels, classes)
    assert found.shape == (4, 8, 8)
    assert found == pytest.approx(expected, abs=1e-5)
    assert found.max() == pytest.approx(1.0)


@pytest.mark.parametrize("graft", ["replace", "retain", "deepen", "joined"])
def test_heat_of_every_graft_is_taken_at_the_last_feature_maps_of_its_source(toy: Source, graft: str) -> None:
    source = adapted(toy, graft)
    pixels, classes = toy.input.example(4), torch.tensor([0, 1, 2, 2])
    layers = list(toy.network.eval().children())
    network = source.network
    assert isinstance(network, AdaptedNetwork)

    def behind(maps: torch.Tensor) -> torch.Tensor:
        features = nn.Sequential(*layers[8:10])(maps)
        return network.graft(features, layers[10](features))

    expected = by_hand(nn.Sequential(*layers[:8]), behind, pixels, classes)  # type: ignore[arg-type]
    assert HeatMaps(source, Machine()).of(pixels, classes) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("graft", ["wa-cnn", "wwa-cnn", "head2toe"])
def test_heat_of_a_graft_that_reads_on_the_way_is_taken_at_the_last_stage_with_maps(graft: str) -> None:
    source = deeper(graft)
    pixels, classes = source.input.example(4), torch.tensor([0, 1, 2, 2])
    network = source.network
    assert isinstance(network, AdaptedNetwork)
    layers = list(network.staged.network.eval().children())
    first = nn.Sequential(*layers[:4])(pixels).detach()

    def behind(maps: torch.Tensor) -> torch.Tensor:
        features = nn.Sequential(*layers[6:12])(maps)
        earlier = [network.graft.take(x) for x in ([maps] if graft == "wa-cnn" else [first, maps])]
        logits = layers[12](features) if network.graft.keeps_layer else None
        return network.graft(features, logits, *earlier)

    expected = by_hand(nn.Sequential(*layers[:6]), behind, pixels, classes)  # type: ignore[arg-type]
    found = HeatMaps(source, Machine()).of(pixels, classes)
    assert found == pytest.approx(expected, abs=1e-5)
    assert found.max() > 0


def test_a_model_adapted_again_is_refused_where_its_last_maps_lie_inside_a_stage() -> None:
    for graft, refused in (("head2toe", True), ("wwa-cnn", True), ("wa-cnn", False)):
        inner = deeper(graft).network
        staged = stage(inner, "graft.classifier", SMALL.example())
        (width,) = staged.stages[-2].output_shape
        network = AdaptedNetwork(staged, small("replace"), Widths(width, 3, 3), cut=0, seed=1).eval()
        added = {"source_classification_layer": "12", "source_stages": []}
        card = Card("python:toy.py:toy", input=SMALL, extra={"adapted": [added, added]})
        source = Source("again", card, network, SMALL, ("a", "b", "c"), "graft.classifier", "", Path())
        if refused:
            with pytest.raises(SourceError, match=f"'again' was adapted from .* {graft}, reads .*Leave out --heatmaps"):
                HeatMaps(source, Machine())
        else:
            assert HeatMaps(source, Machine()).of(SMALL.example(2), torch.tensor([0, 1])).shape == (2, 8, 8)


def deeper(graft: str) -> Source:
    """The deeper toy network with a graft that nobody trained."""
    staged = stage(toy_network(DEEPER).eval(), "12", SMALL.example())
    network = AdaptedNetwork(staged, small(graft), Widths(12, 6, 3), cut=1, seed=3).eval()
    added = addition(network, "12", tuple("abcdef"), ())
    card = Card("python:toy.py:toy", input=SMALL, extra={"adapted": [added]})
    return Source("deeper", card, network, SMALL, ("a", "b", "c"), "graft.classifier", "", Path())


def test_a_bright_spot_that_decides_is_where_the_heat_is() -> None:
    """A network that answers "bright" by the brightest place, and images with one bright corner each."""
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network[0].weight[0] = 1.0
        network[4].weight[0, 0] = 1.0
        network[4].weight[1, 1] = 1.0
    source = Source("spot", Card("python:spot.py:spot"), network.eval(), SPEC, ("bright", "dark"), "4", "", Path())
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, :8, :8] = images[1, :, 24:, 24:] = 1.0
    heat = HeatMaps(source, Machine()).of(images, torch.tensor([0, 0]))
    assert heat[0, :8, :8].min() == heat[1, 24:, 24:].min() == 1.0
    assert heat[0, 8:].max() == heat[1, :24].max() == 0.0
    assert HeatMaps(source, Machine()).of(images, torch.tensor([1, 1])).max() == 0.0


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("resnet18", {}, (512, 2, 2)),
        ("mobilenetv3_small_050", {}, (288, 2, 2)),
        ("densenet121", {}, (1024, 2, 2)),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2}, (2, 2, 768)),
    ],
)
def test_real_networks_give_their_last_feature_maps(
    name: str, arguments: dict[str, int], shape: tuple[int, ...]
) -> None:
    side = arguments.get("img_size", 64)
    network = timm.create_model(name, pretrained=False, num_classes=5, **arguments).eval()
    spec = InputSpec(3, side, side, (0.5,) * 3, (0.5,) * 3)
    layer = network.get_classifier()
    path = next(
        path for path, module in network.named_modules() if module is layer or module is getattr(layer, "fc", 0)
    )
    source = Source(name, Card(f"timm:{name}"), network, spec, tuple("abcde"), path, "", Path())
    staged = stage_network(network, path, spec.example(), finer=True)
    assert staged.stages[deepest_maps(staged, name) - 1].output_shape == shape
    heat = HeatMaps(source, Machine()).of(spec.example(2), torch.tensor([1, 4]))
    assert heat.shape == (2, 2, 2)
    assert np.isfinite(heat).all()
    assert heat.min() >= 0


def test_maps_before_the_classification_layer_itself_are_found() -> None:
    network = torchvision.models.squeezenet1_1(weights=None, num_classes=4).eval()
    spec = InputSpec(3, 64, 64, (0.5,) * 3, (0.5,) * 3)
    staged = stage_network(network, "classifier.1", spec.example(), finer=True)
    assert staged.stages[deepest_maps(staged, "squeezenet") - 1].output_shape == (512, 3, 3)


def test_a_network_of_tokens_is_refused_with_the_reason() -> None:
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=32, num_classes=4).eval()
    source = Source("vit", Card("timm:vit"), network, SPEC, tuple("abcd"), "head", "", Path())
    with pytest.raises(SourceError, match=r"'vit' has no feature maps .* but 5 tokens of 192 channels"):
        HeatMaps(source, Machine())


def test_without_captum_the_error_names_the_extra(toy: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'inarch\[heatmaps\]'"):
        HeatMaps(toy, Machine())


def test_overlays_are_named_after_their_images_and_never_twice_the_same() -> None:
    files = [Path(name) for name in ("a/cat.jpg", "b/cat.jpg", "b/CAT.JPG", "cat.png", "c/cat.jpg-2", "x" * 250)]
    names = overlay_names(files)
    assert names[:5] == ["cat.jpg.png", "cat.jpg-2.png", "CAT.JPG-3.png", "cat.png.png", "cat.jpg-2-2.png"]
    assert names[5] == "x" * 200 + ".png"
    assert len({name.casefold() for name in names}) == len(files)


def test_the_picture_is_the_part_that_the_network_sees_and_large_enough_to_look_at() -> None:
    image = np.zeros((40, 80, 3), dtype=np.uint8)
    image[:, 20:60] = 255
    picture = picture_of(image, InputSpec(3, 32, 32, (0.5,) * 3, (0.5,) * 3, crop_pct=1.0))
    assert picture.shape == (448, 448, 3)
    assert picture[:, 10:-10].min() == 255
    assert picture_of(image, InputSpec(3, 600, 500, (0.5,) * 3, (0.5,) * 3)).shape == (600, 500, 3)


def test_where_there_is_no_heat_the_picture_is_grey_and_where_there_is_it_glows() -> None:
    picture = np.full((64, 64, 3), (200, 100, 50), dtype=np.uint8)
    heat = np.zeros((4, 4), dtype=np.float32)
    assert np.ptp(overlay(picture, heat), axis=2).max() == 0
    heat[0, 0] = 1.0
    drawn = overlay(picture, heat).astype(int)
    assert drawn[0, 0, 0] - drawn[0, 0, 2] > 50
    assert np.ptp(drawn[40:, 40:], axis=2).max() == 0


def test_heat_maps_never_land_among_the_images_that_are_classified(tmp_path: Path, toy: Source) -> None:
    write_images(tmp_path / "images", a_class=2)
    model = load(tmp_path / "source" / "toy.json", announce=lambda text: None)
    with pytest.raises(UsageError, match="lies inside the images"):
        model.predict([tmp_path / "images"], heatmaps=tmp_path / "images" / "maps")
    image = tmp_path / "images" / "red" / "0.png"
    with pytest.raises(UsageError, match=r"is the folder of the image 0\.png"):
        model.predict([image], heatmaps=image.parent)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        model.predict([image], heatmaps=tmp_path / "file")
    assert sorted(file.name for file in image.parent.iterdir()) == ["0.png", "1.png"]


def test_predictions_name_their_heat_maps_in_any_batch_size_and_bad_files_have_none(
    tmp_path: Path, toy: Source
) -> None:
    write_images(tmp_path / "images", a_class=4)
    (tmp_path / "images" / "red" / "0.png").write_bytes(b"nothing")
    model = load(tmp_path / "source" / "toy.json", announce=lambda text: None)
    for size in (1, 5):
        found = model.predict([tmp_path / "images"], heatmaps=tmp_path / f"maps{size}", batch_size=size)
        assert [p.heatmap is None for p in found] == [p.error is not None for p in found]
        written = sorted((tmp_path / f"maps{size}").iterdir())
        assert sorted(Path(p.heatmap).name for p in found if p.heatmap) == [file.name for file in written]
        assert len(written) == 11
        with Image.open(written[0]) as image:
            assert image.size == (448, 448)
    one, five = (np.asarray(Image.open(tmp_path / f"maps{size}" / "3.png.png"), dtype=int) for size in (1, 5))
    assert np.abs(one - five).max() <= 6  # a step or two of the colour map
