"""Packed photos: coefficients stay, and a part made of segments decodes to what the whole does."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augd.cli.pack.photo import Shrink, pack_photo
from augd.pixels import native
from augd.pixels.decode import decode, decode_cut
from augd.pixels.headers.read_header import BadImage, Header, read_header
from augd.pixels.jpeg_segments import Cut, Table, cut_part, find_segments, widened
from augd.pixels.render import Filter, Renderer
from augd.pixels.row_plan import RowPlans
from augd.plan.plan import Plan
from tests.hostile.images import Verdict, hostile_images
from tests.support.examples import examples
from tests.support.scenes import EITHER_KERNELS, caught_noise

pytestmark = EITHER_KERNELS

_SAMPLINGS = {
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "440": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "411": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}
_SIZES = ((1, 1), (17, 9), (33, 48), (130, 75), (241, 96))


@cache
def _scene(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(width * 1000 + height)
    small = rng.integers(0, 256, (max(2, height // 6), max(2, width // 6), 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@cache
def _jpeg(width: int, height: int, sampling: str, interval: int, quality: int = 92) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_RST_INTERVAL, interval]
    image = _scene(width, height)
    if sampling == "grey":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    elif sampling == "progressive":
        options += [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    else:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SAMPLINGS[sampling]]
    _, data = cv2.imencode(".jpg", image, options)
    return data.tobytes()


def _cut_of(data: bytes, table: Table, region: tuple[int, int, int, int], scale: int = 1) -> Cut:
    if scale != 1:
        region = widened(region, scale, table.width, table.height)
    cells = table.around(region)
    span = table.span(cells)
    read = data[: table.scan_offset] + data[span.first : span.first + span.size]
    return Cut(bytearray(read), table, cells)


def _part_pixels(cut: Cut, region: tuple[int, int, int, int], scale: int) -> np.ndarray:
    """Decode a region by putting a JPEG together, which all decoders can, and where it lies."""
    before = bytes(cut.data)
    part = cut.part()
    assert read_header(part.data) == part.header, "a part is a JPEG in its own right"
    x, y, width, height = region
    put_together = decode(part.data, part.header, (x - part.x, y - part.y, width, height), scale)
    found = decode_cut(cut, region, scale)
    np.testing.assert_array_equal(found, put_together)
    assert cut.data == before, "what was read is put back as it was"
    return found


@examples(120)
@given(
    size=st.sampled_from(_SIZES),
    sampling=st.sampled_from([*_SAMPLINGS, "grey"]),
    divisor=st.integers(1, 16),
    scale=st.sampled_from([1, 1, 2, 4, 8]),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_part_decodes_to_what_the_whole_does(
    size: tuple[int, int],
    sampling: str,
    divisor: int,
    scale: int,
    corners: tuple[float, float, float, float],
) -> None:
    width, height = size
    plain = read_header(_jpeg(width, height, sampling, 0))
    mcu_width = 8 if sampling == "grey" else plain.mcu_width
    num_mcus = -(-width // mcu_width)
    interval = [n for n in range(1, num_mcus + 1) if num_mcus % n == 0][:divisor][-1]
    data = _jpeg(width, height, sampling, interval)
    header = read_header(data)
    table = find_segments(data, header)
    assert table is not None
    assert table.interval == interval
    edges = []
    for side, one, other in ((width, *corners[:2]), (height, *corners[2:])):
        start = int(min(one, other) * (side - 1)) // scale * scale
        end = min(side, -(-(int(max(one, other) * (side - 1)) + 1) // scale) * scale)
        edges.append((start, end))
    (left, right), (top, bottom) = edges
    region = left, top, right - left, bottom - top
    found = _part_pixels(_cut_of(data, table, region, scale), region, scale)
    np.testing.assert_array_equal(found, decode(data, header, region, scale))


@examples(60)
@given(
    sampling=st.sampled_from(["444", "420"]),
    filter=st.sampled_from(["antialias", "linear", "bicubic", "random"]),
    scale=st.sampled_from([1, 1, 2]),
    crop=st.tuples(st.integers(0, 14), st.integers(0, 5), st.integers(1, 16), st.integers(1, 7)),
    scaled=st.tuples(st.integers(16, 200), st.integers(12, 90)),
    mirror=st.booleans(),
    is_flipped=st.booleans(),
    is_bicubic=st.booleans(),
    data=st.data(),
)
def test_a_row_is_rendered_from_what_is_needed_of_it(
    sampling: str,
    filter: Filter,
    scale: int,
    crop: tuple[int, int, int, int],
    scaled: tuple[int, int],
    mirror: bool,
    is_flipped: bool,
    is_bicubic: bool,
    data: st.DataObject,
) -> None:
    """Also where the window is a small part of a large crop, as of a centre crop."""
    photo = _jpeg(241, 96, sampling, 1)
    header = read_header(photo)
    table = find_segments(photo, header)
    assert table is not None
    x, y = 16 * crop[0], 16 * crop[1]
    region = x, y, min(16 * crop[2], 240 - x), min(16 * crop[3], 96 - y)
    window = data.draw(st.integers(0, scaled[0] - 16)), data.draw(st.integers(0, scaled[1] - 12))
    plan = Plan(
        crop=np.array([region], np.int32),
        scaled=np.array([scaled], np.int32),
        window=np.array([window], np.int32),
        mirror=np.array([mirror]),
        flip=np.array([is_flipped]),
        is_bicubic=np.array([is_bicubic]) if filter == "random" else None,
        scale=np.array([scale], np.int8),
        colour=None,
        impossible={},
    )
    renderer = Renderer(filter, (12, 16))
    row_plans = RowPlans(plan, 0, 1)
    whole, cut = np.empty((1, 12, 16, 3), np.uint8), np.empty((1, 12, 16, 3), np.uint8)
    renderer.render_sample(photo, header, row_plans, 0, whole)
    left, top, across, down = renderer.needed(plan, slice(0, 1))[0].tolist()
    needed = left, top, across, down
    assert table.holds(needed)
    read = _cut_of(photo, table, needed, scale)
    part = read.part()
    renderer.render_sample(part.data, part.header, row_plans, 0, cut, origin=(part.x, part.y))
    np.testing.assert_array_equal(cut, whole)
    assert renderer.can_render_cuts(plan) == native.has_own_entropy_decoder()
    if renderer.can_render_cuts(plan):
        cut[...] = 7
        assert renderer.render_cut(read, row_plans, 0, cut[0])
        np.testing.assert_array_equal(cut, whole)


def test_segments_that_make_no_rows_are_not_used() -> None:
    data = _jpeg(130, 75, "420", 4)  # of 9 MCUs
    assert find_segments(data, read_header(data)) is None
    data = _jpeg(130, 75, "420", 0)
    assert find_segments(data, read_header(data)) is None


def _cut(data: bytes, header: Header, table: Table) -> None:
    cells = 1, 1, 2, 3
    span = table.span(cells)
    body = data[span.first : span.first + span.size]
    cut_part(data[: table.scan_offset], body, header, table, cells, span.kept)


def test_a_lying_table_is_found_out() -> None:
    data = _jpeg(130, 75, "420", 3)
    header = read_header(data)
    table = find_segments(data, header)
    assert table is not None
    lengths = np.frombuffer(table.lengths, np.uint16)
    for place in range(len(lengths)):
        for change in (-3, 1, 7):
            lying = lengths.copy()
            lying[place] = int(lying[place]) + change
            lied = table._replace(lengths=memoryview(lying.tobytes()).cast("H"))
            left, top = place % 3, place // 3
            if left >= 1 and 1 <= top < 4:
                with pytest.raises(BadImage, match="restart markers are not where its index says"):
                    _cut(data, header, lied)
    for field, value in (("width", 146), ("height", 59), ("mcu_width", 8), ("scan_offset", 1)):
        with pytest.raises(BadImage, match=r"header is not the one|not where its index"):
            _cut(data, header, table._replace(**{field: value}))
    with pytest.raises(BadImage, match=r"lists 14 segments: expected 3 x 5\. Index the set again"):
        Table.of((130, 75), (16, 16), 3, table.scan_offset, table.lengths[:14])
    for size, mcu, interval in (
        ((70_000, 75), (16, 16), 3),
        ((130, 75), (120, 16), 1),
        ((130, 75), (16, 16), 2),  # no divisor of a row of nine
    ):
        with pytest.raises(BadImage, match=r"no JPEG is cut so\. Index the set again"):
            Table.of(size, mcu, interval, table.scan_offset, table.lengths)


@pytest.fixture
def native_only(kernels: str) -> None:
    if native.kernels is None:
        pytest.skip("packing is done by the kernels")


native_entropy = pytest.mark.skipif(
    not native.has_own_entropy_decoder(), reason="segments are put together by other decoders"
)


@native_entropy
@pytest.mark.usefixtures("native_only")
def test_our_decoder_believes_no_table() -> None:
    """It says no where the other way does: at lengths of what is decoded, and at another head."""
    data = _jpeg(130, 75, "420", 3)
    table = find_segments(data, read_header(data))
    assert table is not None
    region = 60, 20, 30, 30  # of the cells (1, 1), (1, 2) and (1, 3)
    good = _cut_of(data, table, region)
    assert good.cells == (1, 1, 1, 3)
    expected = decode_cut(good, region)
    lengths = np.frombuffer(table.lengths, np.uint16)
    for place in range(4, 11):  # from the first to the last one that is kept
        for change in (-3, 1, 7, 40_000):
            lying = lengths.copy()
            lying[place] = (int(lying[place]) + change) & 0xFFFF
            lied = table._replace(lengths=memoryview(lying.tobytes()).cast("H"))
            with pytest.raises(BadImage, match=r"where the index says|beyond what was read"):
                decode_cut(good._replace(table=lied), region)
    for field, value in (("width", 132), ("height", 76), ("mcu_width", 8), ("scan_offset", 600)):
        with pytest.raises(BadImage, match="its header is not the one that was indexed"):
            decode_cut(good._replace(table=table._replace(**{field: value})), region)
    for cut in (good.data[:-1], good.data[: table.scan_offset], good.data[: table.scan_offset - 1]):
        with pytest.raises((BadImage, ValueError)):
            decode_cut(good._replace(data=cut), region)
    for beside in ((0, 0, 8, 8), (120, 20, 8, 8), (60, 66, 8, 8)):
        with pytest.raises(BadImage, match="region: expected a part of"):
            decode_cut(good, beside)
    np.testing.assert_array_equal(decode_cut(good, region), expected)


@native_entropy
@pytest.mark.usefixtures("native_only")
@examples(100)
@given(
    sampling=st.sampled_from([*_SAMPLINGS, "grey"]),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
    lengths=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 0xFFFF)), max_size=3),
    columns=st.integers(1, 9),
)
def test_any_bytes_and_any_table_give_pixels_or_a_reason(
    sampling: str,
    places: list[tuple[float, int]],
    lengths: list[tuple[int, int]],
    columns: int,
) -> None:
    data = _jpeg(130, 75, sampling, 1)
    table = find_segments(data, read_header(data))
    assert table is not None
    region = 40, 30, min(columns * 10, 90), 20
    good = _cut_of(data, table, region)
    read, lying = bytearray(good.data), np.frombuffer(table.lengths, np.uint16).copy()
    for place, value in places:
        read[int(place * (len(read) - 1))] = value
    for number, length in lengths:
        lying[number % len(lying)] = length
    lied = table._replace(lengths=memoryview(lying.tobytes()).cast("H"))
    before = bytes(read)
    try:
        found = decode_cut(good._replace(data=read, table=lied), region)
    except BadImage as bad:
        assert str(bad)
    else:
        assert found.shape == (20, region[2], 3)
    assert read == before


def _packed_pixels(data: bytes) -> tuple[np.ndarray, np.ndarray, Header]:
    packed = pack_photo(data)
    assert packed.how == "packed", packed.reason
    header, made = read_header(data), read_header(packed.data)
    region = 0, 0, header.width, header.height
    return decode(data, header, region), decode(packed.data, made, region), made


@pytest.mark.usefixtures("native_only")
@pytest.mark.parametrize("sampling", [*_SAMPLINGS, "grey", "progressive"])
@pytest.mark.parametrize("size", _SIZES)
def test_packing_changes_no_pixel(sampling: str, size: tuple[int, int]) -> None:
    before, after, header = _packed_pixels(_jpeg(*size, sampling, 0))
    np.testing.assert_array_equal(before, after)
    assert not header.progressive


@pytest.mark.usefixtures("native_only")
def test_blocks_of_applications_stay() -> None:
    plain = _jpeg(130, 75, "420", 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    blocks = [(0xE1, exif), (0xE2, b"ICC_PROFILE\0\x01\x01profile"), (0xFE, b"a comment")]
    written = b"".join(
        bytes((0xFF, code)) + (len(content) + 2).to_bytes(2, "big") + content
        for code, content in blocks
    )
    packed = pack_photo(plain[:2] + written + plain[2:])
    assert packed.header is not None
    assert (packed.how, packed.header.orientation) == ("packed", 6)
    for _, content in blocks:
        assert packed.data.count(content) == 1


@pytest.mark.usefixtures("native_only")
def test_what_cannot_be_cut_stays_as_it_is() -> None:
    _, png = cv2.imencode(".png", _scene(33, 48))
    whole = _jpeg(130, 75, "420", 0)
    broken = whole[:-300] + whole[-2:]
    for data, reason in (
        (png.tobytes(), "PNG: only RGB and grey JPEGs are cut"),
        (broken, "broken scan"),
        (b"nothing", "not an image"),
    ):
        packed = pack_photo(data)
        assert (packed.how, packed.data, packed.table) == ("kept", data, None)
        assert reason in packed.reason


@pytest.mark.usefixtures("native_only")
def test_hostile_images_stay_as_they_are() -> None:
    """Whatever does not decode in a folder must not come to decode in a packed set."""
    num_packed = 0
    with caught_noise():
        for one in hostile_images():
            packed = pack_photo(one.data)
            if packed.how == "packed":
                assert one.verdict is Verdict.GOOD, one
                num_packed += 1
            else:
                assert packed.data == one.data and packed.reason
    assert num_packed


@pytest.mark.usefixtures("native_only")
@pytest.mark.parametrize("room", [0, 1, 100, 1000])
def test_too_little_room_is_no_overflow(room: int) -> None:
    """libjpeg writes a byte before it looks for room; the bytes behind must stay what they are."""
    data = _jpeg(130, 75, "420", 0)
    memory = bytearray(b"\xa5" * 4096)
    with pytest.raises(native.kernels.DecodeError, match=r"(?i)buffer"):
        native.kernels.transcode_jpeg(data, memoryview(memory)[:room], 130, 75, 3)
    assert memory[room:] == b"\xa5" * (4096 - room)


@pytest.mark.usefixtures("native_only")
def test_shrinking_makes_another_photo() -> None:
    data = _jpeg(241, 96, "420", 0)
    packed = pack_photo(data, Shrink(48, 90))
    assert packed.header is not None
    assert (packed.header.width, packed.header.height, packed.is_shrunk) == (120, 48, True)
    small = pack_photo(data, Shrink(96, 90))
    assert (small.is_shrunk, small.how) == (False, "packed"), "nothing is enlarged or encoded anew"


@pytest.mark.usefixtures("native_only")
def test_the_kernel_and_plain_python_cut_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _jpeg(241, 96, "420", 2)
    header = read_header(data)
    table = find_segments(data, header)
    assert table is not None
    for cells in ((0, 0, 8, 6), (2, 1, 3, 4), (7, 5, 1, 1), (0, 3, 8, 2)):
        made = []
        for kernels in (native.kernels, None):
            with monkeypatch.context() as patch:
                patch.setattr(native, "kernels", kernels)
                span = table.span(cells)
                body = data[span.first : span.first + span.size]
                head = data[: table.scan_offset]
                made.append((span, cut_part(head, body, header, table, cells, span.kept)))
        assert made[0] == made[1]
