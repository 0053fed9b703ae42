"""What `evidence.json` holds beside `results.json`: where the delivered model errs, learning curves, examples.

    format         1
    model          of the delivered model, on the test images:
      confusions     [true class, predicted class, images], every pair that occurs; classes by index
      reliability    bins of the calibration error: low, high, images, confidence, accuracy
      mistakes       the most confident ones: path, thumbnail, true, predicted, probability, probability_of_true
    learning       for each role its place, and for each seed the epochs (none where it was validated once, as all
                   confirmations but the first are): training_loss, validation_accuracy, and the members, where the
                   method made several trainings: seed, validation_accuracy, taken (averaged or not)
    source_classes for each class the source classes whose logits it raises most: name, raised (standard deviations)
    examples       for each class the counts per split, and thumbnails of training images

Equal studies leave equal evidence. Thumbnails are names of files in `thumbnails/`.
"""

from __future__ import annotations

from typing import Any, Final

from inarch.results.checks import WrongFieldError, list_of, number, object_with, pattern, text, validate, wrong

FORMAT: Final = 1
EVIDENCE: Final = "evidence.json"
THUMBNAILS: Final = "thumbnails"

_COUNT: Final = number(0, whole=True)
_FRACTION: Final = number(0.0, 1.0)
# A name and never a path: the page holds whatever file it names.
_THUMBNAIL: Final = pattern(r"[0-9a-f]{8,64}\.webp", "the name of a thumbnail")


def _triple(value: Any, place: str) -> None:
    list_of(_COUNT)(value, place)
    if len(value) != 3:
        raise wrong(place, value, "[true class, predicted class, images]")


def _yes_or_no(value: Any, place: str) -> None:
    if not isinstance(value, bool):
        raise wrong(place, value, "true or false")


_CHECK: Final = object_with(
    {
        "format": number(1, whole=True),
        "model": object_with(
            {
                "confusions": list_of(_triple),
                "reliability": list_of(
                    object_with({"low": _FRACTION, "high": _FRACTION, "images": _COUNT, "confidence": number(0.0),
                                 "accuracy": _FRACTION})
                ),
                "mistakes": list_of(
                    object_with({"path": text(), "thumbnail": _THUMBNAIL, "true": _COUNT, "predicted": _COUNT,
                                 "probability": number(0.0), "probability_of_true": number(0.0)})
                ),
            }
        ),
        "learning": list_of(
            object_with(
                {
                    "role": text(),
                    "graft": text(),
                    "harmonise": text(),
                    "hidden": list_of(number(1, whole=True)),
                    "cut": object_with({"index": _COUNT, "name": text()}),
                    "seeds": list_of(
                        object_with(
                            {
                                "seed": _COUNT,
                                "epochs": list_of(
                                    object_with({"training_loss": number(), "validation_accuracy": _FRACTION})
                                ),
                            },
                            also={"members": list_of(object_with({"seed": _COUNT, "taken": _yes_or_no}))},
                        )
                    ),
                }
            )
        ),
        "source_classes": list_of(list_of(object_with({"name": text(), "raised": number()}))),
        "examples": list_of(
            object_with(
                {
                    "counts": object_with(dict.fromkeys(("train", "validation", "test"), _COUNT)),
                    "thumbnails": list_of(_THUMBNAIL),
                }
            )
        ),
    }
)  # fmt: skip


def validate_evidence(evidence: Any, classes: int) -> None:
    """Raise `RunFolderError` naming the first field that is missing or wrong, for a data set of so many classes."""
    validate(_CHECK, evidence, EVIDENCE)

    def fits(value: Any, _: str) -> None:
        index = number(0, classes - 1, whole=True)
        for at, (true, predicted, _) in enumerate(value["model"]["confusions"]):
            index(true, f"model.confusions.{at}.0")
            index(predicted, f"model.confusions.{at}.1")
        for at, mistake in enumerate(value["model"]["mistakes"]):
            for name in ("true", "predicted"):
                index(mistake[name], f"model.mistakes.{at}.{name}")
        for name in ("source_classes", "examples"):
            if len(value[name]) != classes:
                raise WrongFieldError(f"{name} has {len(value[name])} entries for {classes} classes")

    validate(fits, evidence, EVIDENCE)
