"""The store as studies on the command line use it: killed, shared, limited, listed and cleared."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program import SHORT, Ran, inarch, rows, start, without_cost
from toy import write_images, write_source

from inarch.features.passes import Passes
from inarch.features.shelf import Manifest, Shelf
from inarch.results.ledger import Ledger
from inarch.training.order import VIEWS_A_SEED
from inarch.training.trial import Trial

Command = Callable[..., list[str | Path]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_source(folder / "source")
    write_images(folder / "images", a_class=20)
    return folder


@pytest.fixture(scope="module")
def command(place: Path) -> Command:
    def made(out: Path, store: Path, *options: str) -> list[str | Path]:
        source = place / "source" / "toy.json"
        return ["fit", place / "images", "--source", source, "--out", out, "--store", store, *SHORT, *options]

    return made


@pytest.fixture(scope="module")
def undisturbed(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study (`run`) and its store (`store`); tests only read them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done(inarch(*command(folder / "run", folder / "store")))
    return folder


def done(ran: Ran) -> Ran:
    assert ran.exit_code == 0, ran.said
    return ran


def results_of(folder: Path) -> dict[str, Any]:
    return without_cost(json.loads((folder / "results.json").read_text()))


def contents(store: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in store.glob("*.rows")}


def sound(store: Path) -> list[Manifest]:
    """Manifests of all segments, whose rows are there and whole."""
    shelf, found = Shelf(store), []
    for name in shelf.names():
        manifest = shelf.manifest(name)
        assert manifest is not None
        assert shelf.rows(name).stat().st_size == manifest.size
        found.append(manifest)
    return found


# Killed and shared


@pytest.mark.parametrize(
    "moment",
    [
        ("inarch.features.shelf:SegmentWriter.add", 5),
        ("inarch.features.shelf:SegmentWriter.finish", 2),
        ("inarch.features.shelf:Shelf.write_manifest", 4),
    ],
)
def test_killed_while_it_stores_a_study_leaves_whole_segments_only_and_goes_on_to_the_same_results(
    undisturbed: Path, command: Command, tmp_path: Path, moment: tuple[str, int]
) -> None:
    out, store = tmp_path / "run", tmp_path / "store"
    child = start(*command(out, store), die_at=moment)
    child.join(120)
    assert child.exitcode == -signal.SIGKILL, f"{moment} was not met"
    child.close()
    assert list(store.glob(".*.part")) or list(store.glob("*.rows"))
    left = {manifest.about["split"] for manifest in sound(store)}
    assert len(left) <= 2
    done(inarch(*command(out, store)))
    assert results_of(out) == results_of(undisturbed / "run")
    assert contents(store) == contents(undisturbed / "store")
    assert not list(store.glob(".*.part"))


def test_killed_while_it_mends_a_study_mends_the_rest_the_next_time(
    undisturbed: Path, command: Command, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(undisturbed / "store", store)
    for file in store.glob("*.rows"):
        file.write_bytes(bytes(file.stat().st_size))
    child = start(*command(tmp_path / "killed", store), die_at=("inarch.features.shelf:_write_all", 2))
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    child.close()
    assert sum(map(any, contents(store).values())) == 1
    out = tmp_path / "run"
    done(inarch(*command(out, store)))
    assert results_of(out) == results_of(undisturbed / "run")
    # What no trial reads is not looked at: it is as damaged as it was.
    mended = {name: content for name, content in contents(store).items() if any(content)}
    assert len(mended) > len(contents(store)) / 2
    assert mended.items() <= contents(undisturbed / "store").items()


def test_two_studies_at_once_share_a_store(undisturbed: Path, command: Command, tmp_path: Path) -> None:
    store = tmp_path / "store"
    children = [start(*command(tmp_path / name, store)) for name in ("one", "other")]
    for child in children:
        child.join(120)
        assert child.exitcode == 0
        child.close()
    for name in ("one", "other"):
        assert results_of(tmp_path / name) == results_of(undisturbed / "run")
    assert contents(store) == contents(undisturbed / "store")
    assert not list(store.glob(".*.part"))


def test_on_a_warm_store_images_go_through_the_first_stage_once_for_the_source_classes_or_where_all_layers_train(
    undisturbed: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(undisturbed / "store", tmp_path / "store")
    passes: list[int] = []
    run = Passes.run

    def counted(self: Passes, start: int, stop: int, x: Any) -> Any:
        passes.extend([len(x)] if start == 0 and stop > 0 else [])
        return run(self, start, stop, x)

    monkeypatch.setattr(Passes, "run", counted)
    done(inarch(*command(tmp_path / "run", tmp_path / "store")))
    assert sum(passes) == results_of(undisturbed / "run")["dataset"]["counts"]["train"]
    assert results_of(tmp_path / "run") == results_of(undisturbed / "run")


# The limit


def test_a_study_stays_within_its_limit_and_says_what_it_was(command: Command, tmp_path: Path) -> None:
    sizes = {}
    for limit in ("0", "45kB", "200MB"):
        out, store = tmp_path / limit / "run", tmp_path / limit / "store"
        done(inarch(*command(out, store, "--store-limit", limit)))
        environment = json.loads((out / "results.json").read_text())["cost"]["environment"]
        assert environment["store_limit"] == {"0": 0, "45kB": 45_000, "200MB": 200_000_000}[limit]
        sizes[limit] = sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) if store.exists() else 0
        assert sizes[limit] <= environment["store_limit"]
    assert 0 == sizes["0"] < sizes["45kB"] < sizes["200MB"]


def test_what_the_source_network_sees_once_takes_no_room(place: Path, tmp_path: Path) -> None:
    limit = 450_000
    write_images(tmp_path / "images", a_class=60)
    source, out, store = place / "source" / "toy.json", tmp_path / "run", tmp_path / "store"
    command = ("fit", tmp_path / "images", "--source", source, "--out", out, "--store", store, *SHORT, "--seeds", "1")
    done(inarch(*command, "--store-limit", f"{limit}B"))
    assert {m.about["split"] for m in sound(store) if m.about["view"] is None} == {"validation", "test"}
    assert limit / 2 < sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) <= limit


def test_a_run_keeps_the_limit_that_it_was_begun_with(command: Command, tmp_path: Path) -> None:
    out, store = tmp_path / "run", tmp_path / "store"
    done(inarch(*command(out, store, "--store-limit", "45kB")))
    before = rows(out)
    ran = inarch(*command(out, store, "--store-limit", "200MB"))
    assert ran.exit_code == 2
    assert "--store-limit 200.0 MB: this run was begun with 45.0 kB" in ran.said
    done(inarch(*command(out, tmp_path / "elsewhere")))
    assert rows(out) == before


@pytest.mark.parametrize("changed", [("--views", "2"), ("--views", "epochs"), ("--stored-precision", "fp32")])
def test_views_and_stored_precision_belong_to_the_run(
    undisturbed: Path, command: Command, tmp_path: Path, changed: tuple[str, str]
) -> None:
    ran = inarch(*command(undisturbed / "run", tmp_path / "store", *changed))
    assert ran.exit_code == 1
    assert f"{changed[0].strip('-').replace('-', '_')} was" in ran.said
    assert "--out" in ran.said


def test_with_a_number_of_views_no_other_is_stored_and_every_seed_has_its_own(command: Command, tmp_path: Path) -> None:
    done(inarch(*command(tmp_path / "run", tmp_path / "store", "--epochs", "5", "--views", "2")))
    views = {m.about["view"] for m in sound(tmp_path / "store") if m.about["split"] == "train"}
    assert views == {seed * 100_000 + view for seed in range(3) for view in range(2)}
    done(inarch(*command(tmp_path / "fresh", tmp_path / "store-2", "--epochs", "3", "--views", "epochs")))
    views = {m.about["view"] for m in sound(tmp_path / "store-2") if m.about["split"] == "train"}
    assert views == {seed * 100_000 + view for seed in range(3) for view in range(3)}


def test_views_of_confirmation_seeds_are_made_once_at_the_cuts_that_may_be_confirmed(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, store = tmp_path / "run", tmp_path / "store"
    pushed: Counter[int] = Counter()
    push = Passes.push

    def counted(passes: Passes, cuts: Any, split: str, view: int | None, positions: Any) -> Any:
        if split == "train" and view is not None:
            pushed[view] += 1
        return push(passes, cuts, split, view, positions)

    monkeypatch.setattr(Passes, "push", counted)
    done(inarch(*command(out, store, "--seeds", "3", "--grafts", "replace")))
    kept: dict[bool, set[str]] = {False: set(), True: set()}
    for manifest in sound(store):
        if manifest.about["view"] is not None:
            kept[manifest.about["view"] >= VIEWS_A_SEED].add(manifest.about["stage"])
    with Ledger(out / "ledger.sqlite") as ledger:
        trials = [Trial.from_json(record.subject) for record in ledger.records("trial")]
    confirmed = {t.cut for t in trials if t.seed and t.cut}
    assert len({t.seed for t in trials}) == 4
    assert kept[True] < kept[False]
    assert len(kept[True]) >= len(confirmed) > 0
    assert set(pushed.values()) == {1}


# Where nothing can be stored


def test_where_the_store_cannot_be_written_the_study_says_so_once_and_finds_the_same(
    undisturbed: Path, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "store").write_text("in the way")
    environment = json.loads((undisturbed / "run" / "results.json").read_text())["cost"]["environment"]
    options = ("--store-limit", f"{environment['store_limit']}B")
    ran = done(inarch(*command(tmp_path / "run", tmp_path / "store", *options)))
    assert ran.said.count("Activations cannot be stored in") == 1
    assert results_of(tmp_path / "run") == results_of(undisturbed / "run")


# List and clear


def test_list_shows_a_row_for_all_views_of_a_split_at_a_cut_and_clear_removes_them(
    undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed / "store", tmp_path / "store")
    segments = len(sound(tmp_path / "store"))
    size = sum(len(content) for content in contents(tmp_path / "store").values())
    listed = done(inarch("store", "list", "--store", tmp_path / "store"))
    header, *lines, total = listed.out.splitlines()
    assert header.split("  ")[0].strip() == "size"
    for word in ("source", "cut behind", "split", "images", "views", "last used"):
        assert word in header
    views = Counter((m.about["stage"], m.about["split"], str(m.images)) for m in sound(tmp_path / "store"))
    shown = [line.split() for line in lines]
    assert {(stage, split, images): int(n) for _, _, _, stage, split, images, n, *_ in shown} == views
    assert {words[2] for words in shown} == {"toy"}
    assert views["conv2", "train", "39"] > 1
    of_unit = {"B": 0.001, "kB": 1.0}
    assert sum(float(words[0]) * of_unit[words[1]] for words in shown) == pytest.approx(
        size / 1000, abs=0.1 * len(shown)
    )
    assert total == f"{segments} segments, {size / 1000:.1f} kB, in {tmp_path / 'store'}"
    cleared = done(inarch("store", "clear", "--store", tmp_path / "store"))
    assert cleared.out.startswith(f"{segments} segments removed, {size / 1000:.1f} kB, from")
    assert done(inarch("store", "list", "--store", tmp_path / "store")).out.startswith("0 segments, 0 B, in ")
    assert contents(tmp_path / "store") == {}


def test_without_a_folder_the_store_is_that_of_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INARCH_CACHE", str(tmp_path / "cache"))
    assert done(inarch("store", "list")).out == f"0 segments, 0 B, in {tmp_path / 'cache' / 'store'}\n"


@pytest.mark.parametrize("word", ["list", "clear"])
def test_looking_at_the_store_loads_no_pytorch(undisturbed: Path, tmp_path: Path, word: str) -> None:
    shutil.copytree(undisturbed / "store", tmp_path / "store")
    program = (
        "import sys; from inarch.cli import app; app(sys.argv[1:], standalone_mode=False);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib', 'timm')))"
    )
    arguments = [sys.executable, "-c", program, "store", word, "--store", str(tmp_path / "store")]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "segments" in ran.stdout


def test_a_store_that_cannot_be_cleared_is_said(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(undisturbed / "store", tmp_path / "store")

    def denied(self: Shelf, name: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Shelf, "forget", denied)
    ran = inarch("store", "clear", "--store", tmp_path / "store")
    assert ran.exit_code == 1
    assert f"{tmp_path / 'store'} cannot be cleared: Permission denied" in ran.said
