"""Where a JPEG ends: kernels and OpenCV give one verdict, whatever is cut off and put behind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from augd.pixels import native
from augd.pixels.decode import Pixels, decode
from augd.pixels.headers.read_header import BadImage, read_header
from tests.hostile.images import CMYK, JPEG, PROGRESSIVE, RESTARTS, jpeg
from tests.support.examples import examples
from tests.support.scenes import caught_noise

FILES = {
    "plain": JPEG,
    "restarts": RESTARTS,
    "progressive": PROGRESSIVE,
    "fine": jpeg(sampling=0x111111),
    "CMYK": CMYK,
}
BEHIND = [b"", b"\xff", bytes(99), b"SEFT" * 20, b"\xff\xe1\0\4ab" * 9, b"moov \xff\xd9\0" * 9]


def verdict(data: bytes, region: tuple[int, int, int, int]) -> Pixels | None:
    """Return what is decoded; None where the file is bad."""
    with caught_noise():
        try:
            return decode(data, read_header(data), region)
        except BadImage:
            return None


@pytest.mark.skipif(native.kernels is None, reason="compares the native kernels, which aren't here")
@examples(60)
@given(
    name=st.sampled_from(sorted(FILES)),
    lost=st.integers(0, 600),
    behind=st.sampled_from(BEHIND),
    row=st.integers(0, 9),
)
@example(name="restarts", lost=2, behind=b"SEFT" * 20, row=0)
@example(name="progressive", lost=2, behind=b"\xff\xe1\0\4ab" * 9, row=3)
def test_the_verdict_is_one(name: str, lost: int, behind: bytes, row: int) -> None:
    clean = FILES[name]
    data = clean[: len(clean) - lost] + behind
    region = (8, 8 * row, 40, 8)
    try:
        is_damaged = lost > 2 and read_header(data).is_plain
    except BadImage:
        is_damaged = False
    if is_damaged:  # an end marker behind too little: what lies below the region isn't looked at
        region = (0, 0, 96, 80)
    fast = verdict(data, region)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "kernels", None)
        plain = verdict(data, region)
        whole = verdict(clean, region)
    assert (fast is None) is (plain is None)
    if fast is not None and plain is not None:
        assert np.array_equal(fast, plain)
        if lost <= 2:
            assert np.array_equal(fast, whole)


@examples(40)
@given(name=st.sampled_from(sorted(FILES)), lost=st.integers(0, 900))
def test_without_an_end_it_is_good_or_bad_whatever_the_crop(name: str, lost: int) -> None:
    data = FILES[name][: -2 - lost]
    try:
        header = read_header(data)
    except BadImage:
        return
    assert not header.is_plain
    found = {verdict(data, (0, row, 16, 8)) is None for row in (0, 32, header.height - 8)}
    assert len(found) == 1
