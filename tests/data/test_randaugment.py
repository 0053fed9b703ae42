"""RandAugment: torchvision's operations, drawn from the numbers of a view, and nothing else changed."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from inarch.data import AUGMENTATIONS, Augmentation, Pixels, Views
from inarch.data.augmentation import MOST
from inarch.data.randaugment import OPERATIONS, UNSIGNED, augmented
from inarch.errors import UsageError
from inarch.network.card import InputSpec

from .conftest import Picture

# Ours and torchvision's, in the order of torchvision's list.
THEIRS = dict(zip(OPERATIONS, v2.RandAugment._AUGMENTATION_SPACE, strict=True))
SPEC = InputSpec(3, 24, 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ROWS = np.arange(12)
DIGESTS = [hashlib.blake2b(bytes([n]), digest_size=16).hexdigest() for n in range(12)]
RANDAUGMENT = AUGMENTATIONS["randaugment"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_torchvisions_with_every_magnitude_and_sign(name: str, picture: Picture) -> None:
    image = Image.fromarray(picture(5, 32, 48))
    transform = v2.RandAugment(num_magnitude_bins=MOST + 1)
    ranges, signed = transform._AUGMENTATION_SPACE[THEIRS[name]]
    assert signed is (name not in UNSIGNED and ranges(MOST + 1, 32, 48) is not None)
    values = ranges(MOST + 1, 32, 48)
    changed = 0
    for magnitude in (0, 9, 17, MOST):
        for sign in (1, -1) if signed else (1,):
            wanted = sign * float(values[magnitude]) if values is not None else 0.0
            theirs = transform._apply_image_or_video_transform(
                image, THEIRS[name], wanted, interpolation=transform.interpolation, fill=transform._fill
            )
            ours = np.asarray(OPERATIONS[name](image, sign * magnitude / MOST))
            np.testing.assert_array_equal(ours, np.asarray(theirs))
            changed += not np.array_equal(ours, np.asarray(image))
    assert changed or name == "identity"


def test_operations_and_signs_follow_from_the_numbers_each_as_often_as_another(picture: Picture) -> None:
    image, uniform = picture(6, 16, 20), np.random.default_rng(0).random((2800, 2))
    found = {augmented(image, [which, sign], 20).tobytes() for which, sign in uniform}
    picture_of = Image.fromarray(image)
    wanted = {
        np.array(OPERATIONS[name](picture_of, sign * 20 / MOST)).tobytes()
        for name in OPERATIONS for sign in (1, -1) if sign > 0 or name not in UNSIGNED
    }  # fmt: skip
    assert found == wanted
    names = list(OPERATIONS)
    for number, name in enumerate(names):
        share = (number + 0.5) / len(names)
        for sign, drawn in ((1, 0.5), (-1, 0.499)):
            expected = OPERATIONS[name](picture_of, 20 / MOST * (1 if name in UNSIGNED else sign))
            np.testing.assert_array_equal(augmented(image, [share, drawn], 20), np.array(expected))
    last = augmented(image, [0.999999, 0.7, 0.0, 0.0], 20)  # equalise, then nothing
    np.testing.assert_array_equal(last, np.array(OPERATIONS["equalise"](picture_of, 1.0)))


def test_a_view_has_the_same_bits_in_any_batch_order_and_number_of_threads(
    pixels: Pixels, threads: Callable[[int], None]
) -> None:
    views = Views(pixels, DIGESTS, SPEC, RANDAUGMENT)
    threads(2)
    together = views.training(ROWS, 5)
    order = np.array([7, 3, 11, 3, 0])
    assert torch.equal(views.training(order, 5), together[order])
    threads(1)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)
    assert torch.equal(Views(pixels, DIGESTS, SPEC, RANDAUGMENT).training(ROWS, 5), together)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    np.testing.assert_equal(np.random.get_state(legacy=False), states[2])
    assert not torch.equal(views.training(ROWS, 6), together)


def test_it_comes_behind_the_crop_and_the_flip_which_stay_what_they_were(pixels: Pixels) -> None:
    plain = InputSpec(3, 24, 32, (0.0,) * 3, (1 / 255,) * 3)
    with_none, with_two = (
        Views(pixels, DIGESTS, plain, Augmentation(colour_jitter=0.0, operations=operations)) for operations in (0, 2)
    )
    crops, found = with_none.training(ROWS, 3), with_two.training(ROWS, 3)
    uniform = with_two._uniform(ROWS, 3)
    np.testing.assert_array_equal(uniform[:, :26], with_none._uniform(ROWS, 3))
    for row in ROWS.tolist():
        crop = crops[row].permute(1, 2, 0).round().byte().numpy()
        expected = augmented(np.ascontiguousarray(crop), uniform[row, 26:].tolist(), 9)
        np.testing.assert_array_equal(found[row].permute(1, 2, 0).round().byte().numpy(), expected)
    assert sum(not torch.equal(crops[row], found[row]) for row in ROWS.tolist()) > 8


def test_a_thread_that_makes_views_gets_no_team_of_pytorchs_threads(
    threads: Callable[[int], None], picture: Picture
) -> None:
    threads(2)
    image, added = picture(3, 300, 300), []

    def work() -> None:
        before = set(os.listdir("/proc/self/task"))
        for number in range(len(OPERATIONS)):
            augmented(image, [(number + 0.5) / len(OPERATIONS), 0.7], 15)
        added.extend(set(os.listdir("/proc/self/task")) - before)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert not added


def test_what_names_an_augmentation_holds_randaugment_where_there_is_some_and_is_read_back() -> None:
    usual = Augmentation().to_json()
    assert usual.keys() == {"scale", "ratio", "flip", "colour_jitter"}
    assert (RANDAUGMENT.to_json()["operations"], RANDAUGMENT.to_json()["magnitude"]) == (2, 9)
    for augmentation in AUGMENTATIONS.values():
        listed = {name: list(v) if isinstance(v, tuple) else v for name, v in augmentation.to_json().items()}
        assert Augmentation.from_json(listed) == augmentation


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"operations": -1}, "cannot have -1 operations"), ({"magnitude": 31}, "no magnitude of 31")],
)
def test_what_cannot_be_made_is_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Augmentation(**wrong)  # type: ignore[arg-type]
