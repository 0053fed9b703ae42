"""Operations and bytes that limits.py counts, and the limits that follow from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import write_images, write_source

import common
import limits
import roofline
from inarch.network.depthwise import quick_gradients


def test_a_matrix_product_is_counted_exactly() -> None:
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    with roofline.Work() as work:
        left @ right.t().contiguous().t()  # the transposed views move nothing, the copy reads and writes
    assert work.operations == 2 * 3 * 5 * 7
    assert work.bytes == 4 * (2 * 35) + 4 * (15 + 35 + 21)


def test_expanded_values_count_once_and_what_is_overwritten_is_not_read() -> None:
    one, goal = torch.ones(1, 8), torch.empty(100, 8)
    with roofline.Work() as work:
        goal.copy_(one.expand(100, 8))
    assert work.bytes == 4 * 8 + 4 * 800


def test_a_copy_moves_what_its_rate_is_taken_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "COPIES", (1 << 12,))
    (run,) = roofline.copies("cpu").values()
    with roofline.Work() as work:
        run(1)
    assert work.bytes == 1 << 12


@pytest.mark.parametrize("groups", [1, 4])
def test_each_gradient_of_a_convolution_takes_what_the_forward_pass_took(groups: int) -> None:
    layer = nn.Conv2d(4, 8, 3, groups=groups, bias=False)
    images = torch.ones(2, 4, 6, 6, requires_grad=True)
    with roofline.Work() as forward:
        found = layer(images)
    assert forward.operations == 2 * 2 * 8 * 4 * 4 * (4 // groups) * 9
    gradient = torch.ones_like(found)
    with roofline.Work() as backward:
        found.backward(gradient, retain_graph=True)
    assert backward.operations == 2 * forward.operations
    layer.requires_grad_(False)
    with roofline.Work() as of_input:
        found = layer(images.detach().requires_grad_())
        found.backward(gradient)
    assert of_input.operations == 2 * forward.operations


def test_a_convolution_counts_in_the_precision_in_which_it_is_computed() -> None:
    layer = nn.Conv2d(8, 8, 3, stride=2, groups=8, bias=False)
    images = torch.ones(2, 8, 9, 9, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16), quick_gradients(), roofline.Work() as forward:
        found = layer(images)
    assert {precision for operations, _, precision in forward.done if operations} == {"bf16"}
    with roofline.Work() as backward:
        found.float().sum().backward()
    # Slow in bf16: the gradient for the input of a strided depthwise convolution.
    assert {precision for operations, _, precision in backward.done if operations} == {"bf16", "fp32"}


def test_the_limit_is_the_slower_of_both_at_each_operation_and_copying_has_its_rate_by_size() -> None:
    work = roofline.Work()
    work.done = [(100, 10, "fp32"), (10, 1000, "bf16"), (0, 100, "fp32")]
    found = work.limits({"fp32": 1.0, "bf16": 10.0}, {10: 10.0, 1000: 2.0})
    assert found == pytest.approx({"operations": 101.0, "bytes": 1 + 500 + 100 / 6, "both": 100 + 500 + 100 / 6})


def test_the_script_prints_limits_of_every_pass_and_of_what_feeds_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path)
    for split, count in (("train", 30), ("val", 4), ("test", 4)):
        write_images(tmp_path / "shared" / "data" / "clothing" / split, a_class=count)
    (tmp_path / "shared" / "weights").mkdir()
    monkeypatch.setenv("INARCH_SHARED", str(tmp_path / "shared"))
    monkeypatch.setattr(common, "card", lambda network: source)

    def here(function: str, values: dict[str, Any], *_: object) -> common.Record:
        given = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
        measured: common.Record = getattr(limits, function.partition(":")[2])(**given | {"rounds": 1})
        return measured

    monkeypatch.setattr(common, "in_child", here)
    monkeypatch.setattr(limits, "keep_memory", lambda: True)
    monkeypatch.setattr(torch, "set_flush_denormal", lambda _: True)
    monkeypatch.setitem(roofline.SIDE, "cpu", 64)
    monkeypatch.setitem(roofline.AT_ONCE, "cpu", 3)
    monkeypatch.setattr(roofline, "COPIES", (1 << 12, 1 << 16))
    assert limits.main(["--quick", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "limits.json")]) == 0
    printed = capsys.readouterr().out
    assert "training, cut 0" in printed
    written = json.loads((tmp_path / "limits.json").read_text())
    (found,), (data,) = written["networks"].values(), written["data"].values()
    assert {one["precision"] for one in found["passes"]} == set(roofline.precisions("cpu"))
    forward, whole, part = found["passes"][:3]
    # The toy: convolutions at 16 x 16 and 8 x 8, and the classification layer.
    assert forward["operations"] == limits.BATCH_SIZE * 2 * (16 * 16 * 8 * 27 + 8 * 8 * 12 * 72 + 12 * 6)
    assert f"{100 * forward['limits']['both'] / forward['seconds']:.4g}" in printed
    assert forward["operations"] < part["operations"] < whole["operations"] < 3 * forward["operations"] + 1
    views, *stored = data["parts"]
    assert [one["precision"] for one in stored] == roofline.precisions("cpu")
    # At the toy's middle cut 8 channels of 8 x 8, stored in bf16 and handed over in the precision of the pass.
    assert stored[0]["bytes"] == limits.BATCH_SIZE * 8 * 8 * 8 * (2 + 4)
    # A view of 16 x 16 in float32, of two thirds of an image on average.
    assert views["bytes"] > limits.BATCH_SIZE * 3 * (16 * 16 * 4 + 0.6 * 16 * 16)
    assert 0 < views["limit"] < views["seconds"]
    assert f"{100 * views['limit'] / views['seconds']:.4g}" in printed
