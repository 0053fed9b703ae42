"""Operations and bytes that limits.py counts, and the limits that follow from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import write_source

import common
import limits
from inarch.network.depthwise import quick_gradients


def test_a_matrix_product_is_counted_exactly() -> None:
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    with limits.Work() as work:
        left @ right.t().contiguous().t()  # the transposed views move nothing, the copy reads and writes
    assert work.operations == 2 * 3 * 5 * 7
    assert work.bytes == 4 * (2 * 35) + 4 * (15 + 35 + 21)


def test_expanded_values_count_once_and_what_is_overwritten_is_not_read() -> None:
    one, goal = torch.ones(1, 8), torch.empty(100, 8)
    with limits.Work() as work:
        goal.copy_(one.expand(100, 8))
    assert work.bytes == 4 * 8 + 4 * 800


def test_a_copy_moves_what_its_rate_is_taken_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COPIES", (1 << 12,))
    (run,) = limits.copies("cpu").values()
    with limits.Work() as work:
        run(1)
    assert work.bytes == 1 << 12


@pytest.mark.parametrize("groups", [1, 4])
def test_each_gradient_of_a_convolution_takes_what_the_forward_pass_took(groups: int) -> None:
    layer = nn.Conv2d(4, 8, 3, groups=groups, bias=False)
    images = torch.ones(2, 4, 6, 6, requires_grad=True)
    with limits.Work() as forward:
        found = layer(images)
    assert forward.operations == 2 * 2 * 8 * 4 * 4 * (4 // groups) * 9
    gradient = torch.ones_like(found)
    with limits.Work() as backward:
        found.backward(gradient, retain_graph=True)
    assert backward.operations == 2 * forward.operations
    layer.requires_grad_(False)
    with limits.Work() as of_input:
        found = layer(images.detach().requires_grad_())
        found.backward(gradient)
    assert of_input.operations == 2 * forward.operations


def test_a_convolution_counts_in_the_precision_in_which_it_is_computed() -> None:
    layer = nn.Conv2d(8, 8, 3, stride=2, groups=8, bias=False)
    images = torch.ones(2, 8, 9, 9, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16), quick_gradients(), limits.Work() as forward:
        found = layer(images)
    assert {precision for operations, _, precision in forward.done if operations} == {"bf16"}
    with limits.Work() as backward:
        found.float().sum().backward()
    # Slow in bf16: the gradient for the input of a strided depthwise convolution.
    assert {precision for operations, _, precision in backward.done if operations} == {"bf16", "fp32"}


def test_the_limit_is_the_slower_of_both_at_each_operation_and_copying_has_its_rate_by_size() -> None:
    work = limits.Work()
    work.done = [(100, 10, "fp32"), (10, 1000, "bf16"), (0, 100, "fp32")]
    found = work.limits({"fp32": 1.0, "bf16": 10.0}, {10: 10.0, 1000: 2.0})
    assert found == pytest.approx({"operations": 101.0, "bytes": 1 + 500 + 100 / 6, "both": 100 + 500 + 100 / 6})


def test_the_script_prints_limits_of_every_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path)
    monkeypatch.setattr(common, "card", lambda network: source)

    def here(function: str, values: dict[str, Any], *_: object) -> common.Record:
        return limits.roofline(str(values["source"]), 1, values["device"])

    monkeypatch.setattr(common, "in_child", here)
    monkeypatch.setattr(limits, "keep_memory", lambda: True)
    monkeypatch.setattr(torch, "set_flush_denormal", lambda _: True)
    monkeypatch.setitem(limits.SIDE, "cpu", 64)
    monkeypatch.setitem(limits.AT_ONCE, "cpu", 3)
    monkeypatch.setattr(limits, "COPIES", (1 << 12, 1 << 16))
    assert limits.main(["--quick", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "limits.json")]) == 0
    printed = capsys.readouterr().out
    assert "training, cut 0" in printed
    (found,) = json.loads((tmp_path / "limits.json").read_text())["networks"].values()
    assert {one["precision"] for one in found["passes"]} == set(limits.precisions("cpu"))
    forward, whole, part = found["passes"][:3]
    # The toy: convolutions at 16 x 16 and 8 x 8, and the classification layer.
    assert forward["operations"] == limits.BATCH_SIZE * 2 * (16 * 16 * 8 * 27 + 8 * 8 * 12 * 72 + 12 * 6)
    assert f"{100 * forward['limits']['both'] / forward['seconds']:.4g}" in printed
    assert forward["operations"] < part["operations"] < whole["operations"] < 3 * forward["operations"] + 1
