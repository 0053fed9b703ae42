"""Stored prefix activations are what the prefix gives, wherever they come from; what is stored is made once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from workbench import SETTINGS, workbench

from inarch.features import store as store_module
from inarch.features.passes import CHUNK, Passes
from inarch.features.shelf import SegmentWriter, Shelf
from inarch.features.store import Keeping
from inarch.launch.here import Workbench
from inarch.network.grafts import Configuration
from inarch.training.fit import OutOfTimeError, Watch
from inarch.training.trial import Trial

# Images a class: enough for a training split of two chunks.
MANY = 60
ALL = (1, 2, 3)


def kept_in(folder: Path, cuts: tuple[int, ...] = ALL, **options: Any) -> Keeping:
    return Keeping(cuts, shelf=Shelf(folder), **options)


def everything(bench: Workbench, split: str = "train") -> np.ndarray:
    return np.arange(len(bench.store.images.rows[split]))


def shuffled(bench: Workbench) -> np.ndarray:
    return np.random.default_rng(3).permutation(everything(bench))


def damage(folder: Path, byte: int = 5) -> None:
    for file in folder.glob("*.rows"):
        content = bytearray(file.read_bytes())
        content[min(byte, len(content) - 1)] ^= 0x40
        file.write_bytes(content)


class Counter:
    """Counts how often images go through the first stage, and how many."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.passes = self.images = 0
        run = Passes.run

        def counted(passes: Passes, start: int, stop: int, x: Tensor) -> Tensor:
            if start == 0:
                self.passes += 1
                self.images += len(x)
            return run(passes, start, stop, x)

        patch.setattr(Passes, "run", counted)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


# Where activations come from makes no difference


def cold(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"shelf": Shelf(folder)}


def row_by_row(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"shelf": Shelf(folder), "memory": 0}


def in_memory(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {}


def nowhere(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    patch.setattr(store_module, "available_memory", lambda: 0)
    return {"memory": 0}


def on_a_full_disk(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    add, calls = SegmentWriter.add, iter(range(10_000))

    def full(writer: SegmentWriter, chunk: memoryview) -> None:
        if next(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(writer, chunk)

    patch.setattr(SegmentWriter, "add", full)
    return {"shelf": Shelf(folder)}


def warm(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    outcome(folder.parent / "before", kept_in(folder, CUTS))
    return {"shelf": Shelf(folder)}


def damaged(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    warm(folder, patch)
    damage(folder)
    return {"shelf": Shelf(folder)}


# Cut 2 is not stored: it is computed from cut 1, a batch at a time.
CUTS = (1, 3)


def outcome(folder: Path, keeping: Keeping) -> list[np.ndarray]:
    """Probabilities after trials at every cut."""
    configuration = Configuration("retain", "l2")
    with workbench(folder, keeping=keeping, a_class=MANY) as bench:
        assert len(everything(bench)) > CHUNK
        found = []
        for cut in range(4):
            trial = Trial(configuration, cut, "fine-tuning", 0.01, 0.05, 1, SETTINGS)
            assert bench.run([trial], Watch())[0].accuracy >= 0
            found += [bench.folder.ledger.get(trial.key).arrays["validation"], bench.test(trial)]  # type: ignore[union-attr]
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    folder = tmp_path_factory.mktemp("expected")
    return outcome(folder, kept_in(folder / "store", CUTS))


@pytest.mark.parametrize("place", [cold, warm, damaged, row_by_row, in_memory, nowhere, on_a_full_disk])
def test_what_is_trained_does_not_depend_on_where_activations_come_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected: list[np.ndarray],
    place: Callable[[Path, pytest.MonkeyPatch], dict[str, Any]],
) -> None:
    keeping = Keeping(CUTS, **place(tmp_path / "store", monkeypatch))
    found = outcome(tmp_path / "study", keeping)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_what_is_stored_decides_by_a_rounding_only(tmp_path: Path, expected: list[np.ndarray]) -> None:
    found = outcome(tmp_path, Keeping(()))
    assert max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)) < 0.01


@pytest.mark.parametrize("cut", ALL)
@pytest.mark.parametrize("view", [None, 0, 7])
def test_stored_activations_equal_recomputed_ones(tmp_path: Path, cut: int, view: int | None) -> None:
    with workbench(tmp_path, keeping=kept_in(tmp_path / "store")) as kept:
        assert len(everything(kept)) < CHUNK  # one chunk: the same batch, so the same bits
        stored = kept.store.read(cut, "train", everything(kept), view)
        assert kept.store.holds(cut, "train", view)
    with workbench(tmp_path, limit=0) as forgetful:
        assert forgetful.store.start(cut) == 0
        again = forgetful.store.read(cut, "train", everything(forgetful), view)
        assert not forgetful.store.holds(cut, "train", view)
    assert torch.equal(stored, again)
    assert stored.stride() == again.stride()


def test_training_views_are_rounded_the_evaluation_view_and_pixels_are_not(tmp_path: Path) -> None:
    with workbench(tmp_path, keeping=kept_in(tmp_path / "store")) as bench, torch.no_grad():
        images, positions = bench.store.images, everything(bench)
        pixels = images.views.training(images.rows["train"], 2)
        assert torch.equal(bench.store.read(0, "train", positions, 2), pixels)
        prefix = bench.staged.segment(0, 2).eval()
        fresh = prefix(bench.store.machine.place(pixels))
        assert torch.equal(bench.store.read(2, "train", positions, 2), fresh.bfloat16().float())
        unseen = prefix(bench.store.machine.place(images.views.evaluation(images.rows["train"])))
        assert torch.equal(bench.store.read(2, "train", positions, None), unseen)


def test_a_batch_reads_its_own_images(tmp_path: Path) -> None:
    for memory in (0, 1 << 20):
        with workbench(tmp_path, keeping=kept_in(tmp_path / "store", memory=memory), a_class=MANY) as bench:
            whole = bench.store.read(2, "train", everything(bench), 3)
            positions = shuffled(bench)[:17]
            batch = bench.store.read(2, "train", positions, 3)
            assert torch.equal(batch, whole[torch.from_numpy(positions)])


def test_evaluation_batches_cover_the_split_in_order(tmp_path: Path) -> None:
    with workbench(tmp_path, a_class=MANY) as bench:
        batches = torch.cat(list(bench.store.batches(3, "train")))
        assert torch.equal(batches, bench.store.read(3, "train", everything(bench), None))
        assert torch.equal(batches, torch.cat(list(bench.store.once(3, "train"))))


def test_a_trial_that_trains_deep_stages_does_not_show_in_what_a_pass_stores_of_them(tmp_path: Path) -> None:
    with workbench(tmp_path, keeping=kept_in(tmp_path / "store")) as bench:
        trial = Trial(Configuration("retain", "none"), 1, "fine-tuning", 0.05, 0.05, 0, SETTINGS)
        bench.run([trial], Watch())  # its later views are stored when stages 2 and 3 have moved
        found = bench.store.read(3, "train", everything(bench), 1)
    with workbench(tmp_path) as untouched:
        assert torch.equal(found, untouched.store.read(3, "train", everything(untouched), 1))


# Made once


def test_one_pass_makes_a_view_for_all_stored_cuts(tmp_path: Path, counter: Counter) -> None:
    with workbench(tmp_path, keeping=kept_in(tmp_path / "store"), a_class=MANY) as bench:
        for cut in (2, 1, 3):
            for positions in np.array_split(shuffled(bench), 5):
                bench.store.read(cut, "train", positions, 0)
        assert counter.images == len(everything(bench))
        assert counter.passes == -(-len(everything(bench)) // CHUNK)


@pytest.mark.parametrize("shelved", [True, False])
def test_a_pass_keeps_the_cuts_that_are_wanted_and_another_one_makes_the_rest_alike(
    tmp_path: Path, counter: Counter, shelved: bool
) -> None:
    with workbench(tmp_path / "all", keeping=kept_in(tmp_path / "all")) as bench:
        expected = {cut: bench.store.read(cut, "train", everything(bench), 0) for cut in (1, 2, 3)}
    counter.images = 0
    keeping = kept_in(tmp_path / "some") if shelved else Keeping((1, 2, 3))
    with workbench(tmp_path / "some", keeping=keeping) as bench:
        images, bench.store.wanted_cuts = len(everything(bench)), frozenset({2})
        assert torch.equal(bench.store.read(1, "train", everything(bench), 0), expected[1])
        assert [bench.store.holds(cut, "train", 0) for cut in (1, 2, 3)] == [True, True, False]
        bench.store.read(2, "train", everything(bench), 0)
        assert counter.images == images
        assert torch.equal(bench.store.read(3, "train", everything(bench), 0), expected[3])
        assert counter.images == 2 * images
        # What is tested is asked for at every cut, sooner or later.
        bench.store.read(1, "test", np.arange(2), None)
        assert bench.store.holds(3, "test", None)


def test_a_second_study_computes_nothing_again(tmp_path: Path, counter: Counter) -> None:
    outcome(tmp_path / "one", kept_in(tmp_path / "store"))
    first = counter.images
    outcome(tmp_path / "two", kept_in(tmp_path / "store"))
    assert counter.images == first > 0


def test_only_damaged_chunks_are_made_again(tmp_path: Path, counter: Counter) -> None:
    keeping = kept_in(tmp_path / "store", (2,))
    with workbench(tmp_path, keeping=keeping, a_class=MANY) as bench:
        images = len(everything(bench))
        expected = bench.store.read(2, "train", everything(bench), 0)
    counter.images = 0
    (file,) = (tmp_path / "store").glob("*.rows")
    whole = file.read_bytes()
    for spoilt in (whole[: CHUNK * 24 + 3], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(spoilt)
        with workbench(tmp_path, keeping=keeping, a_class=MANY) as bench:
            assert torch.equal(bench.store.read(2, "train", everything(bench), 0), expected)
        assert file.read_bytes() == whole
        assert counter.images == images - CHUNK
        counter.images = 0


@pytest.mark.parametrize("loss", ["rows", "manifest", "spoilt manifest", "empty manifest"])
def test_a_segment_that_lost_a_file_or_its_manifest_is_made_anew(tmp_path: Path, counter: Counter, loss: str) -> None:
    keeping = kept_in(tmp_path / "store", (2,))
    with workbench(tmp_path, keeping=keeping) as bench:
        expected = bench.store.read(2, "train", everything(bench), 0)
    (rows,), (manifest,) = ((tmp_path / "store").glob(kind) for kind in ("*.rows", "*.json"))
    if loss == "rows":
        rows.unlink()
    elif loss == "manifest":
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text().replace('"images": ', '"images": 1') if "spoilt" in loss else "")
    counter.images = 0
    with workbench(tmp_path, keeping=keeping) as bench:
        assert torch.equal(bench.store.read(2, "train", everything(bench), 0), expected)
        assert counter.images == len(everything(bench))
    assert rows.exists()
    assert manifest.exists()


def test_a_pass_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    with workbench(tmp_path, keeping=kept_in(tmp_path / "store"), a_class=MANY) as bench:
        calls = iter(range(100))

        def tick() -> None:
            if next(calls) == 5:
                raise OutOfTimeError

        bench.store.tick = tick
        with pytest.raises(OutOfTimeError):
            bench.store.read(2, "train", everything(bench), 0)
        assert [file.name for file in (tmp_path / "store").iterdir()] == ["locks"]
        assert not bench.store.holds(2, "train", 0)


# Memory and disk


def test_memory_is_kept_within_its_budget_and_large_segments_are_not_held(tmp_path: Path) -> None:
    with workbench(tmp_path) as bench:
        images = len(everything(bench))
    size = images * 12 * 2
    for memory, held in ((8 * size, 8), (8 * size - 1, 0)):
        with workbench(tmp_path, keeping=kept_in(tmp_path / "store", (2,), memory=memory)) as bench:
            for view in range(20):
                bench.store.read(2, "train", everything(bench), view)
                assert sum(rows.memory for rows in bench.store._opened.values()) <= memory
            assert sum(rows.memory > 0 for rows in bench.store._opened.values()) == held


def test_files_are_closed_when_too_many_are_open_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "OPEN_FILES", 3)
    before = open_files()
    with workbench(tmp_path, keeping=kept_in(tmp_path / "store", (2,), memory=0)) as bench:
        for view in (0, 1, 2, 3, 4, 5, 0, 1):
            bench.store.read(2, "train", everything(bench), view)
            assert len(open_files()) <= 4  # the one in use and three more
    assert open_files() == before


def open_files() -> set[str]:
    found = set()
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor that lists them
            found.add(str(file.readlink()))
    return {name for name in found if ".rows" in name}


def test_what_is_read_again_counts_as_used_again(tmp_path: Path) -> None:
    with workbench(tmp_path, keeping=kept_in(tmp_path / "store", (2,), memory=0)) as bench:
        bench.store.read(2, "train", everything(bench), 0)
        (manifest,) = (tmp_path / "store").glob("*.json")
        os.utime(manifest, (0, 0))
        bench.store.close()
        bench.store.read(2, "train", everything(bench), 0)
        assert manifest.stat().st_mtime > 0


def full(patch: pytest.MonkeyPatch, folder: Path) -> None:
    on_a_full_disk(folder, patch)


def almost_full(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr("inarch.features.shelf.free_space", lambda folder: 1 << 20)


def not_a_folder(patch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.write_text("in the way")


@pytest.mark.parametrize("trouble", [full, almost_full, not_a_folder])
def test_where_nothing_can_be_written_the_study_goes_on_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[pytest.MonkeyPatch, Path], None]
) -> None:
    trouble(monkeypatch, tmp_path / "store")
    said: list[str] = []
    with workbench(tmp_path, keeping=kept_in(tmp_path / "store", announce=said.append), a_class=MANY) as bench:
        found = [bench.store.read(cut, "train", everything(bench), view) for cut in ALL for view in range(3)]
    monkeypatch.undo()
    with workbench(tmp_path, keeping=Keeping(ALL), a_class=MANY) as bench:
        wanted = [bench.store.read(cut, "train", everything(bench), view) for cut in ALL for view in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    (sentence,) = said
    assert str(tmp_path / "store") in sentence
    assert "goes on with the same results" in sentence
    assert "--store" in sentence
    assert not list(tmp_path.rglob("*.part"))


def test_a_disk_that_fails_while_it_is_read_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    keeping = kept_in(tmp_path / "store", (2,), memory=0, announce=said.append)
    with workbench(tmp_path, keeping=keeping, a_class=MANY) as bench:
        positions = shuffled(bench)[:9]
        expected = bench.store.read(2, "train", positions, 0)

        def failing(*arguments: Any) -> int:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr("inarch.features.rows.os.preadv", failing)
        for _ in range(2):
            assert torch.equal(bench.store.read(2, "train", positions, 0), expected)
            assert torch.equal(bench.store.read(2, "train", positions, 1), bench.store.read(2, "train", positions, 1))
    (sentence,) = said
    assert "Input/output error" in sentence


def test_a_disk_that_fails_under_several_open_files_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    keeping = kept_in(tmp_path / "store", (2,), memory=0, announce=said.append)
    with workbench(tmp_path, keeping=keeping, a_class=MANY) as bench:
        positions = shuffled(bench)[:9]
        expected = [bench.store.read(2, "train", positions, view) for view in range(3)]

        def failing(*arguments: Any) -> int:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr("inarch.features.rows.os.preadv", failing)
        found = [bench.store.read(2, "train", positions, view) for view in range(3)]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert len(said) == 1


def test_a_segment_that_cannot_be_opened_now_is_not_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    keeping = kept_in(tmp_path / "store", (2,), announce=said.append)
    with workbench(tmp_path, keeping=keeping) as bench:
        expected = bench.store.read(2, "train", everything(bench), 0)
    (rows,) = (tmp_path / "store").glob("*.rows")
    before = rows.stat().st_ino

    def too_many(self: Shelf, name: str) -> Path:
        raise OSError(errno.EMFILE, "Too many open files")

    with workbench(tmp_path, keeping=keeping) as bench, monkeypatch.context() as patch:
        patch.setattr(Shelf, "rows", too_many)
        assert torch.equal(bench.store.read(2, "train", everything(bench), 0), expected)
    assert rows.stat().st_ino == before
    assert len(said) == 1


def test_a_cut_that_is_not_stored_starts_from_the_deepest_stored_one_below(tmp_path: Path) -> None:
    with workbench(tmp_path, keeping=Keeping((1, 3))) as bench:
        assert [bench.store.start(cut) for cut in range(4)] == [0, 1, 1, 3]
