"""The page: what it says, that nothing on it comes from elsewhere, and that names from a disk stay text."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from inarch.errors import RunFolderError
from inarch.report import write_report
from inarch.report.page import render
from inarch.report.run import Run
from inarch.results.folder import RunFolder
from inarch.terminal import print_results

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


def test_the_answer_and_every_figure_are_on_the_page(results: dict[str, Any], run: Run) -> None:
    text = Page(render(run)).text
    for expected in (
        results["sentence"], "88.9 %", "85.9 to 91.9 %", "deepen 512, l2", "8 stages, up to blocks.6.0", "+0.8 points",
        "\N{MINUS SIGN}1.2 to +2.8", "86.5 %", "+2.4", "0.011", "0.022", "images and seeds", "1500", "99.0 %", "0.410",
        "1 h 0 min", "84 trials", "torch 2.15.0, timm 1.0.31", "label smoothing", "more seeds", "9f2c7a1be0",
        "Class 'pear' is missing from validation.", "Traditional fine-tuning of all layers", "balance", "not set",
        "Right on 88.9 % of the test images", "50 min 0 s", "inarch fit 'my fruit' --source toy.json --out again",
        "--seeds 2 --device cpu --threads 2", "apple \N{RIGHTWARDS ARROW} pear & <b>quince</b>", "4 of 10 (40.0 %)",
        "source <i>0</i> 0", "1 \N{MULTIPLICATION SIGN} truncated & <unreadable>", "98.0 %",
    ):  # fmt: skip
        assert expected in text, expected


def test_a_difference_that_rounds_to_zero_has_no_sign(results: dict[str, Any]) -> None:
    rows = re.findall(r"<tr>.*?</tr>", render(Run(results)), re.DOTALL)
    row = next(row for row in rows if "The choice minus: Linear probe" in row)
    assert '<td class="n">0.0</td>' in row


def test_equal_files_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    pages = [write_report(place).read_bytes() for place in (folder, tmp_path / "other")]
    assert pages[0] == pages[1]
    assert not re.search(rb"20\d\d-\d\d-\d\d", pages[0])


def test_names_from_the_disk_are_text_and_never_markup(run: Run) -> None:
    hostile = "<img src=x onerror=alert(1)> $x^2$ ' \""
    run.results["curve"][0]["cut"]["name"] = hostile
    run.results["curve"][0]["graft"] = hostile
    run.results["source"]["name"] = "</title><script>alert(2)</script>"
    run.results["dataset"]["classes"][:2] = [hostile, "</svg><script>alert(4)</script>"]
    run.results["cost"]["command"][2] = "</code><script>alert(5)</script>"
    assert run.evidence is not None
    run.evidence["learning"][0]["role"] = hostile
    page = Page(render(run))
    assert not {"script", "b", "i"} & {tag for tag, _ in page.tags}
    assert all(str(attributes["src"]).startswith("data:") for tag, attributes in page.tags if tag == "img")
    assert "train/apple/<script>alert(1)</script>.jpg" in page.text
    assert "test/apple/<script>alert(3)</script>.jpg" in page.text
    assert hostile in page.text
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_page_asks_for_nothing_from_outside(run: Run) -> None:
    text = render(run)
    page = Page(text)
    loading = {"src", "href", "xlink:href", "srcset", "action", "data"}
    targets = {value for _, attributes in page.tags for name, value in attributes.items() if name in loading}
    assert all(target is not None and target.startswith(("#", "data:image/webp;base64,")) for target in targets)
    assert not re.search(r"url\((?!#)|@import", text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    policies = [a.get("content") for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_every_picture_has_words_for_those_who_cannot_see_it(run: Run) -> None:
    page = Page(render(run))
    labels = [str(attributes["aria-label"]) for _, attributes in page.tags if attributes.get("role") == "img"]
    assert all(len(label) > 20 for label in labels)
    pictures = [
        attributes
        for tag, attributes in page.tags
        if tag == "svg" and attributes.get("aria-hidden") != "true" and attributes.get("role") != "img"
    ]
    panels = [attributes for _, attributes in page.tags if attributes.get("class") == "panel"]
    # Accuracies, differences, four grafts, two learning curves, reliability; what stands beside the matrix is hidden.
    assert len(pictures) == len(panels) == 9
    assert all(panel.get("aria-label") for panel in panels)
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert any("Highest: replace with 90.0 %, frozen: 7 stages, up to blocks.5.0" in label for label in labels)


def test_headings_are_in_order_and_every_section_is_reached_from_the_top(run: Run) -> None:
    page = Page(render(run))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    links = [str(attributes["href"]) for tag, attributes in page.tags if tag == "a"]
    assert links == [f"#{name}" for name in ids[1:]]
    assert len(ids) == 16


def test_every_table_has_a_caption_headings_and_can_be_scrolled_from_the_keyboard(run: Run) -> None:
    page = Page(render(run))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption") > 8
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.tags if tag == "th")
    regions = [attributes for _, attributes in page.tags if attributes.get("class") == "scroll"]
    assert all(r.get("tabindex") == "0" and r.get("role") == "region" and r.get("aria-label") for r in regions)


def test_every_id_on_the_page_is_unique(run: Run) -> None:
    # The pictures come from one program: a shared clip path would make one of them draw with the other's.
    shapes = re.findall(r' id="([^"]+)"', render(run))
    assert len(shapes) > 30
    assert len(shapes) == len(set(shapes))


def test_a_run_folder_of_an_older_version_has_a_page_that_says_what_is_missing(
    results: dict[str, Any], folder: Path
) -> None:
    (folder / "evidence.json").unlink()
    shutil.rmtree(folder / "thumbnails")
    del results["cost"]["command"], results["cost"]["training_seconds"], results["cost"]["source_pass_seconds"]
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "This run folder was written by a version of Inarch that kept less" in page.text
    assert "Accuracy against the depth of freezing" in page.text
    assert "What it confuses" not in page.text
    assert "img" not in {tag for tag, _ in page.tags}


def test_a_lost_thumbnail_leaves_its_words(folder: Path, evidence: dict[str, Any]) -> None:
    (folder / "thumbnails" / evidence["model"]["mistakes"][0]["thumbnail"]).unlink()
    text = write_report(folder).read_text(encoding="utf-8")
    assert "Test image of class apple, taken for pear &amp; &lt;b&gt;quince&lt;/b&gt;: the picture is lost" in text


def test_evidence_that_names_a_file_elsewhere_is_refused(folder: Path, evidence: dict[str, Any]) -> None:
    evidence["model"]["mistakes"][0]["thumbnail"] = "../../secret.webp"
    (folder / "evidence.json").write_text(json.dumps(evidence), encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"evidence\.json: model\.mistakes\.0\.thumbnail is .*secret"):
        write_report(folder)


@pytest.mark.parametrize(
    ("left_out", "said"),
    [(["one"], "1 trial was left out for lack of time"), (["one", "two"], "2 trials were left out for lack of time")],
)
def test_what_was_left_out_is_counted(results: dict[str, Any], left_out: list[str], said: str) -> None:
    assert said in Page(render(Run(results | {"left_out": left_out}))).text


def test_the_memory_that_it_took_is_said_where_it_is_known(results: dict[str, Any]) -> None:
    assert "It held at most 1.993 GiB of memory." in Page(render(Run(results))).text
    results["cost"]["peak_memory_bytes"] = None
    assert "of memory" not in Page(render(Run(results))).text


def test_a_comparison_that_could_not_be_made_says_why(results: dict[str, Any]) -> None:
    results["kept_layer"] = {
        "kept": None,
        "replaced": None,
        "reason": "No configuration that keeps the layer was tried.",
    }
    assert "not compared: No configuration that keeps the layer was tried." in Page(render(Run(results))).text


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
        (
            {"workers": 2},
            "as measured against channels last in fp32. 2 trials train side by side, with their shares of the threads.",
        ),
        (
            {"captured": True, "gain": {"frozen": 1.0, "trained": 1.0, "captured": 2.73}},
            "trained ones in fp32: nothing else that was measured is faster by a tenth. The GPU plays back training "
            "steps that were captured once, as CUDA graphs (2.7 times as fast), which changes no result.",
        ),
    ],
)
def test_the_plan_and_what_it_gained_are_one_sentence(
    results: dict[str, Any], changes: dict[str, Any], sentence: str
) -> None:
    results["cost"]["environment"]["plan"] |= changes
    assert sentence in Page(render(Run(results))).text


def test_time_that_passed_side_by_side_is_said_to_be_added_up(results: dict[str, Any]) -> None:
    said = "added up below, so parts may be longer than the whole"
    assert said not in Page(render(Run(results))).text
    results["cost"]["environment"]["plan"]["workers"] = 2
    assert said in Page(render(Run(results))).text


def test_a_study_from_before_plans_still_has_a_page(results: dict[str, Any]) -> None:
    del results["cost"]["environment"]["plan"]
    assert "Execution plan" not in Page(render(Run(results))).text


def test_a_study_without_curve_five_classes_or_settings_still_has_a_page(results: dict[str, Any]) -> None:
    results |= {"curve": [], "paired": [], "left_out": []}
    results["dataset"] |= {"warnings": [], "set_aside": []}
    del results["settings"], results["cost"]["environment"]
    for row in results["test"].values():
        row["top5"] = None
    page = Page(render(Run(results)))
    assert "No cut was tried." in page.text
    assert "Top 5" not in page.text
    assert "No file was set aside." in page.text


def test_warnings_of_a_study_stand_on_the_page_and_on_the_terminal(results: dict[str, Any], tmp_path: Path) -> None:
    results["warnings"] = ["The choice is not clearly better than one answer for all images."]
    assert results["warnings"][0] in Page(render(Run(results))).text
    console = Console(file=io.StringIO(), width=400)
    print_results(results, tmp_path, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.index(results["sentence"]) < said.index(results["warnings"][0]) < said.index("linear probe")


def test_a_folder_without_results_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"is no run folder: it holds no results\.json.*inarch fit"):
        write_report(tmp_path)


def test_an_unfinished_run_is_an_error_that_says_how_to_go_on(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").close()
    with pytest.raises(
        RunFolderError, match=r"run is not finished: it holds no results\.json.*fit` again with the same"
    ):
        write_report(tmp_path / "run")


def test_a_report_of_what_is_no_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("words")
    with pytest.raises(RunFolderError, match=r"report\.html is a file\..*which `inarch fit` wrote"):
        write_report(tmp_path / "report.html")
    with pytest.raises(RunFolderError, match=r"There is no folder .*none"):
        write_report(tmp_path / "none")


def test_results_that_are_not_json_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"format": 1,')
    with pytest.raises(RunFolderError, match=r"results\.json cannot be read"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_report_is_drawn_where_no_pytorch_is_installed(folder: Path) -> None:
    program = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'timm'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from pathlib import Path\n"
        "from inarch.report import write_report\n"
        "write_report(Path(sys.argv[1]))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True, timeout=120)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert text.count("data:image/webp;base64,") == 21  # each class twice, and the mistake
