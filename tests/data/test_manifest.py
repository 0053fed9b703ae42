"""CSV and Parquet manifests name the same data sets; mistakes in them are named."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from inarch.data import open_dataset
from inarch.data.manifest import list_manifest
from inarch.errors import DataError, MissingExtraError

from .conftest import Folder


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    file = folder / "data.csv"
    file.write_bytes(text.encode(encoding))
    return file


def test_csv_and_parquet_and_folders_give_the_same_data_set(folder: Folder) -> None:
    names = ["train", "validation", "test"]
    root = folder({f"{split}/{label}/{n}.png": hash((s, c, n)) % 2**31 for s, split in enumerate(names)
                   for c, label in enumerate("ab") for n in range(3)})  # fmt: skip
    rows = [(p.relative_to(root).as_posix(), p.parts[-2], p.parts[-3]) for p in sorted(root.rglob("*.png"))]
    comma = written(root, "path,label,split\n" + "".join(f"{','.join(row)}\n" for row in reversed(rows)))
    table = dict(zip(("path", "label", "split"), zip(*rows, strict=True), strict=True))
    pyarrow.parquet.write_table(pyarrow.table({**table, "extra": [[1]] * len(rows)}), root / "data.parquet")
    by_folder, by_csv, by_parquet = (open_dataset(place) for place in (root, comma, root / "data.parquet"))
    assert by_folder.digest == by_csv.digest == by_parquet.digest
    assert by_folder.train == by_csv.train == by_parquet.train
    assert by_csv.made == ()


def test_a_manifest_without_splits_or_with_an_empty_column_leaves_them_to_be_made(tmp_path: Path) -> None:
    for text in ("path,label\na.png,x\nb.png,y\n", "path,label,split\na.png,x,\nb.png,y,\n"):
        listing = list_manifest(written(tmp_path, text))
        assert listing.splits == ()
        assert [candidate.split for candidate in listing.candidates] == [None, None]


def test_paths_are_relative_to_the_manifest_and_never_shown_absolute(tmp_path: Path) -> None:
    file = written(tmp_path, f'path,label\nsub/a.png,x\n{tmp_path}/b.png,y\n"odd, name.png",y\n../c.png,z\n')
    listing = list_manifest(file)
    assert [candidate.path for candidate in listing.candidates] == ["sub/a.png", "b.png", "odd, name.png", "../c.png"]
    assert [candidate.file for candidate in listing.candidates][:2] == [tmp_path / "sub/a.png", tmp_path / "b.png"]


def test_byte_order_mark_case_and_spaces_of_the_header_do_not_matter(tmp_path: Path) -> None:
    listing = list_manifest(written(tmp_path, "\ufeffLabel, Path ,SPLIT\n x ,a.png,Training\ny,b.png,val\n"))
    assert [(c.path, c.label, c.split) for c in listing.candidates] == [
        ("a.png", "x", "train"),
        ("b.png", "y", "validation"),
    ]


def test_numbers_and_nothing_in_parquet_become_text(tmp_path: Path) -> None:
    file = tmp_path / "data.pq"
    pyarrow.parquet.write_table(pyarrow.table({"path": ["a.png", "b.png", None], "label": [0, None, 1]}), file)
    listing = list_manifest(file)
    assert [(c.path, c.label) for c in listing.candidates] == [("a.png", "0")]
    assert [(item.path, item.reason) for item in listing.set_aside] == [("b.png", "no label"), ("row 3", "no path")]


def test_rows_that_say_nothing_new_are_set_aside(tmp_path: Path) -> None:
    listing = list_manifest(written(tmp_path, "path,label\na.png,x\na.png,x\na.png,y\nb.png\n\n,y\n"))
    assert [(c.path, c.label) for c in listing.candidates] == [("a.png", "x"), ("a.png", "y")]
    assert [(item.path, item.reason) for item in listing.set_aside] == [
        ("a.png", "row 2 says the same as an earlier one"),
        ("b.png", "no label"),
        ("row 5", "no path"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\na.png,x\n", "columns 'file', 'class'; 'path' and 'label' is missing"),
        ("path;label\na.png;x\n", "columns 'path;label'"),
        ("", "columns none"),
        ("path,label\n", "names no images"),
        ("path,label,split\na.png,x,dev\n", "Row 1 .* names the split 'dev'"),
        ("path,label,split\na.png,x,train\nb.png,x,\n", "Row 2 .* has no split, though others have"),
        ("path,path,label\na,b,c\n", "column 'path' twice"),
    ],
)
def test_manifests_that_cannot_be_meant_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        list_manifest(written(tmp_path, text))


def test_manifests_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read.*UTF-8"):
        list_manifest(written(tmp_path, "path,label\ncaf\u00e9.png,x\n", "latin-1"))
    (tmp_path / "data.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"data.parquet cannot be read"):
        list_manifest(tmp_path / "data.parquet")


def test_parquet_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"inarch\[parquet\]"):
        list_manifest(tmp_path / "data.parquet")


def test_files_that_are_not_there_are_set_aside(folder: Folder) -> None:
    root = folder({f"{n}.png": n for n in range(12)})
    rows = "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(12))
    dataset = open_dataset(written(root, f"path,label\n{rows}gone.png,a\n"))
    assert [(item.path, item.reason) for item in dataset.set_aside] == [("gone.png", "no such file or directory")]
