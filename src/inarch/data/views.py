"""Numbered views: augmentations that depend on the image and a number alone, so that any run can make them again.

Random-resized crop (Szegedy et al., 2015), flip and colour jitter as torchvision defines them, and RandAugment
(`randaugment.py`) where it is asked for. The random numbers come from Philox, a counter-based generator (Salmon et al.,
2011), keyed by the digest of the image and counted from the number of the view: no state is carried from image to
image, and no global random state is touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from inarch.data.augmentation import DRAWS, Augmentation
from inarch.data.device_views import KERNELS, Crops, DeviceViews, centres
from inarch.data.geometry import GREY, Geometry
from inarch.data.images import centre_crop, resampling
from inarch.data.pixels import Pixels

_TRIES = 10
# Two of each try, two for the place, one for the flip, three for the colours; those of RandAugment stand behind them.
_DRAWS = 2 * _TRIES + 6
# Of a view, for each thread that makes some: on smaller ones threads wait for Python's lock longer than they work.
# One was 1.4 times as fast as two at 128 pixels, two a third faster at 288 (docs/lab-notebook.md).
_PIXELS_A_THREAD = 16384
# PyTorch divides the work on more values than these between threads.
_FEW_VALUES = 32768

Bytes = NDArray[np.uint8]
Factors = tuple[float, float, float]


@final
class Views:
    """Makes batches of training views and evaluation crops from kept pixels."""

    def __init__(
        self, pixels: Pixels, digests: Sequence[str], geometry: Geometry, augmentation: Augmentation | None = None
    ) -> None:
        """`digests` by row of `pixels` (`DataSet.row_digests()`); `pixels` must cover the height and width wanted."""
        if len(digests) != len(pixels):
            raise ValueError(f"{len(digests)} digests for {len(pixels)} images")
        self._pixels, self._geometry = pixels, geometry
        self._keys = [np.frombuffer(bytes.fromhex(digest), dtype=np.uint64) for digest in digests]
        self._augmentation = augmentation or Augmentation()
        self._on_device: dict[str, DeviceViews] = {}

    def training(self, rows: NDArray[np.int64], view: int, device: str = "cpu") -> Tensor:
        """View number `view` (0 or more): float32 [rows, channels, height, width], normalised, channels last in memory.

        On a processor the same row and view give the same bits in any batch, order and number of threads. For a GPU
        they are made there where that can be, alike but for rounding, with the same bits in the same batch.
        """
        uniform = self._uniform(rows, view)
        if self._made_on(device):
            return self._on(device).make(rows, self._crops(rows, uniform))

        def make(place: int) -> tuple[Bytes, Factors | None]:
            crop = self._crop(int(rows[place]), uniform[place])
            return self._operated(crop, uniform[place]), self._factors(uniform[place])

        return _batch(make, len(rows), self._geometry)

    def evaluation(self, rows: NDArray[np.int64], device: str = "cpu") -> Tensor:
        """The centres of the images: float32 [rows, channels, height, width], normalised, channels last in memory."""
        return evaluation_batch([self._pixels[int(row)] for row in rows], self._geometry, device)

    def _made_on(self, device: str) -> bool:
        """Whether a GPU makes training views of this kind; RandAugment works on bytes, image by image."""
        known = self._geometry.interpolation in KERNELS and not self._augmentation.operations
        return known and torch.device(device).type == "cuda"

    def _on(self, device: str) -> DeviceViews:
        if device not in self._on_device:
            self._on_device[device] = DeviceViews(self._pixels, self._geometry, device)
        return self._on_device[device]

    def _crops(self, rows: NDArray[np.int64], uniform: NDArray[np.float64]) -> Crops:
        boxes = [self._box(self._pixels.size(row), draws) for row, draws in zip(rows.tolist(), uniform, strict=True)]
        factors = [self._factors(draws) for draws in uniform] if self._augmentation.colour_jitter else None
        colours = None if factors is None else np.array(factors, dtype=np.float32)
        return Crops(np.array(boxes, dtype=np.int64), self._flips(uniform), colours)

    def _flips(self, uniform: NDArray[np.float64]) -> NDArray[np.bool_]:
        flips: NDArray[np.bool_] = uniform[..., 2 * _TRIES + 2] < self._augmentation.flip
        return flips

    def _box(self, size: tuple[int, int], uniform: NDArray[np.float64]) -> tuple[int, int, int, int]:
        """Top, left, height and width of a random crop of an image of that height and width."""
        height, width = _crop_size(*size, uniform[: 2 * _TRIES], self._augmentation)
        place = uniform[2 * _TRIES : 2 * _TRIES + 2]
        return int(place[0] * (size[0] - height + 1)), int(place[1] * (size[1] - width + 1)), height, width

    def _uniform(self, rows: NDArray[np.int64], view: int) -> NDArray[np.float64]:
        """The random numbers of a view, from 0 to 1: [rows, draws]."""
        generator = np.random.Philox(key=0)
        draw = np.random.Generator(generator).random
        state = generator.state
        # The generator counts in the lowest words of its counter; the view's number stands in the highest.
        state["state"]["counter"] = np.array([0, 0, 0, view], dtype=np.uint64)
        uniform = np.empty((len(rows), _DRAWS + DRAWS * self._augmentation.operations))
        for place, row in enumerate(rows.tolist()):
            state["state"]["key"] = self._keys[row]
            # Setting the state takes a quarter of the time of making a generator.
            generator.state = state
            draw(out=uniform[place])
        return uniform

    def _factors(self, uniform: NDArray[np.float64]) -> Factors | None:
        strength = self._augmentation.colour_jitter
        if not strength:
            return None
        contrast, brightness, saturation = (1 + strength * (2 * uniform[_DRAWS - 3 : _DRAWS] - 1)).tolist()
        return contrast, brightness, saturation

    def _operated(self, image: Bytes, uniform: NDArray[np.float64]) -> Bytes:
        """The image after the operations of RandAugment."""
        if not self._augmentation.operations:
            return image
        from inarch.data.randaugment import augmented  # late: it brings torchvision

        return augmented(image, uniform[_DRAWS:].tolist(), self._augmentation.magnitude)

    def _crop(self, row: int, uniform: NDArray[np.float64]) -> Bytes:
        image, geometry = self._pixels[row], self._geometry
        top, left, height, width = self._box((image.shape[0], image.shape[1]), uniform)
        crop = image[top : top + height, left : left + width]
        resized = resize(crop, geometry.height, geometry.width, geometry.interpolation)
        return mirrored(resized) if self._flips(uniform) else resized


def _crop_size(height: int, width: int, uniform: NDArray[np.float64], augmentation: Augmentation) -> tuple[int, int]:
    """Height and width of a random crop: the first try that fits, else the largest of a permitted ratio."""
    (low, high), (narrow, wide) = augmentation.scale, augmentation.ratio
    for area, ratio in uniform.reshape(_TRIES, 2).tolist():
        pixels = height * width * (low + (high - low) * area)
        aspect = math.exp(math.log(narrow) + (math.log(wide) - math.log(narrow)) * ratio)
        crop_width, crop_height = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            return crop_height, crop_width
    aspect = min(max(width / height, narrow), wide)
    return min(height, max(1, round(width / aspect))), min(width, max(1, round(height * aspect)))


def resize(image: Bytes, height: int, width: int, interpolation: str) -> Bytes:
    """Resize uint8 [H, W, 3] to uint8 [height, width, 3] with antialiasing."""
    image = np.ascontiguousarray(image)
    if interpolation not in ("bilinear", "bicubic"):
        return np.array(Image.fromarray(image).resize((width, height), resampling(interpolation)))
    # On bytes with the channels last PyTorch takes a quarter of Pillow's time, for the same pixels but for rounding.
    resized = interpolate(_channels_last(image), size=(height, width), mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def mirrored(image: Bytes) -> Bytes:
    """Contiguous uint8 [H, W, 3] from right to left, as a copy."""
    # PyTorch is five times as fast as NumPy at this. It is given few rows at a time, for with more it would start
    # threads of its own for each thread that makes views.
    step = max(1, _FEW_VALUES // (image.shape[1] * image.shape[2]))
    out = np.empty_like(image)
    for top in range(0, len(image), step):
        rows = _channels_last(image[top : top + step])
        out[top : top + step] = rows.flip(3)[0].permute(1, 2, 0).numpy()
    return out


def _channels_last(image: Bytes) -> Tensor:
    """Contiguous [H, W, 3] as a batch of one [1, 3, H, W] on the same memory.

    PyTorch reshapes it: with the strides that NumPy or `unsqueeze` give to a side of one, it would take the batch for
    one with the channels first, and give such a one back.
    """
    return torch.from_numpy(image).reshape(1, *image.shape).permute(0, 3, 1, 2)


def evaluation_batch(images: Sequence[Bytes], geometry: Geometry, device: str = "cpu") -> Tensor:
    """The centres of uint8 [H, W, 3] images as float32 [images, channels, height, width], normalised, channels last.

    For a GPU bytes are copied to it and normalised there.
    """
    if images and torch.device(device).type == "cuda":
        return centres([centre_crop(image, geometry.height, geometry.width) for image in images], geometry, device)
    return _batch(
        lambda place: (centre_crop(images[place], geometry.height, geometry.width), None), len(images), geometry
    )


def _batch(make: Callable[[int], tuple[Bytes, Factors | None]], count: int, geometry: Geometry) -> Tensor:
    """What `make` gives for 0 to count - 1 as one batch, channels last, on one thread or several.

    An image passes through all operations before the next one, in NumPy: it stays in the processor's cache, and no
    result depends on how PyTorch would divide a batch between threads. Bytes and batch have the same order in memory,
    in which networks run fastest: nothing is transposed on the way.
    """
    out = torch.empty((count, geometry.channels, geometry.height, geometry.width), memory_format=torch.channels_last)
    pixels = out.permute(0, 2, 3, 1).numpy()
    # One row of the image long, so that a whole row and not three channels at a time are worked on.
    centre = np.tile(np.array([255 * value for value in geometry.mean], dtype=np.float32), geometry.width)
    factor = np.tile(np.array([1 / (255 * value) for value in geometry.std], dtype=np.float32), geometry.width)

    def fill(place: int) -> None:
        image, factors = make(place)
        target = pixels[place]
        values = target if geometry.channels == 3 else np.empty(image.shape, dtype=np.float32)
        np.copyto(_in_rows(values), _in_rows(image))
        if factors is not None:
            jitter_colours(values, factors)
        if geometry.channels == 1:
            values = _grey(values)[..., np.newaxis]
        rows = _in_rows(target)
        np.subtract(_in_rows(values), centre, out=rows)
        rows *= factor

    _on_threads(fill, count, max(1, geometry.height * geometry.width // _PIXELS_A_THREAD))
    return out


def _in_rows(image: NDArray[Any]) -> NDArray[Any]:
    """[H, W, C] as [H, W * C], without a copy."""
    return image.reshape(image.shape[0], -1)


def _on_threads(work: Callable[[int], None], count: int, most: int) -> None:
    """Calls `work` with 0 to count - 1, on as many threads as PyTorch may use and no more than `most`; this thread
    works too, so that one fewer need be started."""
    places = iter(range(count))

    def share() -> None:
        for place in places:
            work(place)

    others = min(torch.get_num_threads(), count, most) - 1
    if others < 1:
        share()
        return
    with ThreadPoolExecutor(others, thread_name_prefix="views") as pool:
        shares = [pool.submit(share) for _ in range(others)]
        share()
        for future in shares:
            future.result()


def jitter_colours(values: NDArray[np.float32], factors: Factors) -> None:
    """Multiply contrast, brightness and saturation, in this order, of contiguous float32 [H, W, 3] from 0 to 255.

    In place. The formulas are those of torchvision's `adjust_contrast`, `adjust_brightness` and `adjust_saturation`.
    """
    contrast, brightness, saturation = factors
    rows = _in_rows(values)
    # Sums over a column of whole numbers are exact in float32, so no order of summing can show in the result.
    sums = rows.sum(axis=0).reshape(-1, 3).sum(axis=0, dtype=np.float64)
    grey = float(np.dot(sums, GREY)) / (values.shape[0] * values.shape[1])
    # clamp(clamp(c x + (1 - c) grey, 0, 255) b, 0, 255) in one step. Clamping is the dearest part of it all, and what
    # lies between values and their grey needs none.
    rows *= np.float32(contrast * brightness)
    rows += np.float32((1 - contrast) * grey * brightness)
    if max(contrast, brightness) > 1:
        np.clip(rows, np.float32(0), np.float32(min(255.0, 255 * brightness)), out=rows)
    part = _grey(values)
    part *= np.float32(1 - saturation)
    rows *= np.float32(saturation)
    for channel in range(3):
        values[..., channel] += part
    if saturation > 1:
        np.clip(rows, np.float32(0), np.float32(255), out=rows)


def _grey(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grey of float32 [H, W, 3] as [H, W]."""
    grey: NDArray[np.float32] = values[..., 0] * np.float32(GREY[0])
    grey += values[..., 1] * np.float32(GREY[1])
    grey += values[..., 2] * np.float32(GREY[2])
    return grey
