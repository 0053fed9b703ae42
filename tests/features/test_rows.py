"""Activations survive as rows: values within the stored precision, memory format, whole numbers, narrow types."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from inarch.features.rows import FileRows, Layout, RecomputedRows, bytes_view, read_exactly, round_to
from inarch.features.shelf import Manifest


def kinds() -> dict[str, Tensor]:
    torch.manual_seed(0)
    maps = torch.randn(5, 3, 4, 2)
    return {
        "maps": maps,
        "maps, channels last": maps.to(memory_format=torch.channels_last),
        "maps of one pixel": torch.randn(5, 7, 1, 1),
        "one channel": torch.randn(5, 1, 4, 4),
        "tokens": torch.randn(5, 3, 8),
        "features": torch.randn(5, 9),
        "numbers": torch.randn(5),
        "double": torch.randn(5, 9, dtype=torch.float64),
        "bf16": torch.randn(5, 9).bfloat16(),
        "half": torch.randn(5, 9).half(),
        "whole": torch.randint(-(2**40), 2**40, (5, 9)),
        "bytes": torch.randint(0, 255, (5, 9), dtype=torch.uint8),
        "truth": torch.randn(5, 9) > 0,
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16", None])
@pytest.mark.parametrize("kind", kinds())
def test_rows_give_back_what_rounding_alone_gives(kind: str, precision: str | None) -> None:
    x = kinds()[kind]
    layout = Layout.of(x, precision)
    again = layout.unpack(layout.pack(x), "cpu")
    assert again.dtype == x.dtype
    assert torch.equal(again, round_to(x, precision))
    assert layout.row_bytes == layout.pack(x).nbytes // len(x)
    if kind in ("bf16", "half", "whole", "bytes", "truth") or precision is None:
        assert torch.equal(again, x)
    elif precision == "bf16":
        assert not torch.equal(again, x)
        assert float((again - x).abs().max() / x.abs().max()) < 2**-8


def test_the_memory_format_is_that_of_the_pass() -> None:
    for kind in ("maps", "maps, channels last"):
        x = kinds()[kind]
        layout = Layout.of(x, "fp32")
        assert layout.unpack(layout.pack(x), "cpu").stride() == x.stride()


def test_rows_are_read_from_a_file_in_any_order_as_from_memory(tmp_path: Path) -> None:
    x = kinds()["maps, channels last"]
    layout = Layout.of(x, "bf16")
    rows = layout.pack(x)
    (tmp_path / "rows").write_bytes(bytes_view(rows))
    manifest = Manifest(layout.row, layout.row_bytes, "bfloat16", "float32", True, 5, 2, (0, 0, 0))
    opened = FileRows(os.open(tmp_path / "rows", os.O_RDONLY), manifest)
    try:
        assert opened.layout == layout
        for positions in ([0, 1, 2, 3, 4], [4, 0, 1, 3], [2, 2], [3], []):
            wanted = np.array(positions, dtype=np.int64)
            assert torch.equal(opened.take(wanted), rows[torch.from_numpy(wanted)])
            assert torch.equal(opened.all("cpu").take(wanted), rows[torch.from_numpy(wanted)])
        assert opened.damaged() == [0, 1, 2]
    finally:
        opened.close()


def test_a_file_that_ends_early_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"12345")
    with (tmp_path / "rows").open("rb") as file, pytest.raises(OSError, match="ends at byte 5"):
        read_exactly(file.fileno(), memoryview(bytearray(4)), 3)


def test_recomputed_rows_are_those_of_their_chunks() -> None:
    x = kinds()["features"]
    layout = Layout.of(x, "bf16")
    asked: list[list[int]] = []

    def compute(positions: np.ndarray) -> tuple[Layout, Tensor]:
        asked.append(positions.tolist())
        return layout, layout.pack(x[torch.from_numpy(positions)])

    rows = RecomputedRows(5, 2, compute)
    wanted = np.array([4, 1, 0, 4])
    assert torch.equal(rows.take(wanted), layout.pack(x)[torch.from_numpy(wanted)])
    assert asked[-2:] == [[0, 1], [4]]
