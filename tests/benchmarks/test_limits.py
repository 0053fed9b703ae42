"""Operations and bytes that limits.py counts, and the limits that follow from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from toy import write_images, write_source

import common
import limits


def test_a_matrix_product_is_counted_exactly() -> None:
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    with limits.Work() as work:
        left @ right.t().contiguous().t()  # the transposed views move nothing, the copy reads and writes
    assert work.operations == 2 * 3 * 5 * 7
    assert work.bytes == 4 * (2 * 35) + 4 * (15 + 35 + 21)


def test_expanded_values_count_once() -> None:
    with limits.Work() as work:
        torch.ones(1, 8).expand(100, 8).neg()
    assert work.bytes == 4 * 8 + 4 * (8 + 800)


@pytest.mark.parametrize("groups", [1, 4])
def test_each_gradient_of_a_convolution_takes_what_the_forward_pass_took(groups: int) -> None:
    layer = nn.Conv2d(4, 8, 3, groups=groups, bias=False)
    images = torch.ones(2, 4, 6, 6, requires_grad=True)
    with limits.Work() as forward:
        found = layer(images)
    assert forward.operations == 2 * 2 * 8 * 4 * 4 * (4 // groups) * 9
    with limits.Work() as backward:
        found.backward(torch.ones_like(found))
    assert backward.operations == 2 * forward.operations


def test_the_limit_is_the_slower_of_both_at_each_operation() -> None:
    work = limits.Work()
    work.done = [(100, 10, "fp32"), (10, 100, "bf16")]
    found = work.limits({"fp32": 1.0, "bf16": 10.0, "copy": 1.0})
    assert found == {"operations": 101.0, "bytes": 110.0, "both": 200.0}


def test_the_script_prints_limits_of_every_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path)
    write_images(tmp_path / "shared" / "weights", a_class=1)
    monkeypatch.setenv("INARCH_SHARED", str(tmp_path / "shared"))
    monkeypatch.setattr(common, "card", lambda network: source)
    monkeypatch.setattr(common, "in_child", lambda function, values, *_: limits.roofline(str(values["source"]), 1))
    monkeypatch.setattr(limits, "SIDE", 64)
    monkeypatch.setattr(limits, "COPIED", 1 << 16)
    assert limits.main(["--quick", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "limits.json")]) == 0
    assert "step at cut 0" in capsys.readouterr().out
    (found,) = json.loads((tmp_path / "limits.json").read_text())["networks"].values()
    assert {one["precision"] for one in found["passes"]} == set(limits.precisions())
    for one in found["passes"]:
        assert max(one["limits"]["operations"], one["limits"]["bytes"]) <= one["limits"]["both"]
        assert one["seconds"] > 0
    forward, whole, part = found["passes"][:3]
    assert forward["operations"] < part["operations"] < whole["operations"] < 3 * forward["operations"] + 1
