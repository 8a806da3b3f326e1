"""Every format that is read, served by a confined producer; what of it is part of a content."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

import augd
from augd.cli.check import check
from augd.cli.pack.command import pack
from augd.cli.pack.options import PackOptions
from augd.client.status import status
from augd.dataset.decoder_packages import package_formats
from augd.dataset.scan.build_index import load_or_build
from augd.pixels import native
from augd.plan.recipe.op_catalogue import BUILT_IN
from augd.server.daemon.broker.dataset_facts import relevant
from augd.server.dashboard.sample_viewer import ViewRequest
from augd.server.dashboard.sample_viewer_main import OpenSamples
from tests.support.scenes import caught_noise, make_folder, read_epoch

RECIPE = {"ops": [{"op": "center_crop", "size": 32}], "filter": "linear"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "00.jpe": ("JPEG", {}),
    "01.jfif": ("JPEG", {}),
    "02.BMP": ("BMP", {}),
    "03.tif": ("TIFF", {}),
    "04.tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "05.gif": ("GIF", {}),
}
if features.check("avif"):
    KINDS["06.avif"] = ("AVIF", {})
if find_spec("pillow_heif"):
    import pillow_heif

    pillow_heif.register_heif_opener()
    KINDS["07.HEIC"] = ("HEIF", {})
if find_spec("pillow_jxl"):
    import pillow_jxl  # noqa: F401 - importing it registers it

    KINDS["08.jxl"] = ("JXL", {"lossless": True})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("formats") / "mixed"
    (root / "a").mkdir(parents=True)
    draw = np.random.default_rng(9)
    for name, (kind, options) in KINDS.items():
        small = Image.fromarray(draw.integers(0, 256, (5, 5, 3)).astype(np.uint8))
        small.resize((32, 32), Image.Resampling.BICUBIC).save(root / "a" / name, kind, **options)
    return root


@pytest.fixture(scope="module")
def daemon(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[augd.ServedDaemon]:
    plain = make_folder(tmp_path_factory.mktemp("plain") / "set", num_classes=1, per_class=2)
    with augd.serve({"mixed": folder, "plain": plain}, producers=1) as daemon:
        yield daemon


def test_every_format_is_served_by_a_confined_producer(
    daemon: augd.ServedDaemon, folder: Path
) -> None:
    with augd.connect(
        daemon.address, dataset="mixed", recipe=RECIPE, batch_size=16, shuffle=False
    ) as stream:
        (batch,) = read_epoch(stream, 0)
    images, valid = batch["images"], batch["valid"]
    for row, name in enumerate(KINDS):
        with Image.open(folder / "a" / name) as opened:
            right = np.asarray(opened.convert("RGB")).astype(int)
        assert valid[row], name
        assert np.abs(images[row].astype(int) - right).max() <= 2, name
    (producer,) = status(daemon.address)["producers"]
    with closing(load_or_build(str(folder))) as index:
        assert index.num_samples == len(KINDS)
    assert producer["state"] == "ready"
    code = "from augd.process.sandbox import confine; print(confine())"
    holds = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert producer["confinement"] == holds.stdout.strip()


def test_decoders_are_part_of_the_content_of_sets_that_take_them_alone(
    daemon: augd.ServedDaemon,
) -> None:
    fields = {}
    for name in ("mixed", "plain"):
        with augd.connect(daemon.address, dataset=name, recipe=RECIPE, batch_size=2) as stream:
            fields[name] = stream.state_dict()["content"]
    own = {name for name in fields["mixed"] if name.startswith("environment.decoder.")}
    kinds = {"07.HEIC": "heic", "08.jxl": "jxl"}
    assert own == {f"environment.decoder.{of}" for name, of in kinds.items() if name in KINDS}
    assert not any("decoder" in name for name in fields["plain"])
    assert fields["mixed"].keys() - own == fields["plain"].keys()


def test_check_reads_them_all(folder: Path) -> None:
    report = check(str(folder))
    assert report["bad"] == [] and report["num_samples"] == len(KINDS)
    assert {"jpeg", "bmp", "tiff", "gif"} <= report["formats"].keys()


def test_the_page_shows_each(folder: Path) -> None:
    with caught_noise(), closing(load_or_build(str(folder))) as index:
        bench = OpenSamples(BUILT_IN)
        bench.add("mixed", os.dup(index.fd), os.dup(index.dims_fd))
        try:
            for sample, name in enumerate(KINDS):
                answer = bench.answer(ViewRequest("mixed", sample))
                assert answer.jpeg.startswith(b"\xff\xd8"), (name, answer.why)
        finally:
            for renderer in bench._renderers.values():
                renderer.close()
            bench._indexes["mixed"].close()


@pytest.mark.skipif(native.kernels is None, reason="augd pack takes the native kernels")
def test_packed_they_give_the_same_rows(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(folder, source)
    whole = (source / "a" / "00.jpe").read_bytes()
    (source / "a" / "09.jpg").write_bytes(whole[:-2])  # without its end marker
    report = pack(str(source), str(tmp_path / "packed"), PackOptions(num_workers=1))
    assert {one["path"] for one in report["kept"]} == {f"a/{name}" for name in KINDS} - {
        "a/00.jpe",
        "a/01.jfif",
    }
    made = []
    with augd.serve({"s": source, "p": tmp_path / "packed"}, producers=1) as daemon:
        for name in ("s", "p"):
            with augd.connect(
                daemon.address, dataset=name, recipe=RECIPE, batch_size=16, shuffle=False
            ) as stream:
                (batch,) = read_epoch(stream, 0)
                assert batch["valid"][: len(KINDS) + 1].all()
                made.append(batch["images"])
    assert np.array_equal(*made)
    assert np.array_equal(made[0][0], made[0][len(KINDS)])


def test_an_index_tells_which_formats_take_packages(tmp_path: Path) -> None:
    def formats_of(*names: str) -> set[str]:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        root.mkdir()
        for name in names:
            (root / name).write_bytes(b"x")
        with closing(load_or_build(str(root))) as index:
            return set(package_formats(index.fd))

    assert formats_of("a.jpg", "b.png", "c.gif") == set()
    assert formats_of("a.heic.jpg", "b.jxl.png") == set()  # called so, and no such file
    assert formats_of("a.jpg", "b.HEIC") == {"heic"}
    assert formats_of("a.hif", "b.heif", "c.jxl") == {"heic", "jxl"}
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "0001").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    (bare / "0002").write_bytes(b"\xff\xd8\xff" + bytes(99))
    with closing(load_or_build(str(bare))) as index:
        assert package_formats(index.fd) == {"heic"}


def test_who_has_a_decoder_that_nobody_needs_is_no_matter() -> None:
    has = {"opencv": "5", "decoder.heic": "pillow-heif 1", "decoder.jxl": "none"}
    assert relevant(has, ()) == {"opencv": "5"}
    assert relevant(has, {"decoder.heic"}) == {"opencv": "5", "decoder.heic": "pillow-heif 1"}
