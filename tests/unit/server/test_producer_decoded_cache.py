"""The cache as a producer sees it: images found, decoded into extents, and never half believed."""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from augd.pixels.decode import decode
from augd.pixels.headers.read_header import read_header
from augd.pixels.render import Renderer
from augd.pixels.resample import LINEAR
from augd.pixels.row_plan import RowPlans
from augd.plan.recipe.recipe import parse_recipe
from augd.protocol.cache_table import (
    ALIGNMENT,
    RECORD,
    TABLE_START,
    age_record,
    aligned,
    table_bytes,
    write_record,
)
from augd.protocol.messages import CacheMessage, Room
from augd.server.producer.decoded_cache import CachedImages, PixelCache
from augd.transport.arena import make_arena
from tests.support.plans import planner_of
from tests.support.scenes import EITHER_KERNELS, caught_noise

pytestmark = EITHER_KERNELS

SIZE = 1 << 18
NUM_SAMPLES = 16
WIDTH, HEIGHT = 61, 47
IMAGE_BYTES = WIDTH * HEIGHT * 3


def photo(kind: str = "jpeg", mode: str = "RGB", orientation: int = 1, **options: object) -> bytes:
    rng = np.random.default_rng(orientation)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 4), dtype=np.uint8), "RGBA")
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    small.resize((WIDTH, HEIGHT)).convert(mode).save(stream, kind, exif=exif, **options)
    return stream.getvalue()


@dataclass
class Scene:
    """A cache between a daemon, played by the test, and a producer."""

    cache: PixelCache
    images: CachedImages
    table: memoryview
    fd: int

    def publish(self, *, is_fresh: bool = True) -> list[int]:
        """Write the records of what the producer tells of."""
        news = self.images.take_news()
        entries = news.entries if news else ()
        for entry in entries:
            write_record(self.table, entry, 5)
            if not is_fresh:
                age_record(self.table, entry.sample)
        return [entry.sample for entry in entries]

    def found(self) -> list[int]:
        places = self.images.find(np.arange(NUM_SAMPLES))
        return [sample for sample, place in enumerate(places) if place]


@contextmanager
def made_scene(*, is_checked: bool, room_bytes: int = SIZE - ALIGNMENT) -> Iterator[Scene]:
    fd = make_arena("test", SIZE)
    table_fd = os.memfd_create("test")
    os.ftruncate(table_fd, table_bytes(NUM_SAMPLES))
    cache = PixelCache(fd, CacheMessage(SIZE, is_checked))
    cache.add_room(Room(ALIGNMENT, ALIGNMENT + room_bytes))
    table = memoryview(mmap.mmap(table_fd, table_bytes(NUM_SAMPLES)))
    images = CachedImages(cache, "photos", table_fd, NUM_SAMPLES)
    os.close(table_fd)
    scene = Scene(cache, images, table, fd)
    del cache, images, table
    yield scene
    os.close(fd)
    del scene.cache, scene.images, scene.table  # each mapping has an fd of its own


@pytest.fixture(params=[False, True], ids=["ram", "disk"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with made_scene(is_checked=request.param) as made:
        yield made


def whole(data: bytes) -> NDArray[np.uint8]:
    header = read_header(data)
    return decode(data, header, (0, 0, header.width, header.height))


KINDS = {
    "jpeg": photo(quality=90),
    "progressive": photo(progressive=True),
    "cmyk": photo(mode="CMYK"),
    "png": photo("png"),
    "alpha": photo("png", "RGBA"),
    "turned": photo(orientation=6),
}


def test_a_image_is_found_when_the_daemon_heard_of_it(scene: Scene) -> None:
    for sample, data in enumerate(KINDS.values()):
        added = scene.images.add(sample, bytearray(data), read_header(data))
        assert added is not None
        assert np.array_equal(added.pixels, whole(data))
    assert scene.found() == []
    assert scene.publish() == scene.found() == list(range(len(KINDS)))
    assert scene.publish() == [], "told once"
    for sample, data in enumerate(KINDS.values()):
        found = scene.images.image(sample)
        assert found is not None
        assert np.array_equal(found.pixels, whole(data))
        assert (found.width, found.height) == (WIDTH, HEIGHT)
        assert found.orientation == read_header(data).orientation
        assert not found.pixels.flags.writeable
        assert not found.pixels.flags.owndata, "a view of the cache"


def test_padding_is_never_found(scene: Scene) -> None:
    data = KINDS["jpeg"]
    scene.images.add(NUM_SAMPLES - 1, data, read_header(data))
    scene.publish()
    assert scene.images.find(np.array([-1, NUM_SAMPLES - 1, -1]))[::2] == [0, 0]


RECIPES = {
    "linear": {"ops": [{"op": "random_resized_crop", "size": 24}, {"op": "mirror"}]},
    "antialias": {"ops": [{"op": "resize", "short": 30}, {"op": "center_crop", "size": 24}]},
    "bent": {"ops": [{"op": "random_resized_crop", "size": 24}, {"op": "rotate", "degrees": 30}]},
    "views": {"ops": [{"op": "resize", "short": 30}, {"op": "ten_crop", "size": 24}]},
    "device": {
        "ops": [{"op": "resize", "size": 24}, {"op": "pca"}, {"op": "contrast"}],
        "colour_on": "device",
    },
    "upright": {"ops": [{"op": "random_resized_crop", "size": 24}], "exif": "apply"},
}


@pytest.mark.parametrize("name", RECIPES)
def test_rows_from_the_cache_are_the_rows_of_the_file(name: str) -> None:
    turned = {f"turned {turn}": photo(orientation=turn) for turn in range(2, 9)}
    for kind, data in {**KINDS, **turned}.items():
        with made_scene(is_checked=False) as scene:
            check_rows(scene, name, data, kind)


def check_rows(scene: Scene, name: str, data: bytes, kind: str) -> None:
    plain = {**RECIPES[name], "filter": "antialias" if name == "antialias" else "linear"}
    recipe, header = parse_recipe(plain), read_header(data)
    is_turned = recipe.exif == "apply" and header.orientation >= 5
    width, height = (HEIGHT, WIDTH) if is_turned else (WIDTH, HEIGHT)
    planner = planner_of(plain["ops"], **{k: v for k, v in plain.items() if k != "ops"})
    num, views = 4, planner.num_views
    sizes = np.full(num, width, np.int32), np.full(num, height, np.int32)
    plan = planner.plan(np.arange(num), np.zeros(num, np.int64), *sizes)
    row_plans, renderer = RowPlans(plan, 0, num * views), Renderer.of(recipe, (24, 24))
    scene.images.add(0, data, header)
    scene.publish()
    stored = scene.images.image(0)
    assert stored is not None
    has_colour = recipe.colour_on == "device"
    for row in range(num):
        rows = np.zeros((2, views, 24, 24, 3), np.uint8)
        colours = np.zeros((2, views, 3, 4), np.float32)
        colour_rows = colours if has_colour else (None, None)
        renderer.render_sample(data, header, row_plans, row * views, rows[0], colour_rows[0])
        renderer.render_decoded(stored, row_plans, row * views, rows[1], colour_rows[1])
        assert rows[0].any()
        assert np.array_equal(rows[0], rows[1]), kind
        assert np.array_equal(colours[0], colours[1]), kind


def test_rooms_are_filled_from_the_front_and_asked_for_once() -> None:
    with made_scene(is_checked=False, room_bytes=2 * aligned(IMAGE_BYTES) + 100) as scene:
        check_rooms(scene)


def check_rooms(scene: Scene) -> None:
    data = KINDS["jpeg"]
    header = read_header(data)
    for sample in range(2):
        assert scene.images.add(sample, data, header) is not None
    assert scene.images.add(2, data, header) is None, "100 bytes are left"
    news = scene.images.take_news()
    assert news is not None
    assert [one.offset for one in news.entries] == [ALIGNMENT, ALIGNMENT + aligned(IMAGE_BYTES)]
    assert news.wanted_bytes == IMAGE_BYTES
    assert scene.images.add(3, data, header) is None
    assert scene.images.take_news() is None, "asked for already"
    start = SIZE // 2
    scene.cache.add_room(Room(start, SIZE))
    assert scene.images.add(2, data, header) is not None
    news = scene.images.take_news()
    assert news is not None
    assert news.entries[0].offset == start
    assert not news.wanted_bytes


def test_what_does_not_decode_whole_takes_no_room_and_is_left_to_its_region(scene: Scene) -> None:
    data = bytearray(photo(quality=90))
    header = read_header(data)
    half = len(data) // 2 + 100
    data[half : half + 60] = b"\xff\xd9" * 30  # the scan ends in the middle
    with caught_noise():
        assert scene.images.add(0, data, header) is None
    sound = KINDS["jpeg"]
    assert scene.images.add(1, sound, header) is not None
    assert scene.publish() == [1]
    assert scene.images.find(np.array([1])) == [ALIGNMENT]
    assert scene.images.add(0, sound, header) is None, "it is not tried in every epoch"


@pytest.mark.parametrize("is_fresh", [True, False])
def test_old_images_are_believed_when_their_digest_is_right(is_fresh: bool) -> None:
    with made_scene(is_checked=True) as scene:
        check_digests(scene, is_fresh)


def check_digests(scene: Scene, is_fresh: bool) -> None:
    data = KINDS["jpeg"]
    for sample in (3, 4):
        scene.images.add(sample, data, read_header(data))
    scene.publish(is_fresh=is_fresh)
    os.pwrite(scene.fd, b"\xaa\x55", ALIGNMENT + IMAGE_BYTES // 2)
    assert scene.images.image(4) is not None
    found = scene.images.image(3)
    if is_fresh:
        assert found is not None, "nobody could have damaged it since"
    else:
        assert found is None
        scene.images.add(3, data, read_header(data))
        news = scene.images.take_news()
        assert news is not None
        assert news.entries[0].replaces
        write_record(scene.table, news.entries[0], 5)
        again = scene.images.image(3)
        assert again is not None
        assert np.array_equal(again.pixels, whole(data))
        there = scene.images.add(3, data, read_header(data))
        assert there is not None
        assert not there.pixels.flags.writeable, "it is there: nothing is decoded"
        assert scene.images.take_news() is None


@pytest.mark.parametrize(
    "record",
    [
        (SIZE - 64, WIDTH, HEIGHT, 1),
        (1 << 60, WIDTH, HEIGHT, 1),
        (-64, WIDTH, HEIGHT, 1),
        (64, -WIDTH, -HEIGHT, 1),
        (64, 2**31 - 1, 2**31 - 1, 1),
        (64, 0, HEIGHT, 1),
        (64, WIDTH, HEIGHT, 0),
        (64, WIDTH, HEIGHT, 9),
    ],
)
def test_whatever_a_table_says_no_view_leaves_the_cache(
    scene: Scene, record: tuple[int, int, int, int]
) -> None:
    offset, width, height, orientation = record
    packed = RECORD.pack(offset, 0, b"", width, height, orientation, 1, 0, 0)
    scene.table[TABLE_START : TABLE_START + RECORD.size] = packed
    assert scene.images.image(0) is None


IN_ONE_GO = {
    "linear": {"ops": [{"op": "random_resized_crop", "size": 24}, {"op": "mirror"}]},
    "antialias": {"ops": [{"op": "scale_jitter", "short": [26, 60], "crop": 24}]},
    "colours": {"ops": [{"op": "random_resized_crop", "size": 24}, {"op": "pca"}, {"op": "erase"}]},
    "device": {"ops": [{"op": "resize", "size": 24}, {"op": "contrast"}], "colour_on": "device"},
}


@pytest.mark.parametrize("name", IN_ONE_GO)
def test_rows_made_in_one_go_are_those_made_one_by_one(kernels: str, name: str) -> None:
    plain = {**IN_ONE_GO[name], "filter": "antialias" if name == "antialias" else "linear"}
    recipe, num = parse_recipe(plain), 8
    planner = planner_of(plain["ops"], **{k: v for k, v in plain.items() if k != "ops"})
    sizes = np.array([(WIDTH, HEIGHT)] * num, np.int32)
    plan = planner.plan(np.arange(num), np.zeros(num, np.int64), sizes[:, 0], sizes[:, 1])
    renderer, part = Renderer.of(recipe, (24, 24)), slice(3, 7)
    row_plans = RowPlans(plan, part.start, part.stop)
    if kernels == "none":
        assert not renderer.can_render_rows(plan)
        return
    assert renderer.can_render_rows(plan)
    with made_scene(is_checked=False) as scene:
        for sample in range(num):
            data = photo(orientation=1 + sample)
            scene.images.add(sample, data, read_header(data))
        scene.publish()
        places = scene.images.places(np.arange(num)[part])
        assert places is not None
        rows = np.zeros((2, 4, 24, 24, 3), np.uint8)
        colours = np.zeros((2, 4, 3, 4), np.float32)
        has_colour = recipe.colour_on == "device"
        renderer.render_rows(
            *(scene.images.pixels, places["offset"].copy(), places["size"].copy()),
            *(plan, part, row_plans, rows[0], colours[0] if has_colour else None),
        )
        for row in range(4):
            stored = scene.images.image(part.start + row)
            assert stored is not None
            colour_rows = colours[1][row : row + 1] if has_colour else None
            renderer.render_decoded(stored, row_plans, row, rows[1][row : row + 1], colour_rows)
        assert rows[0].any(axis=(1, 2, 3)).all()
        assert np.array_equal(rows[0], rows[1])
        assert np.array_equal(colours[0], colours[1])
        del places, stored


def test_old_images_are_not_made_in_one_go_before_their_digest_was_seen() -> None:
    with made_scene(is_checked=True) as scene:
        data = KINDS["jpeg"]
        for sample in range(3):
            scene.images.add(sample, data, read_header(data))
        scene.publish(is_fresh=False)
        ids = np.array([2, 0])
        assert scene.images.places(ids) is None
        for sample in ids.tolist():
            assert scene.images.image(sample) is not None
        assert scene.images.places(ids) is not None


GOOD = {
    "offset": 16,
    "size": (20, 10),
    "crop": (2, 3, 12, 7),
    "scaled": (6, 5),
    "window": (1, 1),
}


@pytest.mark.parametrize(
    "change",
    [
        {"offset": -1},
        {"offset": 1000},
        {"offset": 2**62},
        {"size": (20, 2**20)},
        {"size": (-20, -10)},
        {"size": (0, 10)},
        {"crop": (-1, 3, 12, 7)},
        {"crop": (2, 3, 19, 7)},
        {"crop": (2, 3, 12, 8)},
        {"crop": (2, 3, 0, 7)},
        {"crop": (2**31 - 1, 3, 2**31 - 1, 7)},
        {"scaled": (4, 5)},
        {"window": (-1, 1)},
        {"window": (3, 1)},
    ],
)
def test_the_kernel_looks_at_every_number(kernels: str, change: dict[str, object]) -> None:
    if kernels == "none":
        pytest.skip("there is no kernel")
    from augd.pixels.native import kernels as native

    cache = np.random.default_rng(0).integers(0, 256, 1000).astype(np.uint8)

    def run(*rows: dict[str, object]) -> NDArray[np.uint8]:
        out = np.zeros((len(rows), 4, 4, 3), np.uint8)
        types = {"offset": np.int64, "size": np.int32, "crop": np.int32}
        columns = [
            np.array([row[name] for row in rows], types.get(name, np.int32)) for name in GOOD
        ]
        no_flips, linear = np.zeros(len(rows), np.uint8), np.full(len(rows), LINEAR, np.uint8)
        native.resize_rows(cache.data, out, *columns, no_flips, linear)
        return out

    image = cache[16 : 16 + 600].reshape(10, 20, 3)
    alone = np.zeros((4, 4, 3), np.uint8)
    native.resize(image[3:10, 2:14], alone, 6, 5, 1, 1, 0, LINEAR)
    assert np.array_equal(run(GOOD)[0], alone)
    with pytest.raises(ValueError, match="row 1: expected an image in the cache, a crop of it"):
        run(GOOD, {**GOOD, **change})


def test_the_kernel_refuses_arrays_of_other_sizes(kernels: str) -> None:
    if kernels == "none":
        pytest.skip("there is no kernel")
    from augd.pixels.native import kernels as native

    out, one = np.zeros((2, 4, 4, 3), np.uint8), np.zeros(1, np.int64)
    two = [np.zeros((2, n), np.int32) for n in (2, 4, 2, 2)]
    flags = np.zeros(2, np.uint8)
    with pytest.raises(ValueError, match="expected 2 dense items of 8 bytes, got 8 bytes"):
        native.resize_rows(bytes(100), out, one, *two, flags, flags)
    with pytest.raises(ValueError, match=r"out: expected uint8 \(rows, h, w, 3\)"):
        native.resize_rows(bytes(100), out[0], one, *two, flags, flags)
    with pytest.raises(TypeError, match="resize_rows: expected 9 arguments, got 2"):
        native.resize_rows(bytes(100), out)
