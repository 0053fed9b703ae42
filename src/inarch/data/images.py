"""One image file as a person would see it, as 8-bit RGB pixels; resizing and cropping.

What image viewers do and `Image.convert("RGB")` does not: EXIF orientation, transparency over white, 16 and 32 bits
scaled by their range (Pillow clips them to 255). Formats whose Pillow plug-in starts another program or needs a
registered handler (EPS starts Ghostscript) are refused.
"""

from __future__ import annotations

import logging
import stat
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from inarch.errors import DataError, UsageError

MAX_PIXELS = 100_000_000
NOT_AN_IMAGE = "not an image that Pillow reads"
# A panorama of 1 x 1,000,000 pixels resized to cover a square would take gigabytes; what lies further out than
# this many times the wanted side is never seen by a centre crop, and hardly by a random one.
WIDEST = 4

_REFUSED = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
_REFUSED_STARTS = {
    b"%!PS": "EPS",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"\xd7\xcd\xc6\x9a": "WMF",
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112

Pixels8 = NDArray[np.uint8]


@cache
def _formats() -> tuple[str, ...]:
    """Every format that Pillow opens but the refused ones, the usual ones first (it tries them in this order)."""
    Image.init()
    usual = [name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF") if name in Image.OPEN]
    return (*usual, *sorted(set(Image.OPEN) - _REFUSED - set(usual)))


@cache
def image_suffixes() -> frozenset[str]:
    """Lower-case file name endings of formats that Pillow opens, the refused ones included (to be named as such)."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN)


def looks_like_image(file: Path) -> bool:
    """Whether a file is worth decoding: by the ending of its name, else by its first bytes."""
    if file.suffix.lower() in image_suffixes():
        return True
    try:
        with quiet_pillow(MAX_PIXELS), Image.open(file, formats=_formats()):
            return True
    except UnidentifiedImageError:
        return False
    except Exception:
        # Recognised but damaged, or not to be opened: reading it will give the reason.
        return True


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_saved: list[Any] = []


@contextmanager
def quiet_pillow(max_pixels: int) -> Generator[None]:
    """Keeps Pillow's warnings from the terminal and lifts its own limit of pixels to `max_pixels`.

    Both are state of the process, so they are changed by the first to enter and restored by the last to leave;
    Pillow refuses images above twice its limit.
    """
    global _quiet_depth
    log = logging.getLogger("PIL")
    with _quiet_lock:
        if _quiet_depth == 0:
            catcher = warnings.catch_warnings()
            catcher.__enter__()
            warnings.simplefilter("ignore")
            _quiet_saved[:] = [catcher, Image.MAX_IMAGE_PIXELS, log.level]
            log.setLevel(logging.CRITICAL + 1)
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                catcher, Image.MAX_IMAGE_PIXELS, level = _quiet_saved
                log.setLevel(level)
                catcher.__exit__(None, None, None)
                _quiet_saved.clear()


def read_image(file: Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> Pixels8:
    """Decode an image file (or an open binary file) to uint8 [height, width, 3] as a person sees it.

    EXIF orientation is applied; transparency lies over white; grey, palette, CMYK and Lab become RGB; the first frame
    of many is taken. 16-bit grey is scaled by 65535; 32-bit integers likewise if they lie within 0 to 65535, otherwise
    they and floating-point images by their own minimum and maximum (an image of one value is black).

    Raises `DataError`, whose `problem` is a reason without the path, for whatever is not such an image or has
    more than `max_pixels` pixels; the latter is known from the header, before decoding.
    """
    try:
        with quiet_pillow(max_pixels):
            if not isinstance(file, Path):
                return _decode(file, max_pixels)
            if not stat.S_ISREG(file.stat().st_mode):
                raise DataError("not a regular file")
            with file.open("rb") as opened:
                return _decode(opened, max_pixels)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"more than {max_pixels} pixels") from None
    except MemoryError:
        raise DataError("needs more memory than there is") from None
    except OSError as error:
        # The system's errors carry the path in a field of its own; Pillow's are text about the content.
        raise DataError(error.strerror.lower() if error.strerror else f"damaged: {error}") from None
    except Exception as error:
        # Pillow's plug-ins raise nearly anything on damaged files (SyntaxError, struct.error, IndexError, ...).
        raise DataError(f"damaged: {error or type(error).__name__}") from None


def _decode(opened: BinaryIO, max_pixels: int) -> Pixels8:
    start = opened.read(4)
    opened.seek(0)
    if not start:
        raise DataError("empty file")
    if start in _REFUSED_STARTS:
        raise DataError(f"{_REFUSED_STARTS[start]} is not read: it would take another program")
    try:
        image = Image.open(opened, formats=_formats())
    except UnidentifiedImageError:
        raise DataError(NOT_AN_IMAGE) from None
    with image:
        if image.width * image.height > max_pixels:
            raise DataError(f"{image.width} x {image.height} is more than {max_pixels} pixels")
        image.load()
        upright = _UPRIGHT.get(_orientation(image))
        rgb = _as_rgb(image)
    return np.array(rgb if upright is None else rgb.transpose(upright))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # Damaged metadata of a sound picture: viewers show it as it is stored.
        return 1


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_scaled_to_bytes(image)).convert("RGB")
    if image.mode == "LAB":
        srgb = ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        assert srgb is not None
        return srgb
    if image.has_transparency_data:
        # "La" converts to "LA" only.
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _scaled_to_bytes(image: Image.Image) -> Pixels8:
    """Grey values of 16 or 32 bits as bytes, by the range of their type or else of their values."""
    values = np.asarray(image).astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if image.mode != "F" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255 / ((high - low) or 1.0))
    grey = np.rint(scaled).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return grey


def resampling(interpolation: str) -> Image.Resampling:
    """Pillow's filter of a name such as "bilinear", "bicubic" or "lanczos"."""
    try:
        return Image.Resampling[interpolation.upper()]
    except KeyError:
        known = ", ".join(filter_.name.lower() for filter_ in Image.Resampling)
        raise UsageError(f"There is no interpolation {interpolation!r}.", f"Interpolations are {known}.") from None


def resize_to_cover(image: Pixels8, height: int, width: int, interpolation: str) -> Pixels8:
    """Resize uint8 [H, W, 3] with its proportions kept, up or down, until it just covers `height` x `width`.

    One side of the result is exactly the wanted one, the other at least as long, and at most four times as long:
    the ends of longer strips are cut away.
    """
    scale = max(height / image.shape[0], width / image.shape[1])
    strip = centre_crop(
        image,
        min(image.shape[0], max(1, round(WIDEST * height / scale))),
        min(image.shape[1], max(1, round(WIDEST * width / scale))),
    )
    new_height, new_width = (
        min(WIDEST * wanted, max(wanted, round(side * scale)))
        for wanted, side in zip((height, width), strip.shape[:2], strict=True)
    )
    if (new_height, new_width) == image.shape[:2]:
        return image
    resized = Image.fromarray(strip).resize((new_width, new_height), resampling(interpolation))
    return np.array(resized)


def centre_crop(image: Pixels8, height: int, width: int) -> Pixels8:
    """The middle `height` x `width` of uint8 [H, W, 3], as a view of it; the image must be at least as large."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    if top < 0 or left < 0:
        raise ValueError(f"an image of {image.shape[0]} x {image.shape[1]} has no centre of {height} x {width}")
    return image[top : top + height, left : left + width]
