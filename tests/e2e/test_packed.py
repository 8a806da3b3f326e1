"""`augd pack`, from the command to the batches, and what is left of it after a kill."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import augd
from augd.cli.pack import command as packing_command
from augd.cli.pack.command import pack
from augd.cli.pack.options import PackOptions
from augd.cli.pack.shard_writer import STATE_NAME
from augd.client.status import status as ask_status
from augd.dataset.index_arrays import IndexArrays
from augd.dataset.readers.open_source import open_source
from augd.dataset.scan.build_index import load_or_build
from augd.errors import AugdError, DatasetError, OptionError
from augd.pixels import native
from tests.support.commands import run_augd
from tests.support.processes import await_true, children_of, is_alive
from tests.support.scenes import (
    GROUPS,
    GROUPS_IN_PHASES,
    SMALL,
    make_folder,
    opencv_decodes,
    read_epoch,
)

pytestmark = pytest.mark.skipif(native.kernels is None, reason="packing is done by the kernels")

_EXIF = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"

RECIPES: dict[str, dict[str, Any]] = {
    "crops": SMALL,
    "scaled": {"ops": [{"op": "random_resized_crop", "size": 24}], "scaled_decode": "auto"},
    "windows": {"ops": [{"op": "scale_jitter", "short": [40, 200], "crop": 32}]},
    "views": {"ops": [{"op": "resize", "short": 60}, {"op": "ten_crop", "size": 24}]},
    "bent": {
        "ops": [{"op": "random_resized_crop", "size": 40}, {"op": "rotate", "degrees": 30}],
        "filter": "linear",
    },
    "bicubic": {
        "ops": [
            {"op": "random_resized_crop", "size": 40},
            {"op": "rotate", "degrees": 9, "p": 0.3},
        ],
        "filter": "bicubic",
    },
    "drawn filter": {
        "ops": [{"op": "scale_jitter", "short": [40, 200], "crop": 32}, {"op": "vertical_flip"}],
        "filter": "random",
    },
    "policy": {
        "ops": [{"op": "random_resized_crop", "size": 40}, {"op": "rand_augment", "layers": 3}],
        "fill": "constant",
    },
    "mixed": {"ops": [{"op": "random_resized_crop", "size": 24}, {"op": "aug_mix"}]},
    "letterbox": {"ops": [{"op": "resize", "longest": 40}, {"op": "mirror"}], "fill": "constant"},
    "upright": {
        "ops": [{"op": "random_resized_crop", "size": 24}],
        "exif": "apply",
        "scaled_decode": "auto",
    },
    "groups": GROUPS,
    "phases": GROUPS_IN_PHASES,
    "groups of scaled": {**GROUPS, "exif": "apply", "scaled_decode": "auto"},
}


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos large enough to have parts, of every kind, in class folders of two splits."""
    root = tmp_path_factory.mktemp("loose")
    for split in ("train", "val"):
        make_folder(root / split, num_classes=2, per_class=8, size_px=(241, 162))
    folder = root / "train" / "class0"
    photo = cv2.imread(str(folder / "0000.jpg"))
    cv2.imwrite(str(folder / "png.png"), photo)
    cv2.imwrite(str(folder / "progressive.jpg"), photo, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    cv2.imwrite(str(folder / "grey.v2.jpg"), cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY))
    plain = (folder / "0001.jpg").read_bytes()
    for turn in range(2, 9):
        exif = _EXIF + bytes((turn, 0, 0, 0, 0, 0, 0, 0))
        (folder / f"turned{turn}.JPEG").write_bytes(plain[:2] + exif + plain[2:])
    (folder / "broken.jpg").write_bytes(plain[: len(plain) // 2] + plain[-2:])
    (folder / "empty.jpg").touch()
    return root


@pytest.fixture(scope="module")
def packed(loose: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("packed") / "set"
    report = pack(str(loose), str(target), PackOptions())
    assert (report["num_samples"], report["num_shards"], report["num_shrunk"]) == (44, 2, 0)
    kept = {Path(one["path"]).name: one["reason"] for one in report["kept"]}
    assert kept.keys() == {"png.png", "broken.jpg", "empty.jpg"}
    assert kept["png.png"].startswith("PNG: ")
    assert "broken scan" in kept["broken.jpg"]
    assert not (target / STATE_NAME).exists()
    return target


@pytest.fixture(scope="module")
def daemon(loose: Path, packed: Path) -> Iterator[augd.Daemon]:
    with augd.serve({"loose": loose, "packed": packed}, producers=2) as daemon:
        yield daemon


def batches(daemon: augd.Daemon, dataset: str, **options: Any) -> list[dict[str, np.ndarray]]:
    arguments = {
        **{"batch_size": 12, "seed": 5, "max_bad_fraction": 1.0, "split": "all"},
        **options,
    }
    with augd.connect(daemon.address, dataset=dataset, **arguments) as stream:
        return [batch for epoch in range(2) for batch in read_epoch(stream, epoch)]


@pytest.mark.parametrize("name", RECIPES)
def test_packed_and_loose_photos_give_the_same_bytes(daemon: augd.Daemon, name: str) -> None:
    compare(daemon, name)


def test_without_kernels_they_do_so_too(loose: Path, packed: Path) -> None:
    with (
        opencv_decodes(),
        augd.serve({"loose": loose, "packed": packed}, producers=1) as daemon,
    ):
        for name in ("scaled", "windows", "bent"):
            compare(daemon, name)


def compare(daemon: augd.Daemon, name: str) -> None:
    one, other = (batches(daemon, it, recipe=RECIPES[name]) for it in ("loose", "packed"))
    assert len(one) == len(other) == 8
    for batch, twin in zip(one, other, strict=True):
        for part, array in batch.items():
            np.testing.assert_array_equal(array, twin[part])
    assert sum(int((~batch["valid"]).sum()) for batch in other) == 2 * 2, "broken and empty"


def test_selections_choose_the_same_samples(daemon: augd.Daemon) -> None:
    for options in ({"split": "val"}, {"classes": ["class1"], "limit": 9}, {"balance": "class"}):
        one, other = (
            [batch["ids"].tolist() for batch in batches(daemon, it, recipe=SMALL, **options)]
            for it in ("loose", "packed")
        )
        assert one == other


def test_a_run_goes_on_with_the_packed_set(loose: Path, packed: Path) -> None:
    """Its digest is that of its source, as its pixels are."""
    options: dict[str, Any] = {"recipe": SMALL, "batch_size": 12, "seed": 5, "max_bad_fraction": 1}
    with augd.serve({"set": loose}, producers=1) as daemon:
        with augd.connect(daemon.address, **options) as stream:
            whole = read_epoch(stream, 0)
        with augd.connect(daemon.address, **options) as stream:
            next(iter(stream.epoch(0)))
            state = stream.state_dict()
    with (
        augd.serve({"set": packed}, producers=1) as daemon,
        augd.connect(daemon.address, **options) as stream,
    ):
        stream.load_state_dict(state)
        rest = read_epoch(stream, 0)
    assert len(rest) == len(whole) - 1
    for batch, twin in zip(whole[1:], rest, strict=True):
        for part, array in batch.items():
            np.testing.assert_array_equal(array, twin[part])


def test_a_shard_is_an_ordinary_tar_of_ordinary_jpegs(loose: Path, packed: Path) -> None:
    assert json.loads((packed / "classes.json").read_text()) == ["class0", "class1"]
    with tarfile.open(packed / "train-000000.tar") as shard:
        names = shard.getnames()
        assert names[:2] == ["train/class0/0000.jpg", "train/class0/0000.cls"]
        content = shard.extractfile("train/class0/0000.jpg").read()  # type: ignore[union-attr]
        label = shard.extractfile("train/class1/0000.cls").read()  # type: ignore[union-attr]
        said = shard.extractfile("train/class0/grey_v2.json").read()  # type: ignore[union-attr]
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    plain = cv2.imread(str(loose / "train/class0/0000.jpg"))
    np.testing.assert_array_equal(found, plain)
    assert label == b"1"
    assert json.loads(said) == {"path": "train/class0/grey.v2.jpg"}, "a key ends at the first dot"


def test_views_look_at_packed_sets_as_at_folders(packed: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    for arguments, status in (
        (["check", packed], 1),
        (["preview", packed, "--out", sheet, "--recipe", "imagenet"], 0),
    ):
        done = run_augd(*arguments)
        assert done.returncode == status, done.stderr
    assert sheet.exists()


def test_a_changed_shard_is_refused_at_the_start(packed: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in packed.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    with (copied / "val-000000.tar").open("ab") as shard:
        shard.write(bytes(512))
    with pytest.raises(
        DatasetError, match=r"shard val-000000\.tar has changed: expected \d+ bytes"
    ):
        augd.serve({"set": copied}, producers=1)


def test_plain_tars_are_served_without_an_index(loose: Path, packed: Path, tmp_path: Path) -> None:
    root = tmp_path / "tars"
    root.mkdir()
    with tarfile.open(root / "photos.tar", "w") as shard:
        for number in range(6):
            name = f"class{number % 2}/{number:04}.jpg"
            shard.add(loose / "train" / name, name)
    with (
        augd.serve({"set": root}, producers=1) as daemon,
        augd.connect(daemon.address, recipe=SMALL, batch_size=6) as stream,
    ):
        (batch,) = read_epoch(stream, 0)
        assert list(stream.classes) == ["class0", "class1"]
    assert batch["valid"].all()
    assert batch["labels"].tolist() == (batch["ids"] % 2).tolist(), "as the members lie"


def test_an_own_op_that_fails_is_named_as_with_folders(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are planned before they are read: a failure there must not end the producer."""
    (tmp_path / "trips.py").write_text(
        "import augd\n"
        "class Trips(augd.Plugin):\n"
        "    def sample(self, rng, info):\n"
        "        raise ValueError('tripped')\n"
        "    def pixels(self, row, params):\n"
        "        pass\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    recipe = {"ops": [*SMALL["ops"], {"op": "trips"}]}
    with augd.serve({"set": packed}, producers=1, plugins=["trips"]) as daemon:
        failing = augd.connect(daemon.address, recipe=recipe, batch_size=12)
        with failing as stream, pytest.raises(augd.PluginFailed, match="sample raised ValueError"):
            next(stream.epoch(0))
        with augd.connect(
            daemon.address, recipe=SMALL, split="all", batch_size=12, max_bad_fraction=1
        ) as stream:
            assert len(read_epoch(stream, 0)) == 4
        assert ask_status(daemon.address)["restarts"] == 0


def test_a_manifest_is_packed_with_its_labels(loose: Path, tmp_path: Path) -> None:
    """Also files whose names say nothing of what they are, and several labels for each."""
    photo = (loose / "train/class0/0000.jpg").read_bytes()
    for name in ("a", "b.dat", "c.x.jpg"):
        (tmp_path / name).write_bytes(photo)
    rows = [("a", ["sun"], "val"), ("b.dat", [], "train"), ("c.x.jpg", ["sea", "sun"], "val")]
    lines = (json.dumps({"path": p, "labels": n, "split": s}) for p, n, s in rows)
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    report = pack(str(tmp_path / "list.jsonl"), str(tmp_path / "set"), PackOptions())
    assert (report["kept"], report["num_shards"]) == ([], 2)
    sources = {"one": tmp_path / "list.jsonl", "other": tmp_path / "set"}
    with augd.serve(sources, producers=1) as daemon:
        one, other = (
            batches(daemon, name, recipe=SMALL, split="val", shuffle=False) for name in sources
        )
        for batch, twin in zip(one, other, strict=True):
            assert batch["labels"].tolist() == [[0, 1], [1, 1]]
            for part, array in batch.items():
                np.testing.assert_array_equal(array, twin[part])
    (tmp_path / "set" / "augd.index").unlink()
    with closing(load_or_build(tmp_path / "set", cache_dir=tmp_path)) as walked:
        assert (walked.num_samples, walked.classes, walked.has_splits) == (3, ["sea", "sun"], True)


def test_shrunk_photos_are_another_dataset(loose: Path, tmp_path: Path) -> None:
    target = tmp_path / "small"
    report = pack(str(loose), str(target), PackOptions(short_side_px=100, quality=80))
    assert report["num_shrunk"] == 42
    with (
        closing(load_or_build(loose, cache_dir=tmp_path)) as source,
        closing(load_or_build(target, cache_dir=tmp_path)) as small,
    ):
        assert source.digest != small.digest
        assert small.first_size_px == (149, 100)


def test_what_cannot_be_meant_is_refused(loose: Path, packed: Path, tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    busy.mkdir()
    (busy / "thesis.tex").touch()
    for target, options, text in (
        (packed, PackOptions(), r"DST: .* is packed already\. Give another folder, or remove it"),
        (busy, PackOptions(), r"DST: expected an empty or a new folder, got"),
        (loose / "in", PackOptions(), r"DST: expected a folder outside of"),
        (tmp_path, PackOptions(quality=0), r"--quality: expected 1\.\.100, got 0"),
        (tmp_path, PackOptions(short_side_px=0), r"--short-side: expected 1\.\.65535, got 0"),
    ):
        with pytest.raises(OptionError, match=text):
            pack(str(loose), str(target), options)


def test_two_packers_do_not_share_a_target(loose: Path, tmp_path: Path) -> None:
    (tmp_path / "set" / STATE_NAME).mkdir(parents=True)
    held = os.open(tmp_path / "set" / STATE_NAME, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OptionError, match=r"DST: another augd pack is at work in"):
            pack(str(loose), str(tmp_path / "set"), PackOptions())
    finally:
        os.close(held)


def test_a_full_disk_is_named_and_the_packing_goes_on(many: Path, tmp_path: Path) -> None:
    target = tmp_path / "set"
    command = [sys.executable, "-m", "augd", "pack", str(many), str(target), "--shard-mb", "1"]
    limited = ["bash", "-c", 'ulimit -f 500; exec "$@"', "-", *command]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cannot be packed: [Errno 27] File too large" in done.stderr
    assert "Run the same command again to go on." in done.stderr
    assert not list(target.glob("*.tar"))
    assert pack(str(many), str(target), PackOptions(shard_mb=1))["num_samples"] == 32


def test_without_kernels_it_says_what_it_needs(
    loose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "kernels", None)
    with pytest.raises(OptionError, match=r"augd pack needs the native kernels.*augd doctor says"):
        pack(str(loose), str(tmp_path / "new"), PackOptions())


@pytest.mark.parametrize("size", ["1MiB", "16MB"])
def test_beside_a_cache_that_is_full_and_one_that_is_not(loose: Path, packed: Path, size) -> None:
    """Rows from the cache, from parts of photos and from whole ones, in one chunk."""
    with augd.serve({"packed": packed}, producers=1, cache=f"ram:{size}") as daemon:
        found = batches(daemon, "packed", recipe=SMALL) + batches(daemon, "packed", recipe=SMALL)
        cached = ask_status(daemon.address, 10)["cache"]
    with augd.serve({"packed": loose}, producers=1) as daemon:
        expected = batches(daemon, "packed", recipe=SMALL)
    for batch, twin in zip(found, expected + expected, strict=True):
        for part, array in batch.items():
            np.testing.assert_array_equal(array, twin[part])
    assert cached["hits"] and cached["misses"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of noise, which make several shards of one megabyte."""
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(2)
    for number in range(32):
        noise = rng.integers(0, 256, (240, 256, 3), np.uint8)
        cv2.imwrite(str(root / f"{number:03}.jpg"), noise, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return root


def shards_of(target: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in target.iterdir() if path.is_file()}


def test_a_killed_packing_goes_on_and_ends_alike(many: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = PackOptions(shard_mb=1, num_workers=2)
    report = pack(str(many), str(whole), options)
    assert report["num_shards"] >= 3
    command = [sys.executable, "-m", "augd", "pack", str(many), str(killed)]
    command += ["--shard-mb", "1", "--workers", "2"]
    packer = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        await_true(lambda: any(killed.glob("*.tar")), 60, "a first shard")
        workers = children_of(packer.pid)
    finally:
        packer.kill()
        packer.wait()
    await_true(lambda: not any(map(is_alive, workers)), 60, "the end of the packers")
    assert not (killed / "augd.index").exists()
    with pytest.raises(OptionError, match="was begun from another source, or with other options"):
        pack(str(many), str(killed), PackOptions(shard_mb=2))
    report = pack(str(many), str(killed), options)
    assert 0 < report["resumed"] <= report["num_samples"]  # all but the index, on a fast machine
    assert shards_of(killed) == shards_of(whole)


def test_a_photo_that_kills_what_looks_at_it_twice_stays_as_it_is(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes, in which one photo brings on a real SIGSEGV, and another a SIGKILL."""
    poison, worse = ((many / name).read_bytes() for name in ("005.jpg", "007.jpg"))
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        f"deaths = os.open({str(tmp_path / 'deaths')!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
        "def deadly(usual, of, size, number, word):\n"
        "    def look(*given):\n"
        "        if len(of(given)) == size:\n"
        "            os.write(deaths, word)\n"
        "            os.kill(os.getpid(), number)\n"
        "        return usual(*given)\n"
        "    return look\n"
        "if 'augd.cli.pack.transcode_process' in sys.orig_argv:\n"
        "    import augd.cli.pack.photo as it\n"
        "    it.pack_photo = deadly(it.pack_photo, lambda given: given[0],\n"
        f"        {len(poison)}, signal.SIGSEGV, b'x')\n"
        "if 'augd.cli.pack.workers' in sys.orig_argv:\n"
        "    import augd.cli.pack.transcode_process as it\n"
        "    it.Packer.pack = deadly(it.Packer.pack, lambda given: given[1],\n"
        f"        {len(worse)}, signal.SIGKILL, b'y')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    report = pack(str(many), str(tmp_path / "set"), PackOptions(shard_mb=1, num_workers=1))
    died = "the decoder died of it (SIGSEGV)"
    assert [(one["id"], one["reason"]) for one in report["kept"]] == [
        (5, died),
        (7, "the decoder died of it"),
    ]
    assert sorted((tmp_path / "deaths").read_text()) in (list("x" * n + "yy") for n in (2, 4, 6))
    with closing(load_or_build(tmp_path / "set", cache_dir=tmp_path)) as index:
        arrays = IndexArrays(index.fd, index.dims_fd)
        with open_source(arrays.root, arrays) as source:
            assert source.read(5) == poison and source.read(7) == worse


def test_a_source_that_changes_meanwhile_is_an_error(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "source"
    root.mkdir()
    for path in sorted(many.iterdir())[:4]:
        (root / path.name).write_bytes(path.read_bytes())

    def index_and_change(source: str, **options: Any) -> Any:
        opened = load_or_build(source, **options)
        (root / "002.jpg").write_bytes(b"another")
        return opened

    monkeypatch.setattr(packing_command, "load_or_build", index_and_change)
    with pytest.raises(AugdError, match=r"sample 2 \(002\.jpg\): changed since it was indexed"):
        pack(str(root), str(tmp_path / "target"), PackOptions())
