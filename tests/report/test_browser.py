"""The page in a real browser: nothing goes wrong, nothing is asked for, and a phone shows every word."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from program import ONE, inarch
from toy import write_images, write_source

from inarch.report import write_report

# The page may run no script, so what measures it stands around it: frames as wide as a phone and as a desktop.
AROUND = """<!DOCTYPE html><meta charset="utf-8"><title>around</title>
<iframe id="phone" style="width: 390px; height: 3000px; border: 0" srcdoc="{page}"></iframe>
<iframe id="desktop" style="width: 1280px; height: 3000px; border: 0" srcdoc="{page}"></iframe>
<script>
const shown = node => node.checkVisibility && node.checkVisibility();
const name = node => node.tagName + " " + node.getAttribute("class") + ": " + node.textContent.slice(0, 40);
function measure(frame) {{
  const page = frame.contentDocument, width = frame.clientWidth, cut = [];
  for (const details of page.querySelectorAll("details")) details.open = true;
  for (const node of page.querySelectorAll("body *")) {{
    if (!shown(node) || node.closest(".scroll")) continue;
    const box = node.getBoundingClientRect();
    if (box.right > width + 1 || box.left < -1) cut.push(name(node));
    const style = frame.contentWindow.getComputedStyle(node);
    if (style.overflowX !== "visible" && node.scrollWidth > node.clientWidth + 1) cut.push(name(node));
    if (style.overflowY !== "visible" && node.scrollHeight > node.clientHeight + 1) cut.push(name(node));
  }}
  for (const picture of page.querySelectorAll("figure svg")) {{
    const around = picture.getBoundingClientRect();
    for (const text of picture.querySelectorAll("text")) {{
      const box = text.getBoundingClientRect();
      const inside = box.left > around.left - 1 && box.right < around.right + 1 && box.bottom < around.bottom + 1;
      if (!inside) cut.push(name(text));
    }}
  }}
  const mixed = [];
  for (const picture of page.querySelectorAll(".panel svg")) {{
    const boxes = [...picture.querySelectorAll("text")].map(text => [text, text.getBoundingClientRect()]);
    boxes.forEach(([one, a], at) => boxes.slice(at + 1).forEach(([other, b]) => {{
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 1 && high > 3) mixed.push(name(one) + " on " + name(other));
    }}));
    for (const [text, box] of boxes) if (Math.max(box.height, box.width) < 6) cut.push("tiny " + name(text));
  }}
  for (const region of page.querySelectorAll(".scroll"))
    if (region.tabIndex !== 0 || region.getBoundingClientRect().right > width + 1) cut.push(name(region));
  const pictures = [...page.querySelectorAll("img")];
  return {{
    cut, mixed, sections: [...page.querySelectorAll("section")].map(s => s.id),
    paper: frame.contentWindow.getComputedStyle(page.body).backgroundColor, wide: page.documentElement.scrollWidth,
    pictures: pictures.length, lost: pictures.filter(p => !p.complete || !p.naturalWidth).map(p => p.alt),
    empty: [...page.querySelectorAll("svg")].filter(s => shown(s) && !s.getBoundingClientRect().height).length,
    drawings: page.querySelectorAll(".panel svg").length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name),
  }};
}}
addEventListener("load", () => {{
  const found = {{phone: measure(phone), desktop: measure(desktop)}};
  for (const frame of document.querySelectorAll("iframe")) frame.remove();
  const told = document.createElement("pre");
  told.id = "found";
  told.textContent = JSON.stringify(found);
  document.body.append(told);
}});
</script>"""
NAMES = (
    "answer", "mind", "tested", "pay", "depth", "source-classes", "learning", "confusion", "mistakes", "classes",
    "reliability", "unknown", "data", "cost", "again", "terms",
)  # fmt: skip
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
    "--window-size=1700,3100", "--virtual-time-budget=10000",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs Chromium to open a report in, and none is installed (.ci/run installs it on Debian)")
    return found


def opened(browser: str, page: str, place: Path, *, dark: bool = False) -> tuple[dict[str, Any], str]:
    """What the script around the page measured, and what the browser logged."""
    place = place / ("dark" if dark else "light")
    place.mkdir()
    (place / "around.html").write_text(AROUND.format(page=html.escape(page)), encoding="utf-8")
    (place / "home").mkdir()
    # Chromium's own numbers: 0 is dark, 1 light.
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [
        browser,
        *FLAGS,
        scheme,
        f"--user-data-dir={place / 'home'}",
        "--dump-dom",
        (place / "around.html").as_uri(),
    ]
    environment = os.environ | {"HOME": str(place / "home")}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=True)
    told = re.search(r'<pre id="found">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert told is not None, ran.stderr
    found: dict[str, Any] = json.loads(html.unescape(told[1]))
    return found, ran.stderr


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_every_picture_and_word_and_asks_for_nothing(
    browser: str, folder: Path, results: dict[str, Any], tmp_path: Path, dark: bool
) -> None:
    long = "a-class-whose-name-nobody-would-want-to-read-on-a-phone-" + "x" * 60
    results["dataset"]["classes"][0] = long
    results["curve"][0]["cut"]["name"] = long
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    page = write_report(folder).read_text(encoding="utf-8")
    found, log = opened(browser, page, tmp_path, dark=dark)
    for frame, width in (("phone", 390), ("desktop", 1280)):
        seen = found[frame]
        assert seen["cut"] == []
        assert seen["wide"] <= width
        assert seen["lost"] == []
        assert seen["pictures"] == 21
        assert (seen["drawings"], seen["empty"]) == (9, 0)
        assert seen["mixed"] == []
        assert (seen["paper"] == "rgb(255, 255, 255)") is not dark
        assert [name for name in seen["requests"] if not name.startswith("data:")] == []
    assert "CONSOLE" not in log, log


def test_the_report_of_a_study_opens_without_fault(browser: str, tmp_path: Path) -> None:
    card, images = write_source(tmp_path / "source"), write_images(tmp_path / "images", a_class=20)
    ran = inarch("fit", images, "--source", card, "--out", tmp_path / "run", *ONE)
    assert ran.exit_code == 0, ran.said
    found, log = opened(browser, (tmp_path / "run" / "report.html").read_text(encoding="utf-8"), tmp_path)
    for seen in found.values():
        assert (seen["cut"], seen["mixed"], seen["lost"], seen["empty"]) == ([], [], [], 0)
        assert seen["pictures"] >= 3 * 7
        # Nothing is missing of what every complete run folder has.
        assert {name for name in NAMES if name not in ("mind", "mistakes", "unknown")} <= set(seen["sections"])
        assert seen["drawings"] == 7  # accuracies, differences, two grafts, two learning curves, reliability
        assert all(name.startswith("data:") for name in seen["requests"])
    assert "CONSOLE" not in log, log


def test_the_page_of_a_comparison_opens_without_fault(browser: str, comparison: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text(json.dumps(comparison), encoding="utf-8")
    found, log = opened(browser, write_report(tmp_path).read_text(encoding="utf-8"), tmp_path)
    for frame, width in (("phone", 390), ("desktop", 1280)):
        seen = found[frame]
        assert (seen["cut"], seen["mixed"], seen["empty"], seen["drawings"]) == ([], [], 0, 4)
        assert seen["wide"] <= width
        assert seen["requests"] == []
    assert "CONSOLE" not in log, log


def test_the_measurement_finds_what_is_cut_off_lost_asked_for_or_refused(browser: str, tmp_path: Path) -> None:
    bad = (
        '<!DOCTYPE html><meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data: http:; '
        "style-src 'unsafe-inline'\"><body><p style='width: 900px'>wide</p><p style='overflow: hidden; width: 50px; "
        "white-space: nowrap'>words that are cut off</p><p style='overflow: hidden; height: 9px'>flat</p>"
        "<img alt='gone' src='http://example.com/a.png'><script>alert(1)</script><div class='panel'>"
        "<svg width='99' height='50'><text y='30'>one</text><text y='33'>other</text></svg></div></body>"
    )
    found, log = opened(browser, bad, tmp_path)
    seen = found["phone"]
    assert [text.split(": ")[1] for text in seen["cut"]] == ["wide", "words that are cut off", "flat"]
    assert seen["mixed"] == ["text null: one on text null: other"]
    assert seen["lost"] == ["gone"]
    assert seen["requests"] == ["http://example.com/a.png"]
    assert "CONSOLE" in log
