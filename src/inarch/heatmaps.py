"""Where the network looked: Grad-CAM of the most probable class, laid over what the network saw of an image.

Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization" (ICCV 2017,
arXiv 1610.02391), computed by Captum at the deepest place where the network still has feature maps. A map is as coarse
as these (4 x 4 for an image of 128 pixels that is halved five times), says nothing of what is cut away at the edges of
the image, and is scaled by its own highest value: colours of two images cannot be compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, final

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from inarch.data.images import Pixels8, centre_crop, resize_to_cover
from inarch.errors import MissingExtraError, SourceError, UsageError
from inarch.features.machine import Machine
from inarch.network.adapted import AdaptedNetwork, finely_staged
from inarch.network.card import InputSpec
from inarch.network.pieces import Pieces
from inarch.network.source import Source
from inarch.network.stages import Stages, stage_network

# The shorter side of a picture, in pixels, where the network sees less.
_SIDE = 448
_LONGEST_NAME = 200
_STRENGTH = 0.7

Heat = NDArray[np.float32]
_Before = Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]]


@final
class HeatMaps:
    """Grad-CAM of one network: `of` gives the heat of images that it classifies.

    Raises `MissingExtraError` without Captum, and `SourceError` where the network has no feature maps (plain vision
    transformers work on a sequence of tokens).
    """

    def __init__(self, source: Source, machine: Machine) -> None:
        self._grad_cam = _captum()
        example = source.input.example().to(machine.device)
        network = source.network
        if isinstance(network, AdaptedNetwork):
            assert source.card.adapted
            first = source.card.adapted[0]
            network = finely_staged(
                network, str(first["source_classification_layer"]), tuple(first["source_stages"]), example
            )
            staged: Stages = network.staged
        else:
            staged = stage_network(network, source.classification_layer, example, finer=True)
        cut = deepest_maps(staged, source.name)
        network.eval().requires_grad_(False)
        if isinstance(network, AdaptedNetwork):
            _require_no_deeper_maps_within(network, source.name)
            halves = _Halves(network, cut)
            self._before: _Before = halves.before
            behind = _Behind(halves.behind)
        else:
            prefix = staged.segment(0, cut).eval()
            self._before = lambda pixels: (prefix(pixels), ())
            behind = _Behind(staged.segment(cut, len(staged.stages)).eval())
        behind.channels_last = _channels_last(staged, cut)
        self._behind = behind

    def of(self, pixels: Tensor, classes: Tensor) -> Heat:
        """The heat [images, h, w], 0 to 1, of images [images, channels, height, width] for a class [images] of each.

        All zero where every place speaks against the class.
        """
        with torch.no_grad():
            maps, earlier = self._before(pixels)
        cam = self._grad_cam(self._behind, self._behind.maps)
        # float(): a graph of the network may compute in a type of its own.
        found = cam.attribute(maps.float(), classes, additional_forward_args=earlier or None, relu_attributions=True)
        heat: Tensor = found.detach()[:, 0]
        highest = heat.amax(dim=(1, 2), keepdim=True)
        return (heat / torch.where(highest > 0, highest, 1.0)).cpu().numpy()


@final
class _Behind(nn.Module):
    """What lies behind the feature maps, which pass through `maps` as [images, channels, h, w]."""

    channels_last = False

    def __init__(self, behind: Any) -> None:
        super().__init__()
        self.maps = nn.Identity()
        self._from_maps = behind

    def forward(self, stored: Tensor, *earlier: Tensor) -> Tensor:
        """Logits from what is alive at the cut, and from what a graft took before it."""
        if self.channels_last:
            return self._from_maps(self.maps(stored.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), *earlier)
        return self._from_maps(self.maps(stored), *earlier)


@final
class _Halves:
    """An adapted network in evaluation mode up to a cut and behind it, whatever its graft reads on either side."""

    def __init__(self, network: AdaptedNetwork, cut: int) -> None:
        staged, taps, last = network.staged, network.taps, len(network.staged.stages) - 1
        self._graft = network.graft
        self._layer = staged.segment(last, last + 1).eval() if network.graft.keeps_layer else None
        self._reads_maps = cut in taps
        self._up_to = Pieces(staged, 0, [tap for tap in taps if tap < cut], cut)
        self._from = Pieces(staged, cut, [tap for tap in taps if tap > cut], last)
        self._up_to.train(False)
        self._from.train(False)

    def before(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Maps at the cut, and what the graft takes of activations before them."""
        return self._up_to.run(pixels, self._graft.take)

    def behind(self, maps: Tensor, *earlier: Tensor) -> Tensor:
        """Target logits."""
        here = (self._graft.take(maps),) if self._reads_maps else ()
        features, later = self._from.run(maps, self._graft.take)
        logits = None if self._layer is None else self._layer(features)
        found: Tensor = self._graft(features, logits, *earlier, *here, *later)
        return found


def deepest_maps(staged: Stages, name: str) -> int:
    """The cut at which the last feature maps are alive; nothing but vectors may follow up to the classification layer.

    `SourceError` where there is none.
    """
    for stage in reversed(staged.stages[:-1]):
        shape = stage.output_shape
        if len(shape) == 3 and sorted(shape)[1] > 1:  # not [channels, 1, 1]
            return stage.index
        if len(shape) == 2:
            raise SourceError(
                f"'{name}' has no feature maps before its classification layer but {shape[0]} tokens of {shape[1]} "
                f"channels (behind {stage.name}): where it looked cannot be shown by Grad-CAM.",
                "Leave out --heatmaps, or use a network with feature maps, such as a convolutional one.",
            )
    raise SourceError(
        f"'{name}' has no place with feature maps where it can be cut: where it looked cannot be shown by Grad-CAM.",
        "Leave out --heatmaps.",
    )


def _require_no_deeper_maps_within(network: AdaptedNetwork, name: str) -> None:
    """Raises `SourceError` where a network that was adapted again has its last maps inside one of its stages.

    All that an earlier graft reads on the way is one stage then, of which vectors come out.
    """
    inner = network.staged.network
    while isinstance(inner, AdaptedNetwork):
        if inner.taps and deepest_maps(inner.staged, name) > inner.taps[0]:
            raise SourceError(
                f"'{name}' was adapted from a network whose graft, {inner.configuration.graft}, reads activations on "
                "the way: its last feature maps lie where no heat map can be taken.",
                "Leave out --heatmaps, or adapt a network with another graft.",
            )
        inner = inner.staged.network


def _channels_last(staged: Stages, cut: int) -> bool:
    """Whether maps are [h, w, channels], as Swin transformers have them: known by the width of what they pool to."""
    shape, pooled = staged.stages[cut - 1].output_shape, staged.stages[-2].output_shape
    return len(pooled) == 1 and shape[2] == pooled[0] != shape[0]


def _captum() -> Any:
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        raise MissingExtraError("A heat map (--heatmaps)", "heatmaps") from None
    return LayerGradCam


def picture_of(image: Pixels8, spec: InputSpec) -> Pixels8:
    """The part of an image [H, W, 3] that the network sees, at least `_SIDE` pixels wide and high."""
    scale = max(1.0, _SIDE / min(spec.height, spec.width))
    height, width = round(scale * spec.height), round(scale * spec.width)
    cover = resize_to_cover(image, round(height / spec.crop_pct), round(width / spec.crop_pct), spec.interpolation)
    return centre_crop(cover, height, width)


def overlay(picture: Pixels8, heat: Heat) -> Pixels8:
    """A picture [H, W, 3] with heat [h, w] over it: the grey picture where there is none, then red to yellow to white.

    Colours rise in lightness (matplotlib's "inferno"), so that they can be told apart without seeing colour.
    """
    height, width = picture.shape[:2]
    smooth = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)[..., None]
    grey = np.asarray(Image.fromarray(picture).convert("L"), dtype=np.float32)[..., None]
    colours = 255 * mpl.colormaps["inferno"](smooth[..., 0])[..., :3]
    share = _STRENGTH * smooth
    return np.rint((1 - share) * grey + share * colours).astype(np.uint8)


def overlay_names(files: Sequence[Path]) -> list[str]:
    """A file name for the overlay of each image: that of the image with `.png` behind, numbered where one is taken.

    No two are equal, also where upper and lower case are not told apart.
    """
    taken: set[str] = set()
    names = []
    for file in files:
        stem = _shortened(file.name)
        name, number = f"{stem}.png", 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}.png"
        taken.add(name.casefold())
        names.append(name)
    return names


def _shortened(name: str) -> str:
    while len(os.fsencode(name)) > _LONGEST_NAME:
        name = name[:-1]
    return name


def prepared_folder(folder: Path, images: Iterable[Path]) -> Path:
    """The folder for overlays, made if it is not there. `UsageError` where it cannot be, or lies among the `images`."""
    for path in images:
        if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
            raise UsageError(
                f"--heatmaps {folder} lies inside the images {path}: the next call would classify the heat maps.",
                "Choose a folder outside of them.",
            )
        if not path.is_dir() and path.parent.resolve() == folder.resolve():
            raise UsageError(
                f"--heatmaps {folder} is the folder of the image {path.name}.", "Choose a folder without images."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--heatmaps {folder} cannot be made: {error.strerror or error}.", "Choose another folder."
        ) from error
    return folder


def write_overlay(file: Path, picture: Pixels8, heat: Heat) -> None:
    """Write the overlay of an image as PNG. `UsageError` where it cannot be written."""
    try:
        Image.fromarray(overlay(picture, heat)).save(file, format="PNG")
    except OSError as error:
        raise UsageError(
            f"{file} cannot be written: {error.strerror or error}.", "Make room, or choose another --heatmaps."
        ) from error
