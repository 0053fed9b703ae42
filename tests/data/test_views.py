"""A view is its image and its number, bit for bit, and follows torchvision's formulas."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from inarch.data import Augmentation, Pixels, Views, centre_crop, evaluation_batch
from inarch.data.device_views import centres
from inarch.data.views import jitter_colours, mirrored, resize
from inarch.errors import UsageError

from .conftest import Picture


@dataclass(frozen=True)
class Input:
    channels: int = 3
    height: int = 24
    width: int = 32
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"


ROWS = np.arange(12)
DIGESTS = [hashlib.blake2b(bytes([n]), digest_size=16).hexdigest() for n in range(12)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_a_view_has_the_same_bits_in_any_batch_order_and_number_of_threads(
    interpolation: str, pixels: Pixels, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    views = Views(pixels, DIGESTS, Input(interpolation=interpolation))
    monkeypatch.setattr("inarch.data.views._PIXELS_A_THREAD", 1)
    threads(2)
    together = views.training(ROWS, 5)
    order = np.array([7, 3, 11, 3, 0])
    assert torch.equal(views.training(order, 5), together[order])
    threads(1)
    assert torch.equal(Views(pixels, DIGESTS, Input(interpolation=interpolation)).training(ROWS, 5), together)
    assert torch.equal(torch.cat([views.training(ROWS[n : n + 1], 5) for n in range(12)]), together)


def test_views_depend_on_number_and_digest(pixels: Pixels, picture: Picture) -> None:
    views = Views(pixels, DIGESTS, Input())
    made = [views.training(ROWS, number) for number in (0, 1, 2**40)]
    assert all(not torch.equal(made[a][n], made[b][n]) for a, b in ((0, 1), (0, 2), (1, 2)) for n in range(12))
    same = Pixels([picture(1, 40, 40)] * 3)
    first, second, third = Views(same, [DIGESTS[0], DIGESTS[0], DIGESTS[1]], Input()).training(np.arange(3), 0)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_random_numbers_are_philox_keyed_by_digest_and_counted_by_view(pixels: Pixels) -> None:
    found = Views(pixels, DIGESTS, Input())._uniform(ROWS, 3)
    for row in (0, 5):
        key = int.from_bytes(bytes.fromhex(DIGESTS[row]), "little")
        expected = np.random.Generator(np.random.Philox(key=key, counter=3 << 192)).random(found.shape[1])
        np.testing.assert_array_equal(found[row], expected)


def test_no_global_random_state_is_touched_or_used(pixels: Pixels) -> None:
    views = Views(pixels, DIGESTS, Input())
    before = views.training(ROWS, 0)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)
    again = views.training(ROWS, 0)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    np.testing.assert_equal(np.random.get_state(legacy=False), states[2])
    assert torch.equal(before, again)


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_float32_of_the_wanted_shape_with_the_channels_last_in_memory(
    channels: int, pixels: Pixels
) -> None:
    views = Views(pixels, DIGESTS, Input(channels=channels, mean=(0.5,) * channels, std=(0.2,) * channels))
    for batch in (views.training(ROWS, 0), views.evaluation(ROWS), views.training(ROWS[:0], 0)):
        assert batch.shape[1:] == (channels, 24, 32)
        assert batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "factors", [(1.0, 1.0, 1.0), (0.6, 1.3, 0.8), (1.4, 0.5, 1.4), (1.2, 1.2, 0.0), (0.7, 0.8, 0.5)]
)
def test_colours_are_jittered_by_torchvisions_formulas(factors: tuple[float, float, float], picture: Picture) -> None:
    image = picture(4, 30, 40)
    values = image.astype(np.float32)
    jitter_colours(values, factors)
    expected = torch.from_numpy(image).permute(2, 0, 1).double() / 255
    expected = reference.adjust_contrast(expected, factors[0])
    expected = reference.adjust_brightness(expected, factors[1])
    expected = reference.adjust_saturation(expected, factors[2])
    np.testing.assert_allclose(values.transpose(2, 0, 1) / 255, expected.numpy(), atol=2e-6)


def test_evaluation_is_the_normalised_centre(pixels: Pixels) -> None:
    batch = Views(pixels, DIGESTS, Input()).evaluation(ROWS)
    for row in ROWS.tolist():
        crop = torch.from_numpy(centre_crop(pixels[row], 24, 32).copy()).permute(2, 0, 1)
        expected = reference.normalize(crop.float() / 255, list(Input.mean), list(Input.std))
        torch.testing.assert_close(batch[row], expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(evaluation_batch([pixels[row] for row in ROWS.tolist()], Input()), batch)


def test_one_channel_is_torchvisions_grey(pixels: Pixels) -> None:
    grey = Input(channels=1, mean=(0.4,), std=(0.3,))
    batch = Views(pixels, DIGESTS, grey).evaluation(ROWS[:1])
    crop = torch.from_numpy(centre_crop(pixels[0], 24, 32).copy()).permute(2, 0, 1).float() / 255
    expected = (reference.rgb_to_grayscale(crop) - 0.4) / 0.3
    torch.testing.assert_close(batch[0], expected, atol=1e-5, rtol=1e-5)


def test_a_view_without_departure_is_the_resized_image(pixels: Pixels, picture: Picture) -> None:
    still = Augmentation(scale=(1.0, 1.0), ratio=(4 / 3, 4 / 3), flip=0.0, colour_jitter=0.0)
    plain = Input(mean=(0.0,) * 3, std=(1 / 255,) * 3)
    image = picture(2, 48, 64)
    batch = Views(Pixels([image]), DIGESTS[:1], plain, still).training(ROWS[:1], 9)
    expected = reference.resize(torch.from_numpy(image).permute(2, 0, 1), [24, 32], antialias=True)
    torch.testing.assert_close(batch[0], expected.float(), atol=1.001, rtol=0)
    flipped = Views(Pixels([image]), DIGESTS[:1], plain, Augmentation((1.0, 1.0), (4 / 3, 4 / 3), 1.0, 0.0))
    assert torch.equal(flipped.training(ROWS[:1], 9), batch.flip(3))


def test_crops_keep_their_share_and_ratio_and_reach_everywhere() -> None:
    # Red tells the column and green the row of a pixel, so a view tells its crop.
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    image[..., 0], image[..., 1] = np.arange(200), np.arange(100)[:, None]
    plain = Input(height=50, width=50, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    views = Views(Pixels([image]), DIGESTS[:1], plain, Augmentation((0.2, 0.4), (0.5, 2.0), 0.5, 0.0))
    crops = np.concatenate([views.training(ROWS[:1], number).numpy() for number in range(300)])
    widths = np.ptp(crops[:, 0], axis=(1, 2)) * 50 / 49
    heights = np.ptp(crops[:, 1], axis=(1, 2)) * 50 / 49
    assert np.all(np.abs(widths * heights / 20000 - 0.3) < 0.125)
    assert np.all((widths / heights > 0.45) & (widths / heights < 2.25))
    flipped = crops[:, 0, 0, 0] > crops[:, 0, 0, -1]
    assert 0.4 < flipped.mean() < 0.6
    assert crops[:, 0].min() <= 1
    assert crops[:, 0].max() >= 198
    assert crops[:, 1].min() <= 1
    assert crops[:, 1].max() >= 98


@pytest.mark.parametrize("size", [(24, 96), (128, 32), (24, 33)])
def test_long_images_fall_back_to_the_largest_permitted_crop(size: tuple[int, int], picture: Picture) -> None:
    whole = Augmentation(scale=(1.0, 1.0))
    batch = Views(Pixels([picture(1, *size)]), DIGESTS[:1], Input(), whole).training(ROWS[:1], 0)
    assert torch.isfinite(batch).all()


def test_bytes_are_resized_like_pillow(picture: Picture) -> None:
    image = picture(8, 37, 53)
    for interpolation in ("bilinear", "bicubic"):
        ours = resize(image, 20, 30, interpolation).astype(int)
        theirs = np.asarray(Image.fromarray(image).resize((30, 20), Image.Resampling[interpolation.upper()]))
        assert np.abs(ours - theirs).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (224, 224), (300, 11000)])
def test_mirrored_is_right_to_left(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(mirrored(image), image[:, ::-1])


def test_a_thread_that_makes_views_gets_no_team_of_pytorchs_threads(
    threads: Callable[[int], None], picture: Picture
) -> None:
    # They would spin beside those of training.
    threads(2)
    image, added = picture(3, 300, 300), []

    def work() -> None:
        before = set(os.listdir("/proc/self/task"))
        mirrored(resize(image, 256, 256, "bilinear"))
        added.extend(set(os.listdir("/proc/self/task")) - before)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert not added


def test_an_error_in_one_image_is_raised_and_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch, pixels: Pixels, threads: Callable[[int], None]
) -> None:
    monkeypatch.setattr("inarch.data.views._PIXELS_A_THREAD", 1)
    threads(3)

    def broken(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("inarch.data.views.resize", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        Views(pixels, DIGESTS, Input()).training(ROWS, 0)


@pytest.mark.parametrize(("side", "most"), [(128, 1), (224, 3), (640, 16)])
def test_small_views_are_made_on_few_threads(
    monkeypatch: pytest.MonkeyPatch, picture: Picture, threads: Callable[[int], None], side: int, most: int
) -> None:
    threads(16)
    started: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, others: int, **names: str) -> None:
            super().__init__(others, **names)  # type: ignore[arg-type]
            started.append(others)

    monkeypatch.setattr("inarch.data.views.ThreadPoolExecutor", Pool)
    images = Pixels([picture(1, side, side)] * 20)
    Views(images, [DIGESTS[0]] * 20, Input(height=side, width=side)).training(np.arange(20), 0)
    assert sum(started) == most - 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": (0.0, 1.0)}, "Crops of .* of the area"),
        ({"scale": (0.9, 0.5)}, "Crops of .* of the area"),
        ({"ratio": (2.0, 1.0)}, "Crops of ratio"),
        ({"flip": 1.5}, "flip has no probability of 1.5"),
        ({"colour_jitter": -0.1}, "jittered by -0.1"),
    ],
)
def test_augmentations_that_cannot_be_made_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Augmentation(**wrong)  # type: ignore[arg-type]


def test_digests_must_match_the_pixels(pixels: Pixels) -> None:
    with pytest.raises(ValueError, match="11 digests for 12 images"):
        Views(pixels, DIGESTS[:11], Input())


@pytest.fixture(params=["smooth", "noise", "black and white"])
def any_pixels(request: pytest.FixtureRequest, pixels: Pixels) -> Pixels:
    """Pictures of several sizes, also such whose resizing overshoots."""
    if request.param == "smooth":
        return pixels
    random, most = np.random.default_rng(0), 256 if request.param == "noise" else 2
    shapes = [(26 + n, 34 + 5 * (n % 4), 3) for n in range(12)]
    return Pixels([(random.integers(0, most, shape) * (255 // (most - 1))).astype(np.uint8) for shape in shapes])


@pytest.mark.parametrize("jitter", [0.0, 0.4])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("sides", [(24, 32), (10, 11)])
def test_views_for_a_gpu_are_the_same_but_for_rounding(
    any_pixels: Pixels, interpolation: str, jitter: float, sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Input(height=sides[0], width=sides[1], mean=(0.0,) * 3, std=(1 / 255,) * 3, interpolation=interpolation)
    views = Views(any_pixels, DIGESTS, wanted, Augmentation(colour_jitter=jitter))
    expected = views.training(ROWS, 5)
    monkeypatch.setattr(Views, "_made_on", lambda *_: True)
    monkeypatch.setattr("inarch.data.device_views.TOGETHER", 5)
    found = views.training(ROWS, 5)
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    # A level or two of 255: the processor's resizing has weights of whole numbers.
    assert float((found - expected).abs().max()) < 2.5
    assert float((found - expected).abs().mean()) < 0.1


@pytest.mark.parametrize("channels", [1, 3])
def test_centres_for_a_gpu_are_the_same_but_for_rounding(pixels: Pixels, channels: int) -> None:
    wanted = Input(channels, mean=(0.4,) * channels, std=(0.2,) * channels)
    expected = Views(pixels, DIGESTS, wanted).evaluation(ROWS)
    images = [centre_crop(pixels[row], 24, 32) for row in range(12)]
    torch.testing.assert_close(centres(images, wanted, "cpu"), expected, rtol=0, atol=1e-5)
