"""The cache as a producer sees it: pictures found, decoded into rooms, and never half believed."""

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

from augd.pixelcache import CachedPictures, PixelCache
from augd.pixels.decode import decode
from augd.pixels.header import read_header
from augd.pixels.outline import Outlines
from augd.pixels.render import Renderer
from augd.plan.recipe import parse_recipe
from augd.transport.arena import make_arena
from augd.wire.cache import (
    ALIGNMENT,
    RECORD,
    TABLE_START,
    age_record,
    aligned,
    table_bytes,
    write_record,
)
from augd.wire.messages import CacheRoom, UseCache
from tests.plans import planner_of
from tests.scenes import EITHER_KERNELS, caught_noise

pytestmark = EITHER_KERNELS

SIZE = 1 << 18
NUM_SAMPLES = 16
WIDTH, HEIGHT = 61, 47
PICTURE = WIDTH * HEIGHT * 3


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
    pictures: CachedPictures
    table: memoryview
    fd: int

    def publish(self, *, is_fresh: bool = True) -> list[int]:
        """Write the records of what the producer tells of."""
        news = self.pictures.take_news()
        entries = news.entries if news else ()
        for entry in entries:
            write_record(self.table, entry, 5)
            if not is_fresh:
                age_record(self.table, entry.sample)
        return [entry.sample for entry in entries]

    def found(self) -> list[int]:
        places = self.pictures.find(np.arange(NUM_SAMPLES))
        return [sample for sample, place in enumerate(places) if place]


@contextmanager
def made_scene(*, is_checked: bool, room_bytes: int = SIZE - ALIGNMENT) -> Iterator[Scene]:
    fd = make_arena("test", SIZE)
    table_fd = os.memfd_create("test")
    os.ftruncate(table_fd, table_bytes(NUM_SAMPLES))
    cache = PixelCache(fd, UseCache(SIZE, is_checked))
    cache.add_room(CacheRoom(ALIGNMENT, ALIGNMENT + room_bytes))
    table = memoryview(mmap.mmap(table_fd, table_bytes(NUM_SAMPLES)))
    pictures = CachedPictures(cache, "photos", table_fd, NUM_SAMPLES)
    os.close(table_fd)
    scene = Scene(cache, pictures, table, fd)
    del cache, pictures, table
    yield scene
    os.close(fd)
    del scene.cache, scene.pictures, scene.table  # each mapping has an fd of its own


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


def test_a_picture_is_found_when_the_daemon_heard_of_it(scene: Scene) -> None:
    for sample, data in enumerate(KINDS.values()):
        added = scene.pictures.add(sample, bytearray(data), read_header(data))
        assert added is not None
        assert np.array_equal(added.pixels, whole(data))
    assert scene.found() == []
    assert scene.publish() == scene.found() == list(range(len(KINDS)))
    assert scene.publish() == [], "told once"
    for sample, data in enumerate(KINDS.values()):
        found = scene.pictures.picture(sample)
        assert found is not None
        assert np.array_equal(found.pixels, whole(data))
        assert (found.width, found.height) == (WIDTH, HEIGHT)
        assert found.orientation == read_header(data).orientation
        assert not found.pixels.flags.writeable
        assert not found.pixels.flags.owndata, "a view of the cache"


def test_padding_is_never_found(scene: Scene) -> None:
    data = KINDS["jpeg"]
    scene.pictures.add(NUM_SAMPLES - 1, data, read_header(data))
    scene.publish()
    assert scene.pictures.find(np.array([-1, NUM_SAMPLES - 1, -1]))[::2] == [0, 0]


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
    outlines, renderer = Outlines(plan, 0, num * views), Renderer.of(recipe, (24, 24))
    scene.pictures.add(0, data, header)
    scene.publish()
    stored = scene.pictures.picture(0)
    assert stored is not None
    has_colour = recipe.colour_on == "device"
    for row in range(num):
        rows = np.zeros((2, views, 24, 24, 3), np.uint8)
        colours = np.zeros((2, views, 3, 4), np.float32)
        tints = colours if has_colour else (None, None)
        renderer.render_sample(data, header, outlines, row * views, rows[0], tints[0])
        renderer.render_decoded(stored, outlines, row * views, rows[1], tints[1])
        assert rows[0].any()
        assert np.array_equal(rows[0], rows[1]), kind
        assert np.array_equal(colours[0], colours[1]), kind


def test_rooms_are_filled_from_the_front_and_asked_for_once() -> None:
    with made_scene(is_checked=False, room_bytes=2 * aligned(PICTURE) + 100) as scene:
        check_rooms(scene)


def check_rooms(scene: Scene) -> None:
    data = KINDS["jpeg"]
    header = read_header(data)
    for sample in range(2):
        assert scene.pictures.add(sample, data, header) is not None
    assert scene.pictures.add(2, data, header) is None, "100 bytes are left"
    news = scene.pictures.take_news()
    assert news is not None
    assert [one.offset for one in news.entries] == [ALIGNMENT, ALIGNMENT + aligned(PICTURE)]
    assert news.wanted_bytes == PICTURE
    assert scene.pictures.add(3, data, header) is None
    assert scene.pictures.take_news() is None, "asked for already"
    start = SIZE // 2
    scene.cache.add_room(CacheRoom(start, SIZE))
    assert scene.pictures.add(2, data, header) is not None
    news = scene.pictures.take_news()
    assert news is not None
    assert news.entries[0].offset == start
    assert not news.wanted_bytes


def test_what_does_not_decode_whole_takes_no_room_and_is_left_to_its_region(scene: Scene) -> None:
    data = bytearray(photo(quality=90))
    header = read_header(data)
    half = len(data) // 2 + 100
    data[half : half + 60] = b"\xff\xd9" * 30  # the scan ends in the middle
    with caught_noise():
        assert scene.pictures.add(0, data, header) is None
    sound = KINDS["jpeg"]
    assert scene.pictures.add(1, sound, header) is not None
    assert scene.publish() == [1]
    assert scene.pictures.find(np.array([1])) == [ALIGNMENT]
    assert scene.pictures.add(0, sound, header) is None, "it is not tried in every epoch"


@pytest.mark.parametrize("is_fresh", [True, False])
def test_old_pictures_are_believed_when_their_digest_is_right(is_fresh: bool) -> None:
    with made_scene(is_checked=True) as scene:
        check_digests(scene, is_fresh)


def check_digests(scene: Scene, is_fresh: bool) -> None:
    data = KINDS["jpeg"]
    for sample in (3, 4):
        scene.pictures.add(sample, data, read_header(data))
    scene.publish(is_fresh=is_fresh)
    os.pwrite(scene.fd, b"\xaa\x55", ALIGNMENT + PICTURE // 2)
    assert scene.pictures.picture(4) is not None
    found = scene.pictures.picture(3)
    if is_fresh:
        assert found is not None, "nobody could have damaged it since"
    else:
        assert found is None
        scene.pictures.add(3, data, read_header(data))
        news = scene.pictures.take_news()
        assert news is not None
        assert news.entries[0].replaces
        write_record(scene.table, news.entries[0], 5)
        again = scene.pictures.picture(3)
        assert again is not None
        assert np.array_equal(again.pixels, whole(data))
        scene.pictures.add(3, data, read_header(data))
        told = scene.pictures.take_news()
        assert told is not None
        assert not told.entries[0].replaces, "only what was found damaged"


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
    assert scene.pictures.picture(0) is None
