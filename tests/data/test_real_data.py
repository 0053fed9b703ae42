"""The real data sets are read as their description says; subsets are linked together to keep this quick."""

from __future__ import annotations

from pathlib import Path

from toy import linked

from inarch.data import PixelSize, open_dataset


def test_grocery_has_81_classes_and_a_validation_split_that_lacks_21(shared: Path, tmp_path: Path) -> None:
    dataset = open_dataset(linked(shared / "data" / "grocery", tmp_path / "grocery", 2))
    assert len(dataset.classes) == 81
    assert dataset.made == ()
    assert not dataset.set_aside
    assert len(dataset.missing("validation")) == 21
    assert "The validation split lacks 21 of 81 classes" in dataset.warnings[0]


def test_landuse_gets_a_validation_split_of_15_per_cent_of_each_class(shared: Path, tmp_path: Path) -> None:
    root = linked(shared / "data" / "landuse", tmp_path / "landuse", 20)
    dataset = open_dataset(root, keep=PixelSize(64, 64))
    assert dataset.made == ("validation",)
    assert dataset.counts("validation").tolist() == [3] * 21
    assert dataset.counts("train").tolist() == [17] * 21
    assert dataset.counts("test").tolist() == [20] * 21
    assert dataset.pixels is not None
    # A few of these photographs are a pixel or two from square.
    assert {min(dataset.pixels[row].shape[:2]) for row in dataset.rows("train")} == {64}
    again = open_dataset(root)
    assert (again.digest, again.validation) == (dataset.digest, dataset.validation)
