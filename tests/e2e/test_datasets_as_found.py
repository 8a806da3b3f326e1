"""Datasets as tools leave them, through a daemon: links, full paths, what is not read, shards."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import augd
from tests.support.commands import run_augd

RECIPE = {"ops": [{"op": "resize", "size": [8, 8]}]}


def put(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(shade))


def png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (12, 12), (shade, shade, shade)).save(out, "PNG")
    return out.getvalue()


def rows(address: str, dataset: str) -> list[tuple[int, int]]:
    """Shades and labels in the order of the index; -1 for a masked row."""
    with augd.connect(
        address, dataset=dataset, recipe=RECIPE, batch_size=16, shuffle=False, max_bad_fraction=1.0
    ) as stream:
        return [
            (int(image[0, 0, 0]) if is_real else -1, int(label))
            for batch in stream.epoch(0)
            for image, label, is_real in zip(batch.images, batch.labels, batch.valid, strict=True)
        ]


def test_links_and_lists_and_shards_of_one_daemon(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        put(tmp_path / "store" / f"{number:02x}", 10 * number)
        link = tmp_path / "hub" / "ab"[number % 2] / f"{number}.png"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../store/{number:02x}")
    (tmp_path / "hub" / "a" / "x.svg").write_text("<svg/>")
    lines = [f"{tmp_path}/store/{n:02x},{'yx'[n % 2]}\n" for n in range(4)]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(lines))
    members = [("0.seg.png", png(9)), ("0.png", png(50)), ("0.cls", b"1"), ("1.png", png(60)),
               ("1.json", b'{"label": 0, "score": NaN}')]  # fmt: skip
    (tmp_path / "shards" / "train").mkdir(parents=True)
    with tarfile.open(tmp_path / "shards" / "train" / "a.tar", "w") as shard:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    paths = {"hub": tmp_path / "hub", "list": tmp_path / "list.csv", "shards": tmp_path / "shards"}
    with augd.serve(paths, producers=1, links_to=tmp_path / "store", root=tmp_path) as daemon:
        assert rows(daemon.address, "hub") == [(0, 0), (20, 0), (10, 1), (30, 1)]
        assert rows(daemon.address, "list") == [(0, 1), (10, 0), (20, 1), (30, 0)]
        assert rows(daemon.address, "shards") == [(50, 1), (60, 0)]
        # Changed later, it leads nowhere else.
        (tmp_path / "secret").write_bytes(png(99))
        link = tmp_path / "hub" / "a" / "0.png"
        link.unlink()
        link.symlink_to("../../secret")
        assert rows(daemon.address, "hub")[0] == (-1, -100)
    said = capfd.readouterr().err
    assert "augd: hub: not read: 1 .svg (a/x.svg)" in said
    assert "augd: shards: not read: 1 .seg.png (a.tar/0.seg.png)" in said
    with pytest.raises(augd.DatasetError, match="--links-to DIR"):
        augd.serve(tmp_path / "hub", producers=0)


def test_check_tells_what_is_not_read(tmp_path: Path) -> None:
    put(tmp_path / "set" / "a" / "1.png", 1)
    for name in ("a/1.svg", "a/1.txt", "b.tar"):
        (tmp_path / "set" / name).write_bytes(b"x")
    done = run_augd("check", tmp_path / "set")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    at = lines.index("not read")
    assert lines[at + 1 : at + 4] == ["1 .svg: a/1.svg", "1 .tar: b.tar", "1 .txt: a/1.txt"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--links-to", "nowhere"), "--links-to: expected a folder, got 'nowhere'"),
        (("--root", "nowhere"), "--root: expected a folder, got 'nowhere'"),
        (("--max-pixels", "0"), "--max-pixels: expected a number of pixels, 1.."),
    ],
)
def test_options_that_cannot_be_are_one_line(
    tmp_path: Path, options: tuple[str, str], says: str
) -> None:
    put(tmp_path / "1.png", 1)
    done = run_augd("check", tmp_path, *options)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("augd: error: ") and says in line
