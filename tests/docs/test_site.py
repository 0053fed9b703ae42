"""The site: built without a warning and without a network, asks for nothing from outside, and lacks no public name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import typer
from fenced import ROOT

import inarch
from inarch import errors
from inarch.catalogue import GRAFTS, METHODS
from inarch.cli import app

# Read by the interpreter when it starts: whoever wants to connect fails.
NO_NETWORK = """
import socket

def refuse(*arguments, **options):
    raise OSError("the site is built without a network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; every warning is an error."""
    pytest.importorskip("sphinx", reason="the documentation's extra is not installed: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    command = [
        sys.executable, "-m", "sphinx", "--builder", "html", "--fail-on-warning", "--quiet",
        "-d", str(folder / "doctrees"), str(ROOT / "docs"), str(folder / "html"),
    ]  # fmt: skip
    ran = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False, timeout=240
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder / "html"


def names_of(site: Path) -> str:
    """The inventory of the site: a line for each name that can be linked to."""
    content = (site / "objects.inv").read_bytes()
    return zlib.decompress(content.split(b"\n", 4)[4]).decode()


def test_pages_load_nothing_from_outside(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 12
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source|object|embed)\b[^>]*?(?:src|data)=\"([^\"]+)", text)
        loaded += re.findall(r"<link\b[^>]*?rel=\"(?:stylesheet|preload|icon)\"[^>]*?href=\"([^\"]+)", text)
        outside = [place for place in loaded if re.match(r"(?:https?:)?//", place)]
        assert not outside, f"{page.name}: {outside}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_every_public_name_and_every_error_is_in_the_reference(site: Path) -> None:
    listed = names_of(site)
    for name in set(inarch.__all__) - {"__version__"}:
        assert f"inarch.{name} py:function" in listed
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.InarchError):
            assert f"inarch.errors.{name} py:exception" in listed


def test_every_option_of_every_command_is_in_the_reference(site: Path) -> None:
    page = (site / "commands.html").read_text(encoding="utf-8")
    commands = typer.main.get_command(app).commands
    for name, command in commands.items():
        for inner, part in getattr(command, "commands", {name: command}).items():
            whole = f"inarch {name}" if inner == name else f"inarch {name} {inner}"
            identifier = whole.replace(" ", "-")
            section = re.search(rf'<section id="{identifier}">.*?</section>', page, re.DOTALL)
            assert section is not None, whole
            for parameter in part.params:
                assert parameter.opts[0] in section[0], f"{whole}: {parameter.opts[0]}"


def test_every_method_and_every_graft_is_in_its_table(site: Path) -> None:
    page = (site / "methods.html").read_text(encoding="utf-8")
    for entry in (*METHODS, *GRAFTS):
        assert f">{entry.name}<" in page


def test_a_link_to_a_page_that_is_not_there_fails_the_build(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the documentation's extra is not installed: pip install '.[docs]'")
    (tmp_path / "index.md").write_text("# Site\n\n[gone](gone.md)\n")
    (tmp_path / "conf.py").write_text('extensions = ["myst_parser"]\n')
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", str(tmp_path), str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode != 0
    assert "gone.md" in ran.stderr
