"""Every file is read as a person would see it, or refused with a reason."""

from __future__ import annotations

import io
import logging
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from inarch.data.images import centre_crop, looks_like_image, quiet_pillow, read_image, resize_to_cover
from inarch.errors import DataError, UsageError

from .conftest import Picture


def encoded(image: Image.Image, form: str, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, form, **options)
    file.seek(0)
    return file


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, picture: Picture) -> None:
    seen = picture(1)
    # How a camera held that way stores what is seen: the inverse of what the viewer does.
    stored = {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.transpose(1, 0, 2),
        6: np.rot90(seen, 1),
        7: seen[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(seen, -1),
    }[orientation]
    for form in ("PNG", "TIFF", "WEBP"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options: dict[str, object] = {"lossless": True} if form == "WEBP" else {}
        file = encoded(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif, **options)
        np.testing.assert_array_equal(read_image(file), seen, err_msg=form)


def test_damaged_exif_does_not_hide_the_picture(picture: Picture) -> None:
    file = encoded(Image.fromarray(picture(1)), "PNG", exif=b"Exif\0\0MM\0*\0\0\xff\xff\0\xff")
    np.testing.assert_array_equal(read_image(file), picture(1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB", "1"])
def test_transparency_lies_over_white(mode: str) -> None:
    options: dict[str, object] = {}
    if mode in ("RGBA", "LA"):
        image = Image.new(mode, (2, 1), (0,) * len(mode))
        image.putpixel((1, 0), (*(0,) * (len(mode) - 1), 255))
    else:
        image = Image.new(mode, (2, 1), 0)
        if mode == "P":
            image.putpalette([9, 9, 9, 0, 0, 0])
        image.putpixel((1, 0), (7, 7, 7) if mode == "RGB" else 1)
        options["transparency"] = (0, 0, 0) if mode == "RGB" else 0
    pixels = read_image(encoded(image, "PNG", **options))
    visible = {"L": 1, "RGB": 7, "1": 255}.get(mode, 0)
    np.testing.assert_array_equal(pixels, [[[255] * 3, [visible] * 3]])


def test_half_transparency_mixes_with_white() -> None:
    pixels = read_image(encoded(Image.new("RGBA", (1, 1), (200, 0, 0, 128)), "PNG"))
    np.testing.assert_allclose(pixels[0, 0], [227, 127, 127], atol=1)


def test_palette_with_an_opacity_for_each_colour_lies_over_white() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    pixels = read_image(encoded(image, "PNG", transparency=bytes([0, 255])))
    np.testing.assert_array_equal(pixels, [[[255, 255, 255], [40, 50, 60]]])


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_by_their_range_and_not_clipped(form: str) -> None:
    values = np.array([[0, 257, 4096, 65535]], dtype=np.uint16)
    grey = read_image(encoded(Image.fromarray(values), form))[0, :, 0]
    np.testing.assert_array_equal(grey, [0, 1, 16, 255])


def test_big_endian_sixteen_bits_are_read() -> None:
    file = encoded(Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 0x0101, 0xFFFF)), "TIFF")
    np.testing.assert_array_equal(read_image(file)[0, :, 0], [1, 255])


def test_a_transparent_sixteen_bit_value_becomes_white() -> None:
    values = np.array([[300, 65535 // 5]], dtype=np.uint16)
    grey = read_image(png(1, 2, 16, 0, values.astype(">u2").tobytes(), struct.pack(">H", 300)))[0, :, 0]
    np.testing.assert_array_equal(grey, [255, 51])


def test_transparent_sixteen_bit_colour_is_read() -> None:
    values = np.array([[[0x1234, 0x5678, 0x9ABC], [0xFFFF, 0, 0]]], dtype=">u2")
    pixels = read_image(png(1, 2, 16, 2, values.tobytes(), struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)))
    np.testing.assert_array_equal(pixels[0, 1], [255, 0, 0])


def png(height: int, width: int, bits: int, colour: int, row: bytes, transparent: bytes) -> io.BytesIO:
    """A PNG file of one row, with a transparent colour: Pillow does not write these."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [
        chunk(b"IHDR", header),
        chunk(b"tRNS", transparent),
        chunk(b"IDAT", zlib.compress(b"\0" + row)),
        chunk(b"IEND", b""),
    ]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        (np.array([[0, 65535]], dtype=np.int32), [0, 255]),
        (np.array([[0, 257]], dtype=np.int32), [0, 1]),
        (np.array([[-5, 5]], dtype=np.int32), [0, 255]),
        (np.array([[0, 500_000, 1_000_000]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.25, 1.0]], dtype=np.float32), [0, 64, 255]),
        (np.array([[-2.0, np.nan, np.inf, 2.0]], dtype=np.float32), [0, 0, 255, 255]),
        (np.array([[3.0, 3.0]], dtype=np.float32), [0, 0]),
        (np.array([[np.nan, np.nan]], dtype=np.float32), [0, 0]),
    ],
)
def test_thirty_two_bits_are_scaled_by_65535_or_their_own_range(values: NDArray[np.generic], grey: list[int]) -> None:
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(values), "TIFF"))[0, :, 2], grey)


def test_black_and_white_and_grey_become_three_equal_channels() -> None:
    for mode, value, expected in (("1", 1, 255), ("L", 77, 77)):
        np.testing.assert_array_equal(read_image(encoded(Image.new(mode, (1, 1), value), "PNG")), [[[expected] * 3]])


def test_cmyk_is_seen_in_its_colours_also_inverted_as_adobe_writes_it() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    plain, adobe = encoded(cyan, "TIFF"), encoded(cyan, "JPEG", quality=95)
    assert b"Adobe" in adobe.getvalue()
    for file in (plain, adobe):
        np.testing.assert_allclose(read_image(file)[8, 8], [0, 255, 255], atol=3)


def test_lab_colours_are_converted(tmp_path: Path) -> None:
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (4, 4), (200, 60, 30)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert lab is not None
    np.testing.assert_allclose(read_image(encoded(lab, "TIFF"))[0, 0], [200, 60, 30], atol=6)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "PNG", "WEBP"])
def test_of_many_frames_the_first_is_read(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options: dict[str, object] = {"lossless": True} if form == "WEBP" else {}
    file = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    with Image.open(file) as image:
        assert getattr(image, "n_frames", 1) == 3
    file.seek(0)
    np.testing.assert_array_equal(read_image(file)[0, 0], [255, 0, 0])


def test_eps_is_refused_before_any_program_could_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.eps"
    Image.new("RGB", (4, 4)).save(file, "EPS")
    started: list[object] = []
    monkeypatch.setattr("subprocess.Popen", lambda *arguments, **_: started.append(arguments))
    monkeypatch.setattr("os.system", started.append)
    for name in ("a.eps", "a.png"):
        renamed = file.rename(tmp_path / name)
        with pytest.raises(DataError, match="EPS is not read: it would take another program"):
            read_image(renamed)
        renamed.rename(file)
    assert not started


def test_unusable_files_are_refused_with_their_reason(tmp_path: Path, picture: Picture) -> None:
    whole = encoded(Image.fromarray(picture(1, 64, 64)), "JPEG").getvalue()
    files = {
        "empty.jpg": (b"", "empty file"),
        "text.jpg": (b"not a picture", "not an image that Pillow reads"),
        "short.jpg": (whole[: len(whole) // 2], "(?i)^damaged: .*truncated"),
        "header.jpg": (whole[:20], "^damaged|^not an image"),
        "broken.png": (encoded(Image.fromarray(picture(2)), "PNG").getvalue()[:60], "^damaged"),
    }
    for name, (content, reason) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=reason) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path) not in caught.value.problem
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        read_image(tmp_path / "folder.jpg")
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path / "nowhere.jpg")


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str) -> object:
        raise PermissionError(13, "Permission denied", str(self))

    Image.new("L", (1, 1)).save(tmp_path / "a.png")
    # Permissions do not bind the superuser, so the refusal of the system is played.
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"^permission denied$"):
        read_image(tmp_path / "a.png")


def test_a_pipe_called_like_an_image_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    file = encoded(Image.new("RGB", (30, 20)), "PNG")
    assert read_image(file, max_pixels=600).shape == (20, 30, 3)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    file.seek(0)
    with pytest.raises(DataError, match="30 x 20 is more than 599 pixels"):
        read_image(file, max_pixels=599)


def test_a_decompression_bomb_is_refused_and_the_limit_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    file = encoded(Image.new("RGB", (30, 20)), "PNG")
    with pytest.raises(DataError, match="more than 50 pixels"):
        read_image(file, max_pixels=50)
    file.seek(0)
    assert read_image(file, max_pixels=600).shape == (20, 30, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_reading_is_silent_and_restores_the_state_of_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    filters, level = list(warnings.filters), logging.getLogger("PIL").level
    with quiet_pillow(10), quiet_pillow(20):
        warnings.warn("Pillow has something to say", stacklevel=1)
        logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel than can be decoded")
        assert len(read_image(encoded(Image.new("L", (2, 2)), "PNG"))) == 2
    assert capfd.readouterr() == ("", "")
    assert (warnings.filters, logging.getLogger("PIL").level) == (filters, level)


def test_threads_that_overlap_restore_the_state_of_the_process() -> None:
    limit, filters, inside, leave = Image.MAX_IMAGE_PIXELS, list(warnings.filters), threading.Event(), threading.Event()

    def read() -> None:
        with quiet_pillow(10**9):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=read)
    with quiet_pillow(10):
        thread.start()
        assert inside.wait(10)
    assert Image.MAX_IMAGE_PIXELS == 10**9
    leave.set()
    thread.join()
    assert (Image.MAX_IMAGE_PIXELS, warnings.filters) == (limit, filters)


def test_images_are_known_by_their_ending_or_their_first_bytes(tmp_path: Path) -> None:
    Image.new("L", (1, 1)).save(tmp_path / "noending", "PNG")
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "damaged.JPG").write_text("words")
    found = {file.name for file in tmp_path.iterdir() if looks_like_image(file)}
    assert found == {"noending", "damaged.JPG"}


@pytest.mark.parametrize(
    ("size", "wanted", "result"),
    [
        ((100, 200), (50, 50), (50, 100)),
        ((200, 100), (50, 50), (100, 50)),
        ((10, 10), (30, 20), (30, 30)),
        ((31, 77), (16, 24), (16, 40)),
        ((1, 4000), (16, 16), (16, 64)),
        ((4000, 1), (8, 16), (32, 16)),
        ((16, 16), (16, 16), (16, 16)),
    ],
)
def test_resized_images_just_cover_and_keep_their_proportions(
    size: tuple[int, int], wanted: tuple[int, int], result: tuple[int, int], picture: Picture
) -> None:
    assert resize_to_cover(picture(1, *size), *wanted, "bilinear").shape == (*result, 3)


def test_resizing_follows_pillow(picture: Picture) -> None:
    image = picture(3, 40, 60)
    expected = np.asarray(Image.fromarray(image).resize((24, 16), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(resize_to_cover(image, 16, 16, "lanczos"), expected)
    with pytest.raises(UsageError, match=r"no interpolation 'cubic'.*bicubic"):
        resize_to_cover(image, 16, 16, "cubic")


def test_the_centre_is_cropped(picture: Picture) -> None:
    image = picture(1, 7, 10)
    np.testing.assert_array_equal(centre_crop(image, 3, 4), image[2:5, 3:7])
    with pytest.raises(ValueError, match="no centre of 8 x 4"):
        centre_crop(image, 8, 4)
