"""`augd bench --explain`: its advice is followed, by itself, and the trainer waits less."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from augd.pixels import native
from demo.photos import make_photos
from tests.support.scenes import make_folder

SLOW = """
import time
import augd

class Slow(augd.Plugin):
    \"\"\"Takes its time, which another producer could use.\"\"\"

    def pixels(self, row, params):
        time.sleep(0.006)

def train(batch):
    time.sleep(0.004 * len(batch))
"""
RECIPE = """
[[ops]]
op = "random_resized_crop"
size = 16
[[ops]]
op = "slow"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "slow_ops.py").write_text(SLOW)
    (tmp_path / "slow.toml").write_text(RECIPE)
    make_folder(tmp_path / "photos", num_classes=0, per_class=64, size_px=(32, 32))
    return tmp_path


def bench(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    options = ["--recipe", "slow.toml", "--plugin", "slow_ops", "--batch-size", "16"]
    return subprocess.run(
        [sys.executable, "-m", "augd", "bench", *more[:1], "--explain", *options, *more[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
    )


@pytest.mark.slow
@pytest.mark.longer("whether following an advice gains, measured")
def test_the_advice_is_right(folder):
    """A row takes more than 6 ms, a step 4 ms for each: one producer is too few."""
    options = ["--step", "slow_ops:train", "--producers", "1", "--seconds", "1.5"]
    done = bench(folder, "photos", *options, "--json")
    assert done.returncode == 0, done.stderr
    tried = json.loads(done.stdout)["tried"]
    base, followed = tried[:2]
    assert base["limit"] == "producers" and base["client_wait_share"] > 0.2
    assert followed["producers"] == base["enough"] > 1
    assert followed["what"] == f"{base['enough']} producers instead of 1"
    if os.environ.get("AUGD_SOAK"):  # by measurement: nothing may run beside it
        assert followed["client_wait_share"] < base["client_wait_share"] / 2
        assert followed["images_per_s"] > 1.2 * base["images_per_s"]


@pytest.mark.slow
def test_it_is_said_in_words(folder):
    done = bench(folder, "photos", "--step", "250", "--producers", "2", "--seconds", "3")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("The training step is the limit: the trainer waited")
    assert lines[0].endswith("1 of 2 producers would be enough.")
    assert lines[1].startswith("  as asked: ") and "images/s, the trainer waited" in lines[1]
    assert lines[2].startswith("  1 producer instead of 2: ")
    assert lines[3].startswith("1 producer instead of 2: ")


SMALL_CROPS = """
filter = "linear"
[[ops]]
op = "random_resized_crop"
size = 64
scale = [0.002, 0.005]
"""


def measured(folder: Path, photos: str, *more: str) -> float:
    options = ["--recipe", "crops.toml", "--batch-size", "16", "--producers", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "augd", "bench", photos, *options, "--seconds", "1", *more],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return float(json.loads(done.stdout)["images_per_s"])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(native.kernels is None, reason="packing is done by the kernels")
def test_packing_and_a_cache_are_advised_and_do_help(folder, monkeypatch):
    """Small crops of large photos, most of whose bytes nobody needs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setenv("TMPDIR", str(folder / "scratch"))
    (folder / "scratch").mkdir()
    (folder / "crops.toml").write_text(SMALL_CROPS)
    make_photos(folder / "large", 6, megapixels=2.0)
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "augd",
                "bench",
                "large",
                "--explain",
                "--recipe",
                "crops.toml",
            ),
            *("--batch-size", "16", "--producers", "1", "--seconds", "0.5", "--json"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    tried = {one["what"]: one for one in json.loads(done.stdout)["tried"]}
    assert tried["as asked"]["limit"] == "producers"
    packed, cached = tried["the same, packed"], tried["the same, from a filled cache"]
    assert {packed["against"], cached["against"]} == {"6 of 6 photos, copied"}
    assert packed["gain"] > 1.5 and cached["gain"] > 1.5
    assert packed["advice"] == "augd pack large DST; serve DST"
    assert list((folder / "scratch").iterdir()) == [], "the sample went with the command"
    kept = {path.name for path in (folder / "cache" / "augd" / "index").iterdir()}
    assert len({name.partition(".")[0] for name in kept}) == 1, "and so did its indexes"
    assert cached["advice"] == "--cache ram:0.2GB"


@pytest.mark.slow
@pytest.mark.soak("advice of packing and a cache, followed by hand and measured again")
@pytest.mark.skipif(native.kernels is None, reason="packing is done by the kernels")
def test_who_follows_the_advice_by_hand_gains(folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    (folder / "crops.toml").write_text(SMALL_CROPS)
    make_photos(folder / "large", 6, megapixels=2.0)
    subprocess.run([sys.executable, "-m", "augd", "pack", "large", "DST"], cwd=folder, check=True)
    plain = measured(folder, "large")
    assert measured(folder, "DST") > 1.25 * plain
    assert measured(folder, "large", "--cache", "ram:0.2GB") > 1.25 * plain


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--connect=ipc:///tmp/a"], "--explain: it tries other settings with daemons of its"),
        (["photos", "--step", "soon"], "--step: expected MODULE:FUNCTION, which is called with"),
        (["photos", "--step", "slow_ops:no"], "--step slow_ops:no: module 'slow_ops' has no attr"),
        (
            ["photos", "--step", "nowhere:no"],
            "--step nowhere:no: No module named 'nowhere'. Give a module's",
        ),
    ],
)
def test_refusals_are_one_line(folder, options, says):
    done = bench(folder, *options)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith(f"augd: error: {says}")
