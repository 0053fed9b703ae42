"""The views of `views.py` made on a GPU, a batch at a time: the same crops and colours, but for rounding.

A GPU trains faster than processors can crop, resize and jitter image after image. Resizing is two products of
matrices, one for each side, whose rows are the weights that PyTorch's antialiased `interpolate` gives the pixels of a
crop; a flip turns the rows of one round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inarch.data.geometry import GREY, Geometry
from inarch.data.pixels import Pixels

# Images that are resized together: more need gigabytes for what lies between pixels and views.
TOGETHER = 128
# The share of a GPU's free memory that kept images may take.
SHARE = 0.25


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, as PyTorch and Pillow take it where they antialias."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


KERNELS: Final[dict[str, Callable[[Tensor], Tensor]]] = {"bilinear": _triangle, "bicubic": _cubic}


@dataclass(frozen=True)
class Crops:
    """What is cut out of each image of a batch. boxes: int64 [images, 4] of top, left, height and width. flips: bool
    [images], from left to right. factors: float32 [images, 3] of contrast, brightness and saturation, or none."""

    boxes: NDArray[np.int64]
    flips: NDArray[np.bool_]
    factors: NDArray[np.float32] | None = None


@final
class DeviceViews:
    """Makes batches of views on a GPU, whose memory keeps the pixels if they take at most a share of it."""

    def __init__(self, pixels: Pixels, geometry: Geometry, device: str) -> None:
        """`KeyError` where the interpolation of `geometry` is none of `KERNELS`."""
        self._pixels, self._geometry, self._device = pixels, geometry, device
        self._kernel = KERNELS[geometry.interpolation]
        self._kept = self._flat(np.arange(len(pixels))) if self._fits() else None

    def _fits(self) -> bool:
        if torch.device(self._device).type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(self._device)
        return self._pixels.bytes <= SHARE * free

    def make(self, rows: NDArray[np.int64], crops: Crops) -> Tensor:
        """Views of the images at `rows`: float32 [rows, channels, height, width], normalised, channels last."""
        every = range(0, len(rows), TOGETHER)
        parts = [self._resized(rows[k : k + TOGETHER], crops.boxes[k : k + TOGETHER], crops.flips[k : k + TOGETHER])
                 for k in every]  # fmt: skip
        values = torch.cat(parts) if len(parts) > 1 else parts[0]
        if crops.factors is not None:
            values = jittered(values, torch.from_numpy(crops.factors).to(self._device))
        return normalised(values, self._geometry)

    def _resized(self, rows: NDArray[np.int64], boxes: NDArray[np.int64], flips: NDArray[np.bool_]) -> Tensor:
        """Whole numbers from 0 to 255 as float32 [rows, height, width, 3]."""
        flat, places = self._kept, rows
        if flat is None:
            flat, places = self._flat(rows), np.arange(len(rows))
        geometry, on_device = self._geometry, torch.from_numpy(boxes).to(self._device)
        mirrored = torch.from_numpy(flips).to(self._device)
        highest, widest = boxes[:, 2:].max(axis=0).tolist()
        crops = flat.crops(places, on_device, highest, widest)
        across = weights(on_device[:, 3], widest, geometry.width, self._kernel)
        across = torch.where(mirrored[:, None, None], across.flip(1), across)
        down = weights(on_device[:, 2], highest, geometry.height, self._kernel)
        # Across first, then down, each to whole numbers, as the processor does it.
        narrow = torch.bmm(across, crops.transpose(1, 2).flatten(2)).round_().clamp_(0, 255)
        columns = narrow.unflatten(2, (highest, 3)).transpose(1, 2)
        whole = torch.bmm(down, columns.flatten(2)).round_().clamp_(0, 255)
        return whole.unflatten(2, (geometry.width, 3))

    def _flat(self, rows: NDArray[np.int64]) -> _Flat:
        """The images at `rows` on the device, sent there some at a time: all of them may be more than memory holds."""
        sizes = np.array([self._pixels.size(int(row)) for row in rows], dtype=np.int64)
        ends = sizes.prod(axis=1).cumsum()
        starts = np.concatenate([[0], ends[:-1]])
        pixels = torch.empty((int(ends[-1]), 3), dtype=torch.uint8, device=self._device)
        for first in range(0, len(rows), TOGETHER):
            some = [self._pixels[int(row)].reshape(-1, 3) for row in rows[first : first + TOGETHER]]
            last = min(first + TOGETHER, len(rows)) - 1
            pixels[int(starts[first]) : int(ends[last])] = torch.from_numpy(np.concatenate(some))
        starts_there, widths = (torch.from_numpy(values).to(self._device) for values in (starts, sizes[:, 1].copy()))
        return _Flat(pixels, starts_there, widths)


@final
@dataclass(frozen=True)
class _Flat:
    """Images of any sizes one after the other on a device. pixels: uint8 [pixels of all, 3]. starts, widths: int64
    [images], of each image."""

    pixels: Tensor
    starts: Tensor
    widths: Tensor

    def crops(self, rows: NDArray[np.int64], boxes: Tensor, highest: int, widest: int) -> Tensor:
        """Crops as float32 [rows, highest, widest, 3]; beyond its own sides a crop repeats its edge."""
        device = self.pixels.device
        places = torch.from_numpy(rows).to(device)
        top, left, height, width = boxes.unbind(1)
        down = torch.minimum(torch.arange(highest, device=device), height[:, None] - 1) + top[:, None]
        across = torch.minimum(torch.arange(widest, device=device), width[:, None] - 1) + left[:, None]
        of_rows = self.starts[places, None] + down * self.widths[places, None]
        return self.pixels[of_rows[:, :, None] + across[:, None, :]].float()


def weights(sizes: Tensor, longest: int, wanted: int, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """What each pixel along a side counts in each of `wanted` new ones: float32 [images, wanted, longest], zero beyond
    the `sizes` [images] of the crops.

    As PyTorch's antialiased `interpolate`: a kernel around the centre of the new pixel, as wide as that where the side
    shrinks, with weights that sum to 1.
    """
    scale = (sizes / wanted)[:, None, None]
    old = torch.arange(longest, device=sizes.device)
    centres = scale * (torch.arange(wanted, device=sizes.device)[None, :, None] + 0.5)
    found = kernel((old + 0.5 - centres) / scale.clamp(min=1))
    found = torch.where(old < sizes[:, None, None], found, torch.zeros_like(found))
    return found / found.sum(dim=2, keepdim=True)


def jittered(values: Tensor, factors: Tensor) -> Tensor:
    """Contrast, brightness and saturation of float32 [images, height, width, 3] from 0 to 255 multiplied by `factors`
    [images, 3], in this order, by the formulas of `jitter_colours`."""
    contrast, brightness, saturation = factors[:, :, None, None, None].unbind(1)
    grey = _grey(values).mean(dim=(1, 2), keepdim=True)
    values = (contrast * values + (1 - contrast) * grey).clamp(0, 255)
    values = (brightness * values).clamp(0, 255)
    return (saturation * values + (1 - saturation) * _grey(values)).clamp(0, 255)


def normalised(values: Tensor, geometry: Geometry) -> Tensor:
    """float32 [images, height, width, 3] from 0 to 255 as a network wants it: [images, channels, height, width]."""
    if geometry.channels == 1:
        values = _grey(values)
    mean, std = (torch.tensor(of, device=values.device) for of in (geometry.mean, geometry.std))
    return ((values - 255 * mean) / (255 * std)).permute(0, 3, 1, 2)


def _grey(values: Tensor) -> Tensor:
    """Grey of [images, height, width, 3] as [images, height, width, 1]."""
    return (values * torch.tensor(GREY, device=values.device)).sum(dim=3, keepdim=True)


def centres(crops: Sequence[NDArray[Any]], geometry: Geometry, device: str) -> Tensor:
    """Crops uint8 [height, width, 3] that need no resizing, normalised on a device."""
    return normalised(torch.from_numpy(np.stack(crops)).to(device).float(), geometry)
