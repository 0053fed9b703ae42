"""Small pictures and folders of them, made on the fly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from inarch.data import Pixels

Picture = Callable[..., NDArray[np.uint8]]
Folder = Callable[[Mapping[str, int | str]], Path]


@pytest.fixture(scope="session")
def picture() -> Picture:
    """A smooth picture of its own for every number: uint8 [height, width, 3]."""

    def make(number: int, height: int = 12, width: int = 16) -> NDArray[np.uint8]:
        coarse = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))

    return make


@pytest.fixture(scope="session")
def pixels(picture: Picture) -> Pixels:
    """Twelve pictures of several sizes."""
    return Pixels([picture(n, 26 + n, 34 + 5 * (n % 4)) for n in range(12)])


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of PyTorch's threads, for the test alone."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path, picture: Picture) -> Folder:
    """Writes a data folder: a number is the picture of that number, a text is the file's content."""

    def make(files: Mapping[str, int | str]) -> Path:
        root = tmp_path / "data"
        root.mkdir(exist_ok=True)
        for name, content in files.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                file.write_text(content)
            else:
                Image.fromarray(picture(content)).save(file, "PNG")
        return root

    return make


@pytest.fixture
def two_classes(folder: Folder) -> Path:
    """Ten different pictures of each of the classes "apple" and "pear", without splits."""
    return folder({f"{name}/{n}.png": 100 * c + n for c, name in enumerate(("apple", "pear")) for n in range(10)})
