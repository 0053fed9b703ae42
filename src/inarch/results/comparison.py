"""What `comparison.json` holds, as a check that names the field that is wrong; further fields are allowed."""

from __future__ import annotations

from typing import Any, Final

from inarch.results.checks import list_of, map_of, number, object_with, optional, text, validate
from inarch.results.schema import COST, COUNTS, DATASET, DIFFERENCE, PLACE, TESTED

COMPARISON: Final = "comparison.json"


def validate_comparison(comparison: Any) -> None:
    """Raise `RunFolderError` naming the first field that is missing or wrong; fractions are in 0 ... 1."""
    validate(_COMPARISON, comparison, COMPARISON)


_SIZE: Final = object_with(
    {
        "shots": optional(number(1, whole=True)),
        "counts": COUNTS,
        "contestants": list_of(
            object_with(
                {
                    **PLACE,
                    **TESTED,
                    "name": text(),
                    "method": text(),
                    "learning_rate": number(0.0),
                    "new_layer_learning_rate": number(0.0),
                    "strength": number(0.0),
                    "validation_accuracy": number(0.0, 1.0),
                },
                also={"tuning_trials": number(1, whole=True)},
            )
        ),
        "paired": list_of(object_with({"name": text(), "p_holm": number(0.0, 1.0), **DIFFERENCE})),
    },
    also={"failed": list_of(text())},
)
_COMPARISON: Final = object_with(
    {
        "format": number(1, whole=True),
        "sentence": text(),
        "dataset": DATASET,
        "source": object_with({"name": text()}),
        "settings": object_with({"trials": number(1, whole=True), "seeds": number(1, whole=True)}),
        "sizes": list_of(_SIZE),
        "ranks": list_of(object_with({"name": text(), "rank": number(1.0)})),
        "left_out": list_of(text()),
        "cost": COST,
    },
    also={"warnings": list_of(text()), "profile": map_of(number(0.0))},
)
