"""The native kernels: the same bytes from SIMD and portable code, in one go and in two."""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import sys
import sysconfig
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from augd.pixels import native
from augd.pixels.colour_matrix import ColourPass
from augd.pixels.headers.read_header import read_header
from augd.pixels.library_versions import describe_environment
from augd.pixels.resample import ANTIALIAS, BICUBIC, LINEAR
from tests.property.test_decode_property import _FACTORS, jpeg
from tests.support.examples import examples

if native.kernels is None:
    pytest.skip(
        "the native kernels are not built here: no C compiler or no libjpeg-turbo",
        allow_module_level=True,
    )
kernels: Any = native.kernels

Pixels = NDArray[np.uint8]
KINDS = [*_FACTORS, "grey"]
WINDOW = (30, 20, 4, 7, 0, 0)  # scaled width and height, window's x and y, flips, filter


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def smooth(height: int, width: int, seed: int = 0) -> Pixels:
    return np.asarray(cv2.GaussianBlur(noise(height, width, seed), (0, 0), 2), np.uint8)


def decoded(data: bytes, region: tuple[int, int, int, int], scale: int = 1) -> Pixels:
    header = read_header(data)
    out = np.full((region[3], region[2], 3), 77, np.uint8)
    kernels.decode_jpeg(data, out, header.width, header.height, *region[:2], scale)
    return out


def resized(source: Pixels, scaling: tuple[Any, ...], size: tuple[int, int]) -> Pixels:
    """Resize by vectors and without them, into the middle of a guarded array."""
    found = []
    for is_wanted in (True, False):
        kernels.use_simd(is_wanted)
        slot = np.full((3, *size, 3), 7, np.uint8)
        kernels.resize(source, slot[1], *scaling)
        assert (slot[0] == 7).all() and (slot[2] == 7).all()
        found.append(slot[1])
    kernels.use_simd(True)
    assert np.array_equal(found[0], found[1])
    return found[0]


@st.composite
def scalings(draw: st.DrawFn) -> tuple[tuple[Any, ...], tuple[int, int]]:
    """Draw a scaled size with a window inside it: the kernel's arguments, and the row's size."""
    scaled = draw(st.tuples(st.integers(1, 90), st.integers(1, 70)))
    width, height = (draw(st.integers(1, side)) for side in scaled)
    at = draw(st.integers(0, scaled[0] - width)), draw(st.integers(0, scaled[1] - height))
    return (*scaled, *at, draw(st.integers(0, 3)), draw(st.integers(0, 2))), (height, width)


@examples(100)
@given(st.integers(1, 400), st.integers(1, 300), scalings(), st.integers(0, 1 << 30))
def test_vectors_change_no_byte_of_a_resize(
    width: int, height: int, drawn: tuple[tuple[Any, ...], tuple[int, int]], seed: int
) -> None:
    resized(noise(height, width, seed), *drawn)


@examples(100)
@given(
    st.integers(1, 200),
    st.integers(1, 160),
    st.sampled_from(KINDS),
    st.sampled_from([0, 3]),
    st.booleans(),
    st.sampled_from([1, 2, 4, 8]),
    scalings(),
    st.integers(0, 1 << 30),
)
def test_decoding_and_resizing_in_one_go_are_the_same(
    width: int,
    height: int,
    kind: str,
    restart: int,
    progressive: bool,
    scale: int,
    drawn: tuple[tuple[Any, ...], tuple[int, int]],
    seed: int,
) -> None:
    data = jpeg(noise(height, width, seed), kind, 80 + seed % 2, restart, progressive)
    rng = np.random.default_rng(seed)
    width, height = (-(-side // scale) for side in (width, height))
    whole = decoded(data, (0, 0, width, height), scale)
    x, y = int(rng.integers(width)), int(rng.integers(height))
    w, h = int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1))
    region = decoded(data, (x, y, w, h), scale)
    assert np.array_equal(region, whole[y : y + h, x : x + w])
    scaling, size = drawn
    header, out = read_header(data), np.empty((*size, 3), np.uint8)
    kernels.render_jpeg(data, out, header.width, header.height, x, y, scale, w, h, *scaling)
    assert np.array_equal(out, resized(region, scaling, size))


@pytest.mark.parametrize("kind", KINDS)
def test_whole_images_are_those_of_opencv(kind: str) -> None:
    """Both bring a libjpeg-turbo; where a version rounds otherwise, it is by a level."""
    data = jpeg(smooth(333, 451), kind, 90, 0, False)
    by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    apart = np.abs(decoded(data, (0, 0, 451, 333)).astype(int) - by_opencv)
    assert apart.max() <= 1


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_scaled_images_are_those_of_opencv(kind: str, scale: int) -> None:
    data = jpeg(smooth(333, 451), kind, 90, 0, False)
    flag = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}.get(
        scale, cv2.IMREAD_REDUCED_COLOR_8
    )
    by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), flag)[..., ::-1]
    found = decoded(data, (0, 0, by_opencv.shape[1], by_opencv.shape[0]), scale)
    assert np.abs(found.astype(int) - by_opencv).max() <= 1


_ENTRY = st.floats(-40, 40) | st.sampled_from([0.0, 1.0, 0.5 / 1024, -1.5 / 1024, 31.0])


@examples(100)
@given(
    st.integers(1, 60),
    st.integers(1, 40),
    st.lists(_ENTRY, min_size=9, max_size=9) | st.just(np.eye(3).ravel().tolist()),
    st.lists(st.floats(-9_000, 9_000), min_size=3, max_size=3),
    st.none() | st.lists(st.floats(-30, 30), min_size=9, max_size=9),
    st.integers(0, 1 << 30),
)
def test_tinting_gives_the_bytes_that_opencv_gives(
    width: int,
    height: int,
    entries: list[float],
    offsets: list[float],
    of_mean: list[float] | None,
    seed: int,
) -> None:
    pivot = None if of_mean is None else np.array(of_mean).reshape(3, 3).tolist()
    colour = np.hstack([np.array(entries).reshape(3, 3), np.array(offsets)[:, None]]).tolist()
    expected = noise(height, width, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "kernels", None)
        ColourPass().apply(colour, pivot, expected)
    source = noise(height, width, seed)
    for is_wanted in (True, False):
        kernels.use_simd(is_wanted)
        slot = np.stack([source, source, source])
        ColourPass().apply(colour, pivot, slot[1])
        assert np.array_equal(slot[1], expected)
        assert np.array_equal(slot[0], source) and np.array_equal(slot[2], source)
    kernels.use_simd(True)


@examples(100)
@given(st.integers(1, 900), st.integers(1, 40), st.integers(0, 1 << 30))
def test_sums_are_those_that_numpy_makes(width: int, height: int, seed: int) -> None:
    row = noise(height, width, seed)
    row[: height // 2] = 255
    for is_wanted in (True, False):
        kernels.use_simd(is_wanted)
        assert kernels.sums(row) == tuple(row.sum(axis=(0, 1), dtype=np.uint64).tolist())
    kernels.use_simd(True)


def test_the_largest_sums_are_exact() -> None:
    """Vectors add up in 16 bits, and must make room in time."""
    for num_pixels in (32 * 257, 32 * 258, 32 * 257 * 3 + 31):
        row = np.full((1, num_pixels, 3), 255, np.uint8)
        assert kernels.sums(row) == (255 * num_pixels,) * 3


def test_a_flat_image_stays_flat() -> None:
    """Weights sum to exactly one, at any reduction."""
    for level, filter in product((0, 1, 127, 254, 255), (ANTIALIAS, BICUBIC)):
        source = np.full((301, 477, 3), level, np.uint8)
        for scaled in ((13, 7), (224, 224), (600, 500), (477, 301)):
            out = resized(source, (*scaled, 0, 0, 0, filter), (scaled[1], scaled[0]))
            assert (out == level).all()


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Keys' cubic with a = -1/2."""
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@pytest.mark.parametrize(
    ("filter", "sides", "scaled"),
    [
        (ANTIALIAS, (2_000, 3_100), (37, 61)),
        (BICUBIC, (2_000, 3_100), (37, 61)),
        (BICUBIC, (90, 70), (64, 64)),
        (BICUBIC, (40, 50), (64, 60)),
        (BICUBIC, (1, 3), (20, 30)),
    ],
)
def test_a_resize_is_within_a_level_of_float64(
    filter: int, sides: tuple[int, int], scaled: tuple[int, int]
) -> None:
    source = noise(*sides)
    out = resized(source, (scaled[1], scaled[0], 0, 0, 0, filter), scaled).astype(float)

    def weights(side: int, scaled: int) -> NDArray[np.float64]:
        step = side / scaled
        apart = np.abs(np.arange(side) + 0.5 - (np.arange(scaled)[:, None] + 0.5) * step)
        apart /= max(step, 1.0)
        found = cubic(apart) if filter == BICUBIC else np.maximum(0, 1 - apart)
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    down, across = (weights(*pair) for pair in zip(sides, scaled, strict=True))
    exact = np.einsum("yi,ijc,xj->yxc", down, source.astype(float), across, optimize=True)
    assert np.abs(out - np.clip(exact, 0, 255)).max() <= 1.0


@pytest.mark.parametrize("filter", [ANTIALIAS, LINEAR, BICUBIC])
def test_flips_reorder_the_pixels(filter: int) -> None:
    source = noise(60, 80)
    plain = resized(source, (50, 40, 3, 4, 0, filter), (30, 41))
    for flips, expected in ((1, plain[:, ::-1]), (2, plain[::-1]), (3, plain[::-1, ::-1])):
        # A mirrored window keeps its place in the scaled image.
        assert np.array_equal(resized(source, (50, 40, 3, 4, flips, filter), (30, 41)), expected)


def test_a_filter_that_there_is_not_is_refused() -> None:
    source, out = noise(60, 80), np.empty((30, 41, 3), np.uint8)
    for filter in (-1, 3):
        with pytest.raises(ValueError, match=rf"filter: expected 0\.\.2, got {filter}"):
            kernels.resize(source, out, 50, 40, 3, 4, 0, filter)


def test_each_image_is_decoded_by_its_own_tables() -> None:
    images = [jpeg(smooth(90, 120, seed), "420", 91, 0, False) for seed in range(4)]
    assert len({data[data.index(b"\xff\xc4") :][:60] for data in images}) == 4
    for data in (*images, *images):
        by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert np.abs(decoded(data, (0, 0, 120, 90)).astype(int) - by_opencv).max() <= 1


def test_a_progressive_image_without_its_last_scans() -> None:
    """libjpeg smooths its blocks by their neighbours; a region is still that of the whole."""
    buffer = io.BytesIO()
    Image.fromarray(smooth(120, 160)).save(buffer, "JPEG", progressive=True, quality=90)
    data = buffer.getvalue()
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    cut = data[: scans[3]] + b"\xff\xd9"
    whole = decoded(cut, (0, 0, 160, 120))
    for x in range(0, 150, 7):
        for y in range(0, 110, 9):
            assert np.array_equal(decoded(cut, (x, y, 10, 10)), whole[y : y + 10, x : x + 10])


def test_fill_bytes_before_a_stuffed_zero_are_skipped() -> None:
    data = jpeg(noise(64, 96), "444", 90, 0, False)
    scan = data.index(b"\xff\xda") + 14
    filled = data[:scan] + data[scan:-2].replace(b"\xff\x00", b"\xff\xff\xff\x00") + b"\xff\xd9"
    assert len(filled) > len(data)
    assert np.array_equal(decoded(filled, (0, 0, 96, 64)), decoded(data, (0, 0, 96, 64)))


def test_libjpegs_own_entropy_decoder_gives_the_same(tmp_path: Path) -> None:
    """What is built where jpegint.h is missing."""
    compiler = sysconfig.get_config_var("CC").split()[0]
    if shutil.which(compiler) is None:
        pytest.skip(f"no C compiler here: {compiler}")
    folder = Path(native.__file__).parent / "kernels"
    include = sysconfig.get_path("include")
    built = tmp_path / "_kernels.abi3.so"
    command = [compiler, "-std=c11", "-O1", "-ffp-contract=off", "-fPIC", "-shared"]
    command += ["-DAUGD_OWN_ENTROPY=0", f"-I{include}", *map(str, sorted(folder.glob("*.c")))]
    done = subprocess.run(
        [*command, "-ljpeg", "-lm", "-o", str(built)], capture_output=True, text=True, timeout=100
    )
    if done.returncode:
        pytest.skip(f"the kernels do not compile here: {done.stderr.splitlines()[0]}")
    spec = importlib.util.spec_from_file_location("_kernels", built)
    assert spec is not None and spec.loader is not None
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    assert not other.HAS_OWN_ENTROPY_DECODER
    for kind in KINDS:
        data = jpeg(smooth(99, 133), kind, 85, 4, False)
        out = np.empty((40, 50, 3), np.uint8)
        other.decode_jpeg(data, out, 133, 99, 61, 33, 1)
        assert np.array_equal(out, decoded(data, (61, 33, 50, 40)))


def test_tables_of_another_image_are_not_taken() -> None:
    """A JPEG without its Huffman tables does not decode by those of the one before."""
    data = jpeg(noise(40, 50), "420", 80, 0, False)
    decoded(data, (0, 0, 50, 40))
    bare = bytearray(data)
    while (at := bare.find(b"\xff\xc4")) >= 0:
        del bare[at : at + 2 + (bare[at + 2] << 8 | bare[at + 3])]
    other = noise(40, 50, seed=1)
    decoded(jpeg(other, "444", 95, 0, True), (0, 0, 50, 40))
    try:
        first = decoded(bytes(bare), (0, 0, 50, 40))
    except kernels.DecodeError:
        return
    # Some versions of libjpeg-turbo fall back to the standard's tables: then always.
    decoded(jpeg(other, "422", 30, 0, False), (0, 0, 50, 40))
    assert np.array_equal(decoded(bytes(bare), (0, 0, 50, 40)), first)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2] + b"\xff\xd9", "premature end of data segment"),
        (
            lambda data: data[: data.index(b"\xff\xd3")] + data[data.index(b"\xff\xd4") :],
            "restart marker is missing or out of turn",
        ),
        (
            lambda data: data.replace(b"\xff\xd3", b"more bytes\xff\xd3"),
            "bytes between the data and a restart marker",
        ),
    ],
    ids=["cut", "a segment lost", "bytes added"],
)
def test_a_broken_scan_is_an_error(damage: Any, message: str) -> None:
    data = damage(jpeg(noise(64, 96), "420", 80, 2, False))
    with pytest.raises(kernels.DecodeError, match=f"broken scan: .*{message}"):
        decoded(data, (0, 0, 96, 64))


def test_what_lies_below_the_region_is_not_looked_at() -> None:
    data = jpeg(noise(160, 96), "420", 80, 0, False)
    top = decoded(data, (0, 0, 96, 20))
    cut = data[: len(data) // 2] + b"\xff\xd9"
    assert np.array_equal(decoded(cut, (0, 0, 96, 20)), top)


def test_another_size_than_the_headers_is_an_error() -> None:
    data = jpeg(noise(40, 50), "444", 80, 0, False)
    out = np.empty((4, 4, 3), np.uint8)
    with pytest.raises(kernels.DecodeError, match="to another size: expected 51x40, got 50x40"):
        kernels.decode_jpeg(data, out, 51, 40, 0, 0, 1)
    with pytest.raises(kernels.DecodeError, match="region: expected a part of 25x20"):
        kernels.decode_jpeg(data, out, 50, 40, 22, 0, 2)


@pytest.mark.parametrize(
    "source",
    [
        np.empty((9, 9), np.uint8),
        np.empty((9, 9, 4), np.uint8),
        np.empty((9, 9, 3), np.uint16),
        np.empty((9, 18, 3), np.uint8)[:, ::2],
        np.empty((0, 9, 3), np.uint8),
    ],
    ids=["grey", "four channels", "sixteen bits", "every other pixel", "no rows"],
)
def test_pixels_of_another_kind_are_refused(source: Any) -> None:
    out = np.empty((5, 6, 3), np.uint8)
    with pytest.raises(ValueError, match=r"source: expected uint8 \(h, w, 3\) with dense pixels"):
        kernels.resize(source, out, *WINDOW)
    with pytest.raises((ValueError, BufferError)):
        kernels.resize(noise(9, 9), source, *WINDOW)


def test_arguments_out_of_range_are_refused() -> None:
    source, out = noise(9, 9), np.empty((5, 6, 3), np.uint8)
    with pytest.raises(ValueError, match="window: expected a part of the scaled image"):
        kernels.resize(source, out, 30, 20, 25, 7, 0, 0)
    with pytest.raises(TypeError, match="resize: expected 8 arguments, got 7"):
        kernels.resize(source, out, *WINDOW[:-1])
    with pytest.raises(OverflowError, match="32 bits"):
        kernels.resize(source, out, 1 << 40, *WINDOW[1:])
    data = jpeg(source, "444", 80, 0, False)
    for place in ((-1, 0, 1), (0, 0, 0), (0, 0, 9), (2**31 - 2, 0, 1), (0, 2**31 - 2, 1)):
        with pytest.raises(ValueError, match=r"region: expected a part .* scale 1\.\.8"):
            kernels.decode_jpeg(data, out, 9, 9, *place)
    read_only = out.view()
    read_only.flags.writeable = False
    with pytest.raises((ValueError, BufferError), match=r"read-only|writable"):
        kernels.resize(source, read_only, *WINDOW)


@pytest.mark.parametrize("switch", ["", "off"])
def test_they_can_be_left_out_and_are_part_of_the_content(switch: str) -> None:
    code = (
        "from augd.pixels.library_versions import describe_environment as d; print(d()['kernels'])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"AUGD_KERNELS": switch},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout.strip()
    assert found == ("none" if switch else describe_environment()["kernels"])
    pixels = 2 if int(cv2.__version__[0]) >= 5 else 3
    assert describe_environment()["kernels"].startswith(f"{pixels}, libjpeg-turbo ")
    assert native.describe_kernels(4).startswith("3, libjpeg-turbo ")  # whose bent rows are others


def test_kernels_of_another_version_are_refused() -> None:
    class Old:
        VERSION = 0
        __file__ = "old.so"

    with pytest.raises(
        ImportError,
        match=rf"old.so is of another version: expected {native._VERSION}, got 0\. Build",
    ):
        native._checked(Old)  # type: ignore[arg-type]
