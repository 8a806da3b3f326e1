"""All hostile images in one folder among good photos: a real daemon, real producers."""

from __future__ import annotations

import os
import re
import resource
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import augd
from augd.cli.check import check
from augd.client.status import StatusClient
from tests.hostile.images import JPEG, Hostile, Verdict, hostile_images
from tests.support.processes import await_true, num_fds, producers_of
from tests.support.scenes import SMALL, make_folder

IMAGES = {one.file_name: one for one in hostile_images()}
BAD = [one for one in IMAGES.values() if one.verdict is not Verdict.GOOD]
# The whole image, so that no damage lies outside what is decoded.
WHOLE = {"ops": [{"op": "resize", "size": [32, 32]}], "filter": "linear"}
BATCH = 4
# A producer's own 100 MB, one image of 60 megapixels (180 MB), and as much again to spare.
MAX_PRODUCER_BYTES = 480 << 20


@dataclass
class Folders:
    """The hostile folder, and one with harmless files of the same names."""

    hostile: Path
    harmless: Path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    made = Folders(tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("harmless"))
    photos = make_folder(tmp_path_factory.mktemp("photos"), num_classes=0, per_class=20)
    for number, photo in enumerate(sorted(photos.iterdir())):
        for folder in (made.hostile, made.harmless):
            # After every eighth hostile one, by name.
            (folder / f"{8 * number:03}-photo.jpg").write_bytes(photo.read_bytes())
    for name, one in IMAGES.items():
        (made.hostile / name).write_bytes(one.data)
        (made.harmless / name).write_bytes(one.like or JPEG)
    _add_what_is_no_file(made.hostile)
    return made


def _add_what_is_no_file(folder: Path) -> None:
    """Things of an image's name that are no samples, and of which none may block the scan."""
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "inside.jpg").write_bytes(JPEG)
    os.mkfifo(folder / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.jpg"))


@pytest.fixture(scope="module")
def daemon(folders: Folders) -> Iterator[augd.ServedDaemon]:
    sets = {"hostile": folders.hostile, "harmless": folders.harmless}
    with augd.serve(sets, producers=2) as served:
        yield served


def rows(address: str, dataset: str, recipe: Any, **options: Any) -> list[dict[str, Any]]:
    """Read an epoch in the order of the paths: a dict per row."""
    found = []
    with augd.connect(
        address,
        dataset=dataset,
        recipe=recipe,
        batch_size=BATCH,
        shuffle=False,
        max_bad_fraction=1.0,
        prefetch=1,
        timeout_s=30,
        **options,
    ) as stream:
        inquirer = StatusClient(address)
        try:
            for batch in stream.epoch(0):
                (status,) = inquirer.status()["streams"]
                named = {path: reason for _, path, reason in status["last_bad"]}
                for row in range(len(batch)):
                    found.append(
                        {
                            "id": int(batch.ids[row]),
                            "image": batch.images[row].copy(),
                            "valid": bool(batch.valid[row]),
                            "label": int(batch.labels[row]),
                            "named": named,
                            "num_bad": status["bad"],
                        }
                    )
        finally:
            inquirer.close()
    return found


# A producer opens a dataset, and keeps it open, when it first has to do with it.
_FDS_OF_A_SET = 4
assert len(BAD) > 4 * _FDS_OF_A_SET  # one that each bad image leaves open is seen


def test_every_row_has_its_verdict_and_its_neighbours_are_as_ever(folders, daemon) -> None:
    names = sorted(path.name for path in folders.harmless.iterdir())
    producers = producers_of(daemon.pid)
    assert len(producers) == 2
    for pid in producers:
        resource.prlimit(pid, resource.RLIMIT_DATA, (MAX_PRODUCER_BYTES, MAX_PRODUCER_BYTES))
    harmless = rows(daemon.address, "harmless", WHOLE)
    most_fds = max(map(num_fds, producers)) + _FDS_OF_A_SET
    hostile = rows(daemon.address, "hostile", WHOLE)
    assert [row["id"] for row in hostile] == [row["id"] for row in harmless]
    assert [row["id"] for row in hostile] == list(range(len(names)))
    reasons = {path: why for row in hostile for path, why in row["named"].items()}
    for name, row, clean in zip(names, hostile, harmless, strict=True):
        _check_row(name, row, clean, reasons.get(name))
    assert set(reasons) == {one.file_name for one in BAD}
    # Rows of the next epoch may be made by then, and are counted, too.
    assert len(BAD) <= hostile[-1]["num_bad"] < 2 * len(BAD)
    # The same two processes made all of it, within bounds, and hold nothing.
    assert producers_of(daemon.pid) == producers
    await_true(lambda: max(map(num_fds, producers)) <= most_fds, 5.0, f"{most_fds} descriptors")
    for pid in producers:
        assert _peak_bytes(pid) < MAX_PRODUCER_BYTES


def _check_row(name: str, row: dict[str, Any], clean: dict[str, Any], why: str | None) -> None:
    one: Hostile | None = IMAGES.get(name)
    assert clean["valid"], name
    if one is None or one.verdict is Verdict.GOOD:
        assert row["valid"] and row["label"] == -1 and why is None, (name, why)
        assert np.array_equal(row["image"], clean["image"]), name
    else:
        assert not row["valid"] and row["label"] == -100 and not row["image"].any(), name
        assert why is not None and re.search(one.reason, why), (name, why)


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


def test_random_crops_of_photos_are_untouched_by_their_neighbours(folders, daemon) -> None:
    names = sorted(path.name for path in folders.harmless.iterdir())
    hostile = rows(daemon.address, "hostile", SMALL, seed=5)
    harmless = rows(daemon.address, "harmless", SMALL, seed=5)
    for name, row, clean in zip(names, hostile, harmless, strict=True):
        if name not in IMAGES or IMAGES[name].verdict is Verdict.GOOD:
            assert row["valid"] and np.array_equal(row["image"], clean["image"]), name


def test_check_says_the_same_of_every_file(folders) -> None:
    bad = {one["path"]: one["reason"] for one in check(str(folders.hostile))["bad"]}
    assert set(bad) == {one.file_name for one in BAD}
    for name, reason in bad.items():
        assert re.search(IMAGES[name].reason, reason), (name, reason)


def test_fail_names_the_file_and_the_reason(daemon) -> None:
    with (
        pytest.raises(augd.SampleFailed) as caught,
        augd.connect(
            daemon.address, dataset="hostile", recipe=WHOLE, batch_size=8, bad="fail", timeout_s=30
        ) as stream,
    ):
        for _ in stream.epoch(0):
            pass
    text = str(caught.value)
    said = re.search(r'bad sample \d+ \((.+?)\): (.+)\. Mend or remove .*bad="mask"', text)
    assert said is not None, text
    one = IMAGES[said[1]]
    assert one.verdict is not Verdict.GOOD
    assert re.search(one.reason, said[2]), text


def test_the_fraction_of_bad_samples_holds_to_the_row(folders, daemon) -> None:
    num_samples = sum(1 for _ in folders.harmless.iterdir())
    options: dict[str, Any] = {"dataset": "hostile", "recipe": WHOLE, "batch_size": 16}
    options["timeout_s"] = 30
    # Halves, since the number allowed is rounded up.
    enough, too_few = ((len(BAD) - less) / num_samples for less in (0.5, 1.5))
    with augd.connect(daemon.address, max_bad_fraction=enough, **options) as stream:
        assert sum(map(len, stream.epoch(0))) == num_samples
    with (
        pytest.raises(augd.SampleFailed, match=rf"more than the {len(BAD) - 1} that"),
        augd.connect(daemon.address, max_bad_fraction=too_few, **options) as stream,
    ):
        for _ in stream.epoch(0):
            pass


def test_photos_that_turn_hostile_after_they_were_indexed(tmp_path: Path) -> None:
    """What was a photo at the scan and is something else when it is read."""
    root = make_folder(tmp_path / "set", num_classes=0, per_class=12)
    outside = tmp_path / "outside.jpg"
    outside.write_bytes((root / "0000.jpg").read_bytes())
    (root / "0011.jpg").unlink()
    (root / "0011.jpg").symlink_to("0000.jpg")
    with augd.serve(root, producers=1) as served:
        turned = {path.name: reason for path, reason in _turn(root, outside)}
        found = rows(served.address, "set", WHOLE)
        reasons = {path: why for row in found for path, why in row["named"].items()}
        assert set(reasons) == set(turned)
        for name, reason in turned.items():
            assert re.search(reason, reasons[name]), (name, reasons[name])
        assert [row["valid"] for row in found] == [
            f"{number:04}.jpg" not in turned for number in range(12)
        ]
        # A link inside is a sample like another.
        assert np.array_equal(found[11]["image"], found[0]["image"])


def _turn(root: Path, outside: Path) -> Iterator[tuple[Path, str]]:
    """Change photos 1..10; gives what must be said of each."""
    paths = [root / f"{number:04}.jpg" for number in range(11)]
    leaves = r"a link that leaves the dataset's root"
    paths[1].unlink()
    yield paths[1], r"deleted since it was indexed"
    os.truncate(paths[2], 99)
    yield paths[2], r"changed since it was indexed: expected \d+ bytes, got 99"
    os.truncate(paths[3], 300 << 20)
    yield paths[3], r"changed since it was indexed: expected \d+ bytes, got 314572800"
    before = paths[4].stat()
    paths[4].write_bytes(bytes(before.st_size))
    os.utime(paths[4], ns=(0, before.st_mtime_ns))
    yield paths[4], r"not an image: .* got bytes 00 00"
    os.utime(paths[5], ns=(0, 1))
    yield paths[5], r"changed since it was indexed: expected a modification time"
    for number, target in ((6, outside), (7, Path("/dev/zero")), (8, Path("../outside.jpg"))):
        paths[number].unlink()
        paths[number].symlink_to(target)
        yield paths[number], leaves
    paths[9].unlink()
    os.mkfifo(paths[9])
    yield paths[9], r"not a regular file"
    paths[10].unlink()
    paths[10].mkdir()
    yield paths[10], r"not a regular file"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("../outside.jpg", r"link 0001\.jpg in .* leaves the dataset"),
        ("/dev/zero", r"link 0001\.jpg in .* leaves the dataset"),
        ("nowhere.jpg", r"link 0001\.jpg in .* points to nowhere\.jpg, which cannot be followed"),
        ("0001.jpg", r"link 0001\.jpg in .* points to 0001\.jpg, which cannot be followed"),
        (".", r"link 0001\.jpg in .* leads back to a folder above it"),
    ],
    ids=["outward", "device", "dangling", "itself", "upward"],
)
def test_links_that_no_scan_follows(tmp_path: Path, target: str, says: str) -> None:
    root = make_folder(tmp_path / "set", num_classes=0, per_class=1)
    (tmp_path / "outside.jpg").write_bytes(JPEG)
    (root / "0001.jpg").symlink_to(target)
    with pytest.raises(augd.DatasetError, match=says):
        augd.serve(root, producers=1)


def test_large_files_are_held_one_at_a_time(tmp_path: Path) -> None:
    """A chunk of many huge files, whose sizes in pixels nobody knows yet."""
    root = make_folder(tmp_path / "set", num_classes=0, per_class=2)
    for number in range(8):
        path = root / f"1{number:03}.jpg"
        path.write_bytes(JPEG)
        os.truncate(path, 70 << 20)  # sparse: zeros after the end marker, as some cameras write
    with augd.serve(root, producers=1) as served:
        (producer,) = producers_of(served.pid)
        with augd.connect(
            served.address, recipe=WHOLE, batch_size=10, prefetch=1, timeout_s=30
        ) as stream:
            assert sum(int(batch.valid.sum()) for batch in stream.epoch(0)) == 10
        assert _peak_bytes(producer) < MAX_PRODUCER_BYTES
