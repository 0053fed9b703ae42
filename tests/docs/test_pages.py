"""Every command and every piece of Python in README and docs runs, in the order of the page, on toy images."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from fenced import PAGES, ROOT, Block, blocks_of, commands_of
from PIL import Image
from program import ONE, inarch
from toy import NETWORK, SOURCE_CLASSES, write_images, write_source

from inarch.network.card import read_card

# Networks of hubs, for which the toy network stands: a test cannot reach a hub, and need not.
OF_HUBS = ("timm:mobilenetv2_100.ra_in1k", "timm:resnet18.a1_in1k")
# Files under which the pages know a network of the user's.
CARDS = ("mobilenetv1_025_128.in1k.json", "a.json", "b.json", "card.json")
IMAGES = ("images", "landuse", "more-images")
# Where a page says under which name its JSON is saved.
SAVED = {"own-network.md": "tiny.json"}
# What is shown and not run: trees, diagrams, bibliographies, and directives of the site.
SHOWN = re.compile(r"text|bibtex|\{[a-z-]+\}")
LOOKS_LIKE_A_COMMAND = re.compile(r"\s*(\$ |(\S*/bin/)?(inarch|python3?|pip|make|git) )")


def has_target(words: list[str]) -> bool:
    """Whether the Makefile has all the targets that `make` is asked for."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return all(re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE) for word in words[1:])


def has_extras(words: list[str]) -> bool:
    """Whether this project has all the extras that `pip install` is asked for."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    wanted = re.fullmatch(r"\.(?:\[([\w,]+)\])?", words[-1])
    return wanted is not None and set(filter(None, (wanted[1] or "").split(","))) <= extras.keys()


def has_script(words: list[str]) -> bool:
    """Whether the script is there, and knows the options."""
    script = next(word for word in words if word.endswith(".py"))
    folder = (ROOT / script).parent
    known = "".join(file.read_text(encoding="utf-8") for file in folder.glob("*.py")) if folder != ROOT else ""
    return (ROOT / script).is_file() and all(f'"{word}"' in known for word in words if word.startswith("--"))


NOT_RUN: tuple[tuple[str, str, Callable[[list[str]], bool]], ...] = (
    (r"make [a-z ]+", "it installs gigabytes, or runs these tests", has_target),
    (r"(\S+/python -m )?pip install \S+", "it changes the environment of the tests", has_extras),
    (r"([A-Z_]+=\S+ )?\S*python (benchmarks|pretraining)/\w+\.py.*", "it takes minutes to hours", has_script),
)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages name: images, networks, and a finished run. Tests copy it."""
    folder = tmp_path_factory.mktemp("ground")
    for name in IMAGES:
        write_images(folder / name, a_class=50)
    write_images(folder / "new", a_class=2)
    (folder / "new" / "broken.jpg").write_bytes(b"broken")
    shutil.copy(folder / "new" / "red" / "0.png", folder / "photo.png")
    Image.open(folder / "photo.png").save(folder / "photo.jpg")
    card = write_source(folder)
    for name in CARDS:
        shutil.copy(card, folder / name)
    (folder / "names.txt").write_text("\n".join(f"name {number}" for number in range(SOURCE_CLASSES)))
    ran = inarch("fit", folder / "images", "--source", card, "--out", folder / "finished", *ONE)
    assert ran.exit_code == 0, ran.said
    return folder


@pytest.fixture
def place(ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the ground as the working directory, where every training is short."""
    monkeypatch.chdir(shutil.copytree(ground, tmp_path / "place"))
    monkeypatch.setattr("inarch.options.default_epochs", lambda images, batch_size: 1)
    return Path()


def not_run(command: str) -> Callable[[list[str]], bool] | None:
    """What is checked of a command instead of running it; None where it is run."""
    return next((check for pattern, _, check in NOT_RUN if re.fullmatch(pattern, command)), None)


def run_command(command: str) -> None:
    """Runs a command of a page, or checks what it names; the pages know `inarch` and `cp`."""
    command = command.partition(" #")[0].strip()
    check = not_run(command)
    if check is not None:
        assert check(shlex.split(command)), f"{command}: what it names is not there"
        return
    for name in OF_HUBS:
        command = command.replace(name, "toy.json")
    program, *words = shlex.split(command)
    if program == "cp":
        subprocess.run([program, *words], check=True)
        return
    assert program == "inarch", f"a page asks for {program}, which this test does not know"
    ran = inarch(*words)
    assert ran.exit_code == 0, f"{command}: {ran.said}"


def run_python(block: Block, page: Path, names: dict[str, object]) -> None:
    text = block.text
    for name in OF_HUBS:
        text = text.replace(name, "toy.json")
    threads = torch.get_num_threads()
    # Lines are counted as in the page, so that a traceback points there.
    exec(compile("\n" * block.line + text, str(page), "exec"), names)
    torch.set_num_threads(threads)


def run_block(block: Block, page: Path, names: dict[str, object]) -> None:
    """Runs what a block holds, or says that nobody knows what it is."""
    where = f"{page.name}, line {block.line}"
    if block.kind == "console":
        assert block.text.startswith("$ "), f"{where}: a console block begins with a command"
        for command in commands_of(block):
            run_command(command)
    elif block.kind == "python":
        run_python(block, page, names)
    elif block.kind == "json":
        card = Path(SAVED.get(page.name, "shown.json"))
        card.write_text(json.dumps(json.loads(block.text)))
        read_card(card)
    else:
        assert SHOWN.fullmatch(block.kind), f"{where}: a block of the kind '{block.kind}', which no test knows"
        assert not any(map(LOOKS_LIKE_A_COMMAND.match, block.text.splitlines())), f"{where}: a command that is not run"


# The longest page takes half a minute where nothing else runs.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_and_every_python_block_of_the_page_runs(page: Path, place: Path) -> None:
    if page.name == "predicting.md":
        (place / "finished").rename("run")
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks_of(page.read_text(encoding="utf-8")):
        run_block(block, page, names)


def test_networks_that_the_pages_name_have_weights_in_their_hub() -> None:
    for name in OF_HUBS:
        configuration = timm.get_pretrained_cfg(name.removeprefix("timm:"))
        assert configuration is not None
        assert configuration.hf_hub_id


def test_the_network_of_the_page_about_own_networks_is_the_one_that_the_tests_know() -> None:
    """The page's network is the toy network without dropout, whose stages other tests know."""
    page = (ROOT / "docs" / "own-network.md").read_text(encoding="utf-8")
    first = next(block for block in blocks_of(page) if block.kind == "python")
    layers = re.findall(r"nn\.\w+\([^()]*\)", NETWORK.replace("nn.Dropout(0.1),", ""))
    assert re.findall(r"nn\.\w+\([^()]*\)", first.text) == layers


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```\nwords\n```", "of the kind ''"),
        ("```sh\ninarch methods\n```", "of the kind 'sh'"),
        ("```text\ninarch methods\n```", "not run"),
        ("```console\nwords\n```", "begins with a command"),
        ("```console\n$ inarch magic\n```", "magic"),
        ("```console\n$ rm -r images\n```", "asks for rm"),
        ("```console\n$ make nonsense\n```", "not there"),
        ("```console\n$ pip install '.[nonsense]'\n```", "not there"),
        ("```console\n$ python benchmarks/study.py --nonsense\n```", "not there"),
    ],
)
def test_a_block_that_cannot_be_run_or_shown_fails(text: str, problem: str, place: Path) -> None:
    (block,) = blocks_of(text)
    with pytest.raises(AssertionError, match=problem):
        run_block(block, Path("page.md"), {})


def test_a_python_block_that_fails_says_the_line_of_its_page(place: Path) -> None:
    (block,) = blocks_of("words\n\n```python\nwords = 1\nwords / 0\n```")
    with pytest.raises(ZeroDivisionError) as raised:
        run_block(block, Path("page.md"), {})
    assert raised.traceback[-1].lineno + 1 == 5


def test_a_block_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 2 does not end"):
        list(blocks_of("words\n```python\nx = 1\n"))


def test_a_block_in_a_list_loses_the_indentation_of_the_list() -> None:
    (block,) = blocks_of("- words\n\n  ```python\n  if True:\n      x = 1\n  ```\n")
    assert block.text == "if True:\n    x = 1"


def test_commands_go_on_behind_a_backslash_and_output_is_none() -> None:
    (block,) = blocks_of("```console\n$ inarch fit a \\\n    --out b\nfound: 1\n$ inarch report b\n```")
    assert commands_of(block) == ["inarch fit a --out b", "inarch report b"]
