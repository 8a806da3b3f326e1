"""Where the arrays of a batch lie in a slot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augd.errors import ProtocolError
from augd.plan.params_layout import NUM_PARAMS
from augd.protocol.messages import ArraySpec, PhaseArrays
from augd.protocol.slot_layout import (
    ALIGNMENT_BYTES,
    PAGE_BYTES,
    arrays_at,
    by_view,
    check_layout,
    size_bytes,
    slot_layout,
    views_layout,
)


def test_layout_of_a_small_batch() -> None:
    arrays, slot_bytes = slot_layout(5, 7, 9)
    assert arrays == (
        ArraySpec("images", "uint8", (5, 7, 9, 3), 0),
        ArraySpec("labels", "int64", (5,), 960),
        ArraySpec("ids", "int64", (5,), 1024),
        ArraySpec("valid", "bool", (5,), 1088),
    )
    assert slot_bytes == 4096


@given(st.integers(1, 5000), st.integers(1, 3000), st.integers(1, 3000))
def test_layouts_are_aligned_pass_their_own_check_and_are_as_small_as_can_be(
    batch_size: int, height: int, width: int
) -> None:
    arrays, slot_bytes = slot_layout(batch_size, height, width)
    check_layout(arrays, slot_bytes)
    assert all(array.offset % ALIGNMENT_BYTES == 0 for array in arrays)
    assert slot_bytes % PAGE_BYTES == 0
    needed = sum(size_bytes(array.dtype, array.shape) for array in arrays)
    assert needed <= slot_bytes < needed + len(arrays) * ALIGNMENT_BYTES + PAGE_BYTES


def test_products_do_not_overflow() -> None:
    _, slot_bytes = slot_layout(2**24, 2**20, 2**20)
    assert slot_bytes > 2**65


def test_arrays_that_overlap_are_refused() -> None:
    arrays = (ArraySpec("a", "int64", (4,), 0), ArraySpec("b", "uint8", (4,), 31))
    with pytest.raises(ProtocolError, match="array 'b' starts at 31, inside another"):
        check_layout(arrays, 4096)


def test_arrays_that_leave_the_slot_are_refused() -> None:
    arrays = (ArraySpec("a", "float32", (1024, 2), 0),)
    with pytest.raises(ProtocolError, match="arrays end at byte 8192 of a slot of 4096 bytes"):
        check_layout(arrays, 4096)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ProtocolError, match="array of dtype 'object', expected one of"):
        check_layout((ArraySpec("a", "object", (1,), 0),), 4096)


@pytest.mark.clause("P-166")
def test_an_epoch_has_the_arrays_of_the_last_phase_that_has_begun() -> None:
    first, second, third = (slot_layout(4, side, side)[0] for side in (4, 8, 2))
    phases = PhaseArrays(3, second), PhaseArrays(9, third)
    found = [arrays_at(first, phases, epoch) for epoch in (0, 2, 3, 8, 9, 2**31 - 1)]
    assert found == [first, first, second, second, third, third]
    assert arrays_at(first, (), 5) is first


@pytest.mark.clause("P-165")
def test_views_with_names_have_an_array_each() -> None:
    arrays, slot_bytes = views_layout(
        5, {"global": (2, 7, 9), "local": (8, 3, 4)}, has_colour=True, num_params=NUM_PARAMS
    )
    assert [(spec.name, spec.dtype, spec.shape) for spec in arrays] == [
        ("images.global", "uint8", (5, 2, 7, 9, 3)),
        ("images.local", "uint8", (5, 8, 3, 4, 3)),
        ("labels", "int64", (5,)),
        ("ids", "int64", (5,)),
        ("valid", "bool", (5,)),
        ("colour.global", "float32", (5, 2, 3, 4)),
        ("colour.local", "float32", (5, 8, 3, 4)),
        ("params.global", "float64", (5, 2, 30)),
        ("params.local", "float64", (5, 8, 30)),
    ]
    check_layout(arrays, slot_bytes)
    targets = views_layout(5, {"one": (1, 2, 2)}, 4)[0]
    assert [(spec.name, spec.shape) for spec in targets][:2] == [
        ("images.one", (5, 1, 2, 2, 3)),
        ("labels", (5, 4)),
    ]
    named = {spec.name: spec.shape for spec in arrays}
    assert by_view(named, "images") == {"global": (5, 2, 7, 9, 3), "local": (5, 8, 3, 4, 3)}
    assert by_view({"images": 1, "ids": 2}, "images") == {"": 1}
