"""What is stored follows from sizes and the limit, and pays."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from inarch.features.what_to_store import Demand, cuts_to_store, stored_bytes
from inarch.network.stages import Stage

DEMAND = Demand(training=3000, evaluated=700, views=16, epochs=9, item=2)


def stages_of(*parts: tuple[float, int]) -> list[Stage]:
    """Stages of which each has a share of the forward pass and so many numbers as output."""
    return [Stage(k, f"stage {k}", 0, cost, (size,)) for k, (cost, size) in enumerate(parts, start=1)]


# Like MobileNetV2: large and cheap at first, small and deep at last.
NETWORK = stages_of((0.04, 401_408), (0.06, 200_704), (0.2, 25_088), (0.3, 18_816), (0.35, 1280), (0.05, 1000))


def test_with_room_for_everything_every_cut_that_pays_is_stored() -> None:
    assert set(cuts_to_store(NETWORK, DEMAND, 1 << 60)) >= {3, 4, 5, 6}


def test_with_little_room_the_deepest_and_smallest_come_first() -> None:
    small = stored_bytes(NETWORK[4], DEMAND) + stored_bytes(NETWORK[5], DEMAND)
    assert cuts_to_store(NETWORK, DEMAND, small) == (5, 6)
    assert cuts_to_store(NETWORK, DEMAND, stored_bytes(NETWORK[4], DEMAND)) in ((5,), (6,))
    assert cuts_to_store(NETWORK, DEMAND, 0) == ()


def test_a_cut_that_saves_less_than_its_reading_costs_is_not_stored() -> None:
    # A hundred megabytes an image to save a thousandth of a forward pass.
    network = stages_of((0.5, 1000), (0.001, 50_000_000), (0.4, 1000), (0.099, 10))
    assert cuts_to_store(network, DEMAND, 1 << 60) == (1, 3, 4)


def test_views_seeds_and_a_wider_type_make_segments_larger() -> None:
    size = stored_bytes(NETWORK[0], DEMAND)
    assert stored_bytes(NETWORK[0], replace(DEMAND, views=32)) > 1.9 * size
    assert stored_bytes(NETWORK[0], replace(DEMAND, item=4)) > 1.9 * size


stage_parts = st.tuples(st.floats(0, 1), st.integers(1, 500_000))


@settings(deadline=None)  # other tests may be at work beside it
@given(st.lists(stage_parts, min_size=2, max_size=8), st.integers(0, 1 << 38))
def test_the_limit_is_kept_and_the_same_question_has_the_same_answer(
    parts: list[tuple[float, int]], limit: int
) -> None:
    network = stages_of(*parts)
    cuts = cuts_to_store(network, DEMAND, limit)
    assert sum(stored_bytes(network[cut - 1], DEMAND) for cut in cuts) <= limit
    assert list(cuts) == sorted(set(cuts))
    assert cuts_to_store(network, DEMAND, limit) == cuts
