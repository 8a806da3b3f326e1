"""Each hostile image by itself, through the header and the decoder."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest

from augd.pixels import decode as decoding
from augd.pixels import native
from augd.pixels.decode import Pixels, decode
from augd.pixels.headers.read_header import MAX_SCANS, MAX_SEGMENTS, BadImage, read_header
from augd.pixels.jpeg_header_repair import tidied
from tests.hostile.images import (
    JPEG,
    PROGRESSIVE,
    Hostile,
    Verdict,
    find,
    hostile_images,
    insert,
    put,
    segment,
)
from tests.support.scenes import EITHER_KERNELS, caught_noise

pytestmark = EITHER_KERNELS

IMAGES = hostile_images()


def whole(data: bytes) -> Pixels:
    header = read_header(data)
    return decode(data, header, (0, 0, header.width, header.height))


def verdict_on(data: bytes) -> tuple[Verdict, str]:
    with caught_noise():
        try:
            header = read_header(data)
        except BadImage as bad:
            return Verdict.REFUSED, str(bad)
        try:
            decode(data, header, (0, 0, header.width, header.height))
        except BadImage as bad:
            return Verdict.MASKED, str(bad)
    return Verdict.GOOD, ""


def test_there_are_many_and_each_has_its_own_name() -> None:
    assert len(IMAGES) >= 150
    assert len({one.file_name for one in IMAGES}) == len(IMAGES)
    assert [one.number for one in IMAGES] == list(range(1, len(IMAGES) + 1))
    hostile_images.cache_clear()
    assert hostile_images() == IMAGES


@pytest.mark.parametrize("one", IMAGES, ids=lambda one: one.name)
def test_each_gets_its_verdict(one: Hostile) -> None:
    verdict, reason = verdict_on(one.data)
    assert (verdict, reason) == (one.verdict, reason)
    assert re.search(one.reason, reason), reason
    assert reason.isprintable()
    if verdict is Verdict.GOOD:
        assert np.array_equal(whole(one.data), whole(one.like))


@pytest.mark.parametrize("one", IMAGES, ids=lambda one: one.name)
def test_each_gets_the_same_verdict_at_an_eighth(one: Hostile) -> None:
    if one.verdict is Verdict.REFUSED:
        return
    header = read_header(one.data)
    region = (0, 0, header.width, header.height)
    with caught_noise():
        try:
            decode(one.data, header, region, 8)
        except BadImage as bad:
            assert one.verdict is Verdict.MASKED and str(bad).isprintable()
        else:
            assert one.verdict is Verdict.GOOD


def test_bombs_cost_no_memory() -> None:
    """Each is looked at under a limit that unpacking it would break."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bombs = [one for one in IMAGES if "bomb" in one.name or "pixels" in one.name]
    assert len(bombs) >= 8
    used = next(
        int(line.split()[1]) << 10
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmData:")
    )
    resource.setrlimit(resource.RLIMIT_DATA, (used + (32 << 20), hard))
    try:
        for one in bombs:
            if "60 megapixels" not in one.name:
                assert verdict_on(one.data)[0] is one.verdict
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def test_headers_take_a_bounded_number_of_steps() -> None:
    at = find(JPEG, 0xC0)
    for count, verdict in ((MAX_SEGMENTS - 96, Verdict.GOOD), (MAX_SEGMENTS, Verdict.REFUSED)):
        assert verdict_on(insert(JPEG, at, b"\xff" * count))[0] is verdict
        assert verdict_on(insert(JPEG, at, b"\xff\x01" * count))[0] is verdict
    last = PROGRESSIVE.rindex(b"\xff\xda")
    num_scans = PROGRESSIVE.count(b"\xff\xda")
    for count, is_too_many in ((MAX_SCANS - num_scans, False), (MAX_SCANS - num_scans + 1, True)):
        scans = PROGRESSIVE[:-2] + PROGRESSIVE[last:-2] * count + b"\xff\xd9"
        _, reason = verdict_on(scans)
        # The decoder has its own word on scans that repeat each other.
        text = "JPEG scans: expected at most 200, got more"
        assert (reason == text) is is_too_many, reason


def test_noise_is_bounded() -> None:
    """A library that prints more than a page is not followed, and nothing piles up."""
    with caught_noise():
        fd = decoding._noise_fd
        assert fd is not None
        for _ in range(3):
            for _ in range(2000):
                try:
                    os.write(2, b"libpng warning: out of place\n")
                except PermissionError:
                    break
            noise = decoding._take_noise(fd)
            assert 3000 < len(noise) <= os.fstat(fd).st_size == 4096
            assert decoding._take_noise(fd) == b""


def test_what_a_failed_decode_printed_is_not_held_against_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        os.write(2, b"Premature end of JPEG file\n")
        raise cv2.error("out of luck")

    header = read_header(JPEG)
    region = (0, 0, header.width, header.height)
    with caught_noise():
        with monkeypatch.context() as patch, pytest.raises(BadImage, match="out of luck"):
            patch.setattr(native, "kernels", None)
            patch.setattr(cv2, "imdecode", fail)
            decode(JPEG, header, region)
        decode(JPEG, header, region)


def test_tidying_changes_no_pixel_and_keeps_the_scan() -> None:
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\x09")
    for odd in (
        insert(JPEG, find(JPEG, 0xC0), b"stray\xff\xff"),
        insert(JPEG, 2, segment(0xE1, b"x" * 500) + adobe),
        put(JPEG, JPEG.index(b"JFIF") + 5, b"\x07"),
        insert(PROGRESSIVE, find(PROGRESSIVE, 0xC2), b"stray"),
    ):
        header = read_header(odd)
        before = bytes(odd)
        tidy = bytes(tidied(odd, header))
        assert odd == before
        assert len(tidy) <= len(odd)
        assert tidy.endswith(odd[header.sos_offset :])
        assert np.array_equal(whole(tidy), whole(odd))
        assert verdict_on(odd)[0] is Verdict.GOOD


def test_a_region_above_the_damage_is_good() -> None:
    """What lies outside the decoded region is not looked at, hidden or not."""
    cut = next(one for one in IMAGES if one.name == "stray bytes that hide a cut").data
    with caught_noise():
        header = read_header(cut)
        top = decode(cut, header, (0, 0, header.width, 8))
        with pytest.raises(BadImage, match=r"broken scan: .*premature end"):
            decode(cut, header, (0, header.height - 8, header.width, 8))
    assert np.array_equal(top, whole(JPEG)[:8])
