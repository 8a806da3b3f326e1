"""A cache of decoded images, end to end: the same bytes, no file read twice, found again."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import augd
from augd.client.status import status as ask_status
from augd.errors import OptionError, OverLimit
from tests.hostile.images import hostile_images
from tests.support.commands import run_augd
from tests.support.processes import await_true
from tests.support.programs import follow
from tests.support.scenes import GROUPS, PHASES, SMALL, make_folder

CROP = {"op": "random_resized_crop", "size": 32}
RECIPES: dict[str, Any] = {
    "small": SMALL,
    "antialias": {"ops": [{"op": "scale_jitter", "short": [36, 60], "crop": 32}]},
    "views": {"ops": [{"op": "resize", "short": 40}, {"op": "ten_crop", "size": 32}]},
    "bent": {"ops": [CROP, {"op": "rotate", "degrees": 20}, {"op": "lens"}]},
    "drawn filter": {"ops": [CROP, {"op": "mirror"}, {"op": "vertical_flip"}], "filter": "random"},
    "bent, bicubic": {"ops": [CROP, {"op": "rotate", "degrees": 20}], "filter": "bicubic"},
    "letterbox": {"ops": [{"op": "resize", "longest": 32}, {"op": "pca"}], "fill": "constant"},
    "device": {"ops": [CROP, {"op": "contrast"}], "colour_on": "device", "exif": "apply"},
    "groups": {**GROUPS, "exif": "apply"},
    "phases": PHASES,
}
SCALED = {"ops": [{"op": "resize", "size": 16}], "scaled_decode": "auto"}
NUM = 60
OPTIONS = {"batch_size": 8, "verify": True, "timeout_s": 30}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=NUM // 2)


def read(
    folder: Path,
    cache: str | None,
    recipes: dict[str, Any],
    *,
    epochs: int = 2,
    before_last: Callable[[], object] = lambda: None,
    **options: Any,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Read epochs of each recipe from a daemon; returns their bytes' digests and the cache."""
    found = {}
    with augd.serve(folder, producers=2, cache=cache) as daemon:
        for name, recipe in recipes.items():
            with augd.connect(daemon.address, recipe=recipe, **{**OPTIONS, **options}) as stream:
                found[name] = follow(stream, epochs - 1)
            before_last()
            with augd.connect(daemon.address, recipe=recipe, **{**OPTIONS, **options}) as stream:
                found[name] += follow(stream, 1, first=epochs - 1)
        return found, ask_status(daemon.address, 10)["cache"]


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Any]:
    """What two epochs of each recipe give without a cache."""
    found, nothing = read(folder, None, {**RECIPES, "scaled": SCALED})
    assert nothing is None
    return found


@pytest.fixture(scope="module")
def filled(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache on disk that a daemon filled and left."""
    cache = tmp_path_factory.mktemp("filled") / "c"
    read(folder, f"disk:{cache}:16MB", {"small": SMALL})
    return cache


@pytest.fixture
def on_disk(filled: Path, tmp_path: Path) -> str:
    """A copy of it, to be damaged."""
    shutil.copytree(filled, tmp_path / "c")
    return f"disk:{tmp_path}/c:16MB"


def hits_of_last_epoch(folder: Path, cache: str, recipe: Any = SMALL) -> tuple[int, int]:
    """Return how many rows of a second epoch came from the cache, and how many did not."""
    with augd.serve(folder, producers=2, cache=cache) as daemon:
        seen = []
        for epoch in range(2):
            with augd.connect(daemon.address, recipe=recipe, prefetch=1, **OPTIONS) as stream:
                for batch in stream.epoch(epoch):
                    del batch
            # What was made ahead of the stream's end counts, too.
            await_true(
                lambda: (
                    not any(one["leases"] for one in ask_status(daemon.address, 10)["producers"])
                ),
                10,
                "nothing is made any more",
            )
            cached = ask_status(daemon.address, 10)["cache"]
            seen.append((cached["hits"], cached["misses"]))
        return seen[1][0] - seen[0][0], seen[1][1] - seen[0][1]


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_every_recipe_gives_the_same_bytes_with_and_without(
    folder, undisturbed, tmp_path, kind
) -> None:
    where = "ram:16MB" if kind == "ram" else f"disk:{tmp_path}/c:16MB"
    with_cache, cache = read(folder, where, RECIPES)
    assert with_cache == {name: undisturbed[name] for name in RECIPES}
    assert cache is not None
    assert (cache["kind"], cache["entries"]) == (kind, NUM)
    assert cache["hits"] > 2 * NUM * (len(RECIPES) - 1), "filled by the first recipe, used by all"


@pytest.mark.clause("P-153")
def test_after_the_first_epoch_every_row_is_from_the_cache(folder) -> None:
    hits, misses = hits_of_last_epoch(folder, "ram:16MB")
    assert misses == 0
    assert hits >= NUM


@pytest.mark.clause("P-153")
def test_a_plan_that_chooses_the_scale_of_decoding_leaves_the_cache_alone(
    folder, undisturbed
) -> None:
    with_cache, cache = read(folder, "ram:16MB", {"scaled": SCALED})
    assert with_cache["scaled"] == undisturbed["scaled"]
    assert cache is not None
    assert cache["hits"] == cache["misses"] == cache["entries"] == 0


def test_a_full_cache_keeps_what_it_has_and_changes_no_byte(folder) -> None:
    with_cache, cache = read(folder, "ram:1.1MB", {"small": SMALL}, epochs=4)
    without, _ = read(folder, None, {"small": SMALL}, epochs=4)
    assert with_cache == without
    assert cache is not None
    assert 10 < cache["entries"] <= NUM
    assert cache["filled_bytes"] <= cache["capacity_bytes"] == 268 * 4096


def test_hostile_images_have_the_same_verdicts_and_bytes(tmp_path: Path) -> None:
    """Damage outside the region that is decoded is not looked at, by a cache neither."""
    folder = make_folder(tmp_path / "set", num_classes=0, per_class=10)
    for image in hostile_images():
        # A bomb's header is refused in the same way; its bytes make the test slow.
        if len(image.data) < 200_000:
            (folder / image.file_name).write_bytes(image.data)
    recipes = {"small": SMALL}
    options = {"max_bad_fraction": 1.0, "epochs": 2}
    with_cache, cache = read(folder, "ram:400MB", recipes, **options)
    without, _ = read(folder, None, recipes, **options)
    assert with_cache == without
    assert cache is not None
    assert cache["hits"] > 0


def test_a_cache_on_disk_is_found_again(folder, undisturbed, on_disk) -> None:
    again, cache = read(folder, on_disk, {"small": SMALL})
    assert again["small"] == undisturbed["small"]
    assert cache is not None
    assert (cache["entries"], cache["misses"]) == (NUM, 0), "from the first row on"


def test_damage_on_disk_is_found_and_mended(folder, undisturbed, on_disk, tmp_path) -> None:
    pixels = tmp_path / "c" / "augd.pixels"
    content = bytearray(pixels.read_bytes())
    content[:500_000] = bytes(500_000)  # as a loss of power leaves pages that were not written
    pixels.write_bytes(content)
    for expected in ("some", "none"):
        again, cache = read(folder, on_disk, {"small": SMALL})
        assert again["small"] == undisturbed["small"]
        assert cache is not None
        assert cache["entries"] == NUM
        assert bool(cache["misses"]) == (expected == "some")


def test_a_table_of_nonsense_is_made_anew(folder, undisturbed, on_disk, tmp_path) -> None:
    (table,) = (tmp_path / "c").glob("augd-*.table")
    size = table.stat().st_size
    table.write_bytes(table.read_bytes()[:4096] + os.urandom(size - 4096))
    again, cache = read(folder, on_disk, {"small": SMALL})
    assert again["small"] == undisturbed["small"]
    assert cache is not None
    assert cache["entries"] == NUM


def test_what_is_cached_outlives_its_file_while_the_daemon_lives(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set", num_classes=0, per_class=20)

    def lose_files() -> None:
        for path in folder.glob("000*.jpg"):
            path.unlink()

    recipes = {"small": SMALL}
    undisturbed, _ = read(folder, None, recipes)
    with_cache, _ = read(folder, "ram:16MB", recipes, before_last=lose_files)
    assert with_cache == undisturbed


def test_two_data_sets_share_a_cache(folder, tmp_path) -> None:
    other = make_folder(tmp_path / "other", num_classes=0, per_class=20, size_px=(50, 70))
    with augd.serve({"a": folder, "b": other}, producers=2, cache="ram:16MB") as daemon:
        for _ in range(2):
            for name in ("a", "b"):
                with augd.connect(daemon.address, dataset=name, recipe=SMALL, **OPTIONS) as stream:
                    assert sum(int(batch.valid.sum()) for batch in stream.epoch(0)) in (20, NUM)
        cache = ask_status(daemon.address, 10)["cache"]
    assert cache["entries"] == 20 + NUM


def test_it_is_refused_at_the_start_when_it_cannot_be(folder, tmp_path) -> None:
    with pytest.raises(OptionError, match="--cache: expected a size as 800MB"):
        augd.serve(folder, cache="ram:lots")
    free_tb = shutil.disk_usage(tmp_path).free // 10**12 + 2
    with pytest.raises(OverLimit, match=r"MB are asked for, \d+ MB can be given by the disk"):
        augd.serve(folder, cache=f"disk:{tmp_path}/c:{free_tb}TB")


def test_status_and_bench_say_what_came_from_it(folder) -> None:
    command = [sys.executable, "-m", "augd", "bench", str(folder), "--producers", "1"]
    command += ["--seconds", "0.5", "--batch-size", "16", "--cache", "ram:16MB"]
    plain = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert f"cache (ram): {NUM} images, 0.00 of 0.02 GB; " in plain.stdout
    with augd.serve(folder, producers=1, cache="ram:16MB") as daemon:
        shown = run_augd("status", daemon.address)
    assert "cache (ram): 0 images, 0.00 of 0.02 GB\n" in shown.stdout


def test_a_disk_cache_of_shards_that_were_written_again_is_not_believed(tmp_path: Path) -> None:
    """Same names, same sizes, other pixels: only the shard's time tells."""
    shards = tmp_path / "set"
    shards.mkdir()

    def write(level: int) -> None:
        image = io.BytesIO()
        Image.new("RGB", (24, 24), (level, level, level)).save(image, "PNG", compress_level=0)
        with tarfile.open(shards / "a.tar", "w") as tar:
            for number in range(8):
                member = tarfile.TarInfo(f"grey/{number}.png")
                member.size = len(image.getvalue())
                tar.addfile(member, io.BytesIO(image.getvalue()))

    def levels() -> set[int]:
        recipe = {"ops": [{"op": "resize", "size": 16}]}
        with (
            augd.serve(shards, producers=1, cache=f"disk:{tmp_path}/c:1MiB") as daemon,
            augd.connect(daemon.address, recipe=recipe, **OPTIONS) as stream,
        ):
            return {int(level) for batch in stream.epoch(0) for level in set(batch.images.flat)}

    write(10)
    assert levels() == {10}
    write(200)
    assert levels() == {200}
