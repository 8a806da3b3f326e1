"""A working directory is data: nothing in it is run but what the operator names."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.scenes import make_folder

AUGD = Path(sys.executable).with_name("augd")

# Leaves a mark; then the real module takes its place, so that what imports it goes on.
TRAP = """\
import importlib, os, sys
here = os.path.dirname(os.path.abspath(__file__))
open(os.path.join(os.path.dirname(here), "ran", __name__), "w").close()
path, sys.path[:] = sys.path[:], [p for p in sys.path if os.path.abspath(p or ".") != here]
sys.modules.pop(__name__)
sys.modules[__name__] = importlib.import_module(__name__)
sys.path[:] = path
"""
INSTALLED = ("augd", "cv2", "msgspec", "numpy", "PIL", "rich", "trainer", "typer", "xxhash", "zmq")

# Both import what a trap has the name of, and must get the real one.
OPS = """\
import augd, numpy, colorsys
assert "site-packages" in numpy.__file__

class Leave(augd.Plugin, frozen=True):
    def sample(self, rng, info):
        return 7

    def pixels(self, row, params):
        row[:] = params
"""
SOURCE = """\
import pathlib, select
class Photos:
    def __init__(self, folder):
        self.paths = sorted(pathlib.Path(folder).glob("class*/*.jpg"))
    def __len__(self):
        return len(self.paths)
    def read(self, i):
        return self.paths[i].read_bytes(), 0
"""

SCRIPT = """\
import json, os, sys, time, urllib.error, urllib.request
import augd
os.environ["PYTHONPATH"] = f".{os.pathsep}"
with augd.serve(
    {"photos": ".", "own": "plugin:own_photos:Photos?."},
    producers=1, plugins=["own_ops"], http="127.0.0.1:0" if sys.argv[1:] else None,
) as daemon:
    recipe = {"ops": [{"op": "resize", "size": [8, 8]}, {"op": "leave"}]}
    found = {}
    for name in ("photos", "own"):
        options = {"dataset": name, "recipe": recipe, "batch_size": 4, "shuffle": False}
        with augd.connect(daemon.address, max_bad_fraction=1, **options) as stream:
            found[name] = [(int(b.valid.sum()), int(b.images[1].max())) for b in stream.epoch(0)]
            deadline = time.monotonic() + 30
            while daemon.http and "page" not in found:  # it starts beside the daemon
                try:
                    with urllib.request.urlopen(f"{daemon.http}/samples/photos/0.jpg") as said:
                        found["page"] = said.headers["content-type"]
                except urllib.error.URLError as error:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
print(json.dumps(found))
"""


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """A dataset with a file for each name that any part of augd could import."""
    (tmp_path / "ran").mkdir()
    folder = make_folder(tmp_path / "set", num_classes=2, per_class=2)
    for name in (*sys.stdlib_module_names, *INSTALLED):
        (folder / f"{name}.py").write_text(TRAP)
    (folder / "own_ops.py").write_text(OPS)
    (folder / "own_photos.py").write_text(SOURCE)
    return folder


def ran(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder.parent / "ran").iterdir())


def test_a_daemon_and_its_helpers_run_nothing_of_where_they_start(
    trapped: Path, tmp_path: Path
) -> None:
    """Producers, both surveys, the page and its studio, by a script that lies elsewhere."""
    bad = trapped / "class0" / "0000.jpg"  # the page shows bad files, by another process
    bad.write_bytes(bad.read_bytes()[:-100])
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    page = {"page": "image/jpeg"} if find_spec("starlette") else {}
    done = subprocess.run(
        [sys.executable, str(script), *page],
        cwd=trapped,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"photos": [[3, 7]], "own": [[3, 7]], **page}
    assert ran(trapped) == []


@pytest.mark.parametrize(
    "words",
    [
        "check .",
        "pack . ../packed --workers 1",
        "preview . --out ../sheet.png --rows 1 --columns 1 --plugin own_ops",
        "pca . --out ../pca.toml",
        "replay . --batch-size 4",
    ],
    ids=lambda words: words.split()[0],
)
def test_a_command_runs_nothing_of_where_it_starts(trapped: Path, words: str) -> None:
    done = subprocess.run(
        [AUGD, *words.split()], cwd=trapped, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert ran(trapped) == []
