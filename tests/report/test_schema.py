"""The check of `results.json`: what the report reads is there, and a field that is wrong is named."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest

from inarch.errors import RunFolderError
from inarch.results.schema import validate_results

WRONG: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("format",), "1", "format is '1'"),
    (("dataset", "classes", 1), 7, r"dataset\.classes\.1 is 7"),
    (("dataset", "counts", "test"), -1, r"dataset\.counts\.test is -1"),
    (("dataset", "set_aside", 0, "reason"), None, r"dataset\.set_aside\.0\.reason is None"),
    (("chosen", "cut", "index"), 2.5, r"chosen\.cut\.index is 2\.5"),
    (("chosen", "learning_rate"), math.nan, r"chosen\.learning_rate is nan"),
    (
        ("curve", 3, "validation_accuracy"),
        88.9,
        r"curve\.3\.validation_accuracy is 88\.9, expected a number from 0 to 1",
    ),
    (("curve", 2, "seeds"), [], r"curve\.2\.seeds is \[\], expected at least one seed"),
    (("test", "chosen", "interval95"), [0.9, 0.8], r"test\.chosen\.interval95.*low first"),
    (("test", "traditional", "log_loss"), True, r"test\.traditional\.log_loss is True"),
    (("kept_layer", "interval95"), 0.1, r"kept_layer\.interval95 is 0\.1, expected \[low, high\]"),
    (("kept_layer", "kept"), None, r"kept_layer\.reason is missing"),
    (("paired", 0, "of"), "chance", r"paired\.0\.of is 'chance', expected 'images and seeds' or 'images'"),
    (("settings", "epochs"), math.inf, r"settings\.epochs is inf"),
    (("settings",), None, r"settings is None, expected an object"),
    (("settings", "epochs"), [8], r"settings\.epochs is \[8\], expected a whole number from 1"),
    (("dataset", "made_splits"), "test", r"dataset\.made_splits is 'test', expected a list"),
    (("cost", "environment", "plan", "gain", "frozen"), "1.9", r"plan\.gain\.frozen is '1\.9', expected a number"),
]


def test_complete_results_pass_also_after_a_round_trip_through_json(results: dict[str, Any]) -> None:
    validate_results(results)
    validate_results(json.loads(json.dumps(results)))


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_a_wrong_field_is_named(
    results: dict[str, Any], place: tuple[str | int, ...], value: Any, message: str
) -> None:
    at: Any = results
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    with pytest.raises(RunFolderError, match=message):
        validate_results(results)


def test_a_missing_field_is_named(results: dict[str, Any]) -> None:
    for name in ("format", "sentence", "dataset", "source", "chosen", "curve", "test", "kept_layer", "paired", "cost"):
        lacking = copy.deepcopy(results)
        del lacking[name]
        with pytest.raises(RunFolderError, match=rf"results\.json: {name} is missing"):
            validate_results(lacking)
    del results["test"]["model"]
    with pytest.raises(RunFolderError, match=r"test\.model is missing"):
        validate_results(results)


@pytest.mark.parametrize("value", [None, [], "results", 3])
def test_anything_but_an_object_is_refused(value: Any) -> None:
    with pytest.raises(RunFolderError, match=r"the whole is .*, expected an object"):
        validate_results(value)
