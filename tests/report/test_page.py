"""The page: what it says, that nothing on it comes from elsewhere, and that names from a disk stay text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from inarch.errors import RunFolderError
from inarch.report import write_report
from inarch.report.page import render

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Tags and text of a page; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_answer_and_every_figure_are_on_the_page(results: dict[str, Any]) -> None:
    text = Page(render(results)).text
    for expected in (
        results["sentence"], "88.9 %", "85.9 to 91.9 %", "deepen 512, l2", "8 stages, up to blocks.6.0", "+0.8 points",
        "\N{MINUS SIGN}1.2 to +2.8", "86.5 %", "+2.4", "0.011", "0.022", "images and seeds", "1500", "99.0 %", "0.410",
        "1 h 0 min", "Trials: 84", "torch 2.15.0, timm 1.0.31", "label smoothing", "more seeds", "9f2c7a1be0",
        "Class 'pear' is missing from validation.", "Traditional fine-tuning of all layers", "balance not set",
        "flip yes",
    ):  # fmt: skip
        assert expected in text, expected


def test_a_difference_that_rounds_to_zero_has_no_sign(results: dict[str, Any]) -> None:
    rows = re.findall(r"<tr>.*?</tr>", render(results), re.DOTALL)
    row = next(row for row in rows if "The choice minus: Linear probe" in row)
    assert '<td class="n">0.0</td>' in row


def test_equal_results_give_equal_bytes(results: dict[str, Any], tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results), encoding="utf-8")
        pages.append(write_report(tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
    assert not re.search(rb"20\d\d-\d\d-\d\d", pages[0])


def test_names_from_the_disk_are_text_and_never_markup(results: dict[str, Any]) -> None:
    results["curve"][0]["cut"]["name"] = "<img src=x onerror=alert(1)> $x^2$"
    results["source"]["name"] = "</title><script>alert(2)</script>"
    page = Page(render(results))
    assert not {"script", "img", "b"} & {tag for tag, _ in page.tags}
    assert "train/apple/<script>alert(1)</script>.jpg" in page.text
    assert "pear & <b>quince</b>" in page.text
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_page_asks_for_nothing_from_outside(results: dict[str, Any]) -> None:
    text = render(results)
    page = Page(text)
    loading = {"src", "href", "xlink:href", "srcset", "action", "data"}
    targets = {value for _, attributes in page.tags for name, value in attributes.items() if name in loading}
    assert all(target is not None and target.startswith("#") for target in targets)
    assert not re.search(r"url\((?!#)|@import", text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    policies = [a.get("content") for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_both_pictures_have_words_for_those_who_cannot_see_them(results: dict[str, Any]) -> None:
    page = Page(render(results))
    labels = [attributes["aria-label"] for _, attributes in page.tags if attributes.get("role") == "img"]
    assert len(labels) == 2
    assert sum(tag == "svg" for tag, _ in page.tags) == 2
    assert "Highest: replace with 90.0 %, frozen: 7 stages, up to blocks.5.0" in (labels[0] or "")


def test_every_id_on_the_page_is_unique(results: dict[str, Any]) -> None:
    # The two pictures come from one program: a shared clip path would make one of them draw with the other's.
    text = render(results)
    shapes = re.findall(r'<(?:clipPath|path|use) id="([^"]+)"', text)
    assert len(shapes) == len(set(shapes))


def test_a_comparison_that_could_not_be_made_says_why(results: dict[str, Any]) -> None:
    results["kept_layer"] = {
        "kept": None,
        "replaced": None,
        "reason": "No configuration that keeps the layer was tried.",
    }
    assert "not compared: No configuration that keeps the layer was tried." in Page(render(results)).text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "Execution plan: channels last, frozen stages in bf16 (1.9 times as fast), trained ones in fp32, as "
            "measured against channels last in fp32.",
        ),
        (
            {"frozen": "fp32", "gain": {"frozen": 1.0, "trained": 1.0}},
            "Execution plan: channels last, frozen stages in fp32, trained ones in fp32: nothing else that was "
            "measured is faster by a tenth.",
        ),
        (
            {"memory_format": "contiguous", "trained": "bf16", "gain": {"frozen": None, "trained": None}},
            "Execution plan: contiguous, frozen stages in bf16, trained ones in bf16.",
        ),
    ],
)
def test_the_plan_and_what_it_gained_are_one_sentence(
    results: dict[str, Any], changes: dict[str, Any], sentence: str
) -> None:
    results["cost"]["environment"]["plan"] |= changes
    assert sentence in Page(render(results)).text


def test_a_study_from_before_plans_still_has_a_page(results: dict[str, Any]) -> None:
    del results["cost"]["environment"]["plan"]
    assert "Execution plan" not in Page(render(results)).text


def test_a_study_without_curve_five_classes_or_settings_still_has_a_page(results: dict[str, Any]) -> None:
    results |= {"curve": [], "paired": [], "left_out": []}
    results["dataset"] |= {"warnings": [], "set_aside": []}
    del results["settings"], results["cost"]["environment"]
    for row in results["test"].values():
        row["top5"] = None
    page = Page(render(results))
    assert "No cut was tried." in page.text
    assert "Top 5" not in page.text
    assert "No file was set aside." in page.text


def test_a_folder_without_results_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"holds no results\.json.*inarch fit"):
        write_report(tmp_path)


def test_results_that_are_not_json_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"format": 1,')
    with pytest.raises(RunFolderError, match=r"results\.json cannot be read"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_report_is_drawn_where_no_pytorch_is_installed(results: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'torchvision', 'timm')))\n"  # None: importing it fails
        "from pathlib import Path\n"
        "from inarch.report import write_report\n"
        "write_report(Path(sys.argv[1]))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)
    assert (tmp_path / "report.html").stat().st_size > 10_000
