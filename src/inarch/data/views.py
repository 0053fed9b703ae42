"""Numbered views: augmentations that depend on the image and a number alone, so that any run can make them again.

Random-resized crop (Szegedy et al., 2015), flip and colour jitter as torchvision defines them. The random numbers come
from Philox, a counter-based generator (Salmon et al., 2011), keyed by the digest of the image and counted from the
number of the view: no state is carried from image to image, and no global random state is touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from inarch.data.images import centre_crop, resampling
from inarch.data.pixels import Pixels
from inarch.errors import UsageError

# ITU-R BT.601 as torchvision rounds it.
_GREY = (0.2989, 0.587, 0.114)
_TRIES = 10
# Two of each try, two for the place, one for the flip, three for the colours.
_DRAWS = 2 * _TRIES + 6

Bytes = NDArray[np.uint8]
Factors = tuple[float, float, float]


class Geometry(Protocol):
    """What a network wants to see: `InputSpec` is one."""

    @property
    def channels(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...
    @property
    def interpolation(self) -> str: ...


@dataclass(frozen=True)
class Augmentation:
    """How far a training view may depart from its image.

    `scale`: share of the area that is cropped; `ratio`: width to height of the crop, before it is resized; `flip`:
    probability of left to right; `colour_jitter`: brightness, contrast and saturation are each multiplied by
    a factor between 1 - strength and 1 + strength (0: colours are left alone).
    """

    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    colour_jitter: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UsageError(f"Crops of {self.scale} of the area cannot be made.", "Give 0 < low <= high <= 1.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UsageError(f"Crops of ratio {self.ratio} cannot be made.", "Give 0 < low <= high.")
        if not 0 <= self.flip <= 1:
            raise UsageError(f"A flip has no probability of {self.flip}.", "Give 0 to 1.")
        if not 0 <= self.colour_jitter <= 1:
            raise UsageError(f"Colours cannot be jittered by {self.colour_jitter}.", "Give 0 to 1.")


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

    def training(self, rows: NDArray[np.int64], view: int) -> Tensor:
        """View number `view` (0 or more) of the images: float32 [rows, channels, height, width], normalised.

        The same row and view give the same bits in any batch, order and number of threads.
        """
        uniform = self._uniform(rows, view)

        def make(place: int) -> tuple[Bytes, Factors | None]:
            return self._crop(int(rows[place]), uniform[place]), self._factors(uniform[place])

        return _batch(make, len(rows), self._geometry)

    def evaluation(self, rows: NDArray[np.int64]) -> Tensor:
        """The centres of the images: float32 [rows, channels, height, width], normalised."""
        return evaluation_batch([self._pixels[int(row)] for row in rows], self._geometry)

    def _uniform(self, rows: NDArray[np.int64], view: int) -> NDArray[np.float64]:
        """The random numbers of a view, from 0 to 1: [rows, draws]."""
        generator = np.random.Philox(key=0)
        draw = np.random.Generator(generator).random
        state = generator.state
        # The generator counts in the lowest words of its counter; the view's number stands in the highest.
        state["state"]["counter"] = np.array([0, 0, 0, view], dtype=np.uint64)
        uniform = np.empty((len(rows), _DRAWS))
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
        contrast, brightness, saturation = (1 + strength * (2 * uniform[-3:] - 1)).tolist()
        return contrast, brightness, saturation

    def _crop(self, row: int, uniform: NDArray[np.float64]) -> Bytes:
        image, augmentation, geometry = self._pixels[row], self._augmentation, self._geometry
        height, width = image.shape[:2]
        crop_height, crop_width = _crop_size(height, width, uniform[: 2 * _TRIES], augmentation)
        place = uniform[2 * _TRIES : 2 * _TRIES + 2]
        top, left = int(place[0] * (height - crop_height + 1)), int(place[1] * (width - crop_width + 1))
        crop = image[top : top + crop_height, left : left + crop_width]
        resized = resize(crop, geometry.height, geometry.width, geometry.interpolation)
        return resized[:, ::-1] if uniform[2 * _TRIES + 2] < augmentation.flip else resized


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
        return np.asarray(Image.fromarray(image).resize((width, height), resampling(interpolation)))
    # On bytes with the channels last PyTorch takes half of Pillow's time, for the same pixels but for rounding.
    batch = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)
    resized = interpolate(batch, size=(height, width), mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def evaluation_batch(images: Sequence[Bytes], geometry: Geometry) -> Tensor:
    """The centres of uint8 [H, W, 3] images as float32 [images, channels, height, width], normalised."""
    return _batch(
        lambda place: (centre_crop(images[place], geometry.height, geometry.width), None), len(images), geometry
    )


def _batch(make: Callable[[int], tuple[Bytes, Factors | None]], count: int, geometry: Geometry) -> Tensor:
    """Stack what `make` gives for 0 to count - 1, on as many threads as PyTorch may use.

    An image passes through all operations before the next one, in NumPy: it stays in the processor's cache, and no
    result depends on how PyTorch would divide a batch between threads.
    """
    out = torch.empty(count, geometry.channels, geometry.height, geometry.width)
    planes = out.numpy()
    mean = [255 * value for value in geometry.mean]
    scale = [1 / (255 * value) for value in geometry.std]
    workers = max(1, min(torch.get_num_threads(), count))

    def share(first: int) -> None:
        for place in range(first, count, workers):
            image, factors = make(place)
            values = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32)
            if factors is not None:
                jitter_colours(values, factors)
            if geometry.channels == 1:
                values = _grey(values)[np.newaxis]
            for plane, value, centre, factor in zip(planes[place], values, mean, scale, strict=True):
                np.subtract(value, np.float32(centre), out=plane)
                plane *= np.float32(factor)

    if workers == 1:
        share(0)
    else:
        with ThreadPoolExecutor(workers, thread_name_prefix="views") as pool:
            list(pool.map(share, range(workers)))
    return out


def jitter_colours(values: NDArray[np.float32], factors: Factors) -> None:
    """Multiply contrast, brightness and saturation, in this order, of float32 [3, H, W] from 0 to 255, in place.

    The formulas are those of torchvision's `adjust_contrast`, `adjust_brightness` and `adjust_saturation`.
    """
    contrast, brightness, saturation = factors
    # Sums along a row of whole numbers are exact in float32, so no order of summing can show in the result.
    sums = values.sum(axis=2).sum(axis=1, dtype=np.float64)
    grey = float(np.dot(sums, _GREY)) / (values.shape[1] * values.shape[2])
    # clamp(clamp(c x + (1 - c) grey, 0, 255) b, 0, 255) in one step.
    values *= np.float32(contrast * brightness)
    values += np.float32((1 - contrast) * grey * brightness)
    np.clip(values, np.float32(0), np.float32(min(255.0, 255 * brightness)), out=values)
    part = _grey(values)
    part *= np.float32(1 - saturation)
    values *= np.float32(saturation)
    values += part
    np.clip(values, np.float32(0), np.float32(255), out=values)


def _grey(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grey of float32 [3, H, W] as [H, W]."""
    grey: NDArray[np.float32] = values[0] * np.float32(_GREY[0])
    grey += values[1] * np.float32(_GREY[1])
    grey += values[2] * np.float32(_GREY[2])
    return grey
