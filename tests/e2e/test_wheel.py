"""A stranger's path: an empty environment, the wheel, his own photos, the first batch.

By default the environment borrows the libraries that this one has, and nothing else of it. With
AUGD_PYTHONS="python3.12 python3.13" the path is gone with each of these as a stranger would, with
everything from the registry: that takes a minute each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zmq

import augd
from demo.photos import make_photos

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
FIRST_BATCH = """
import augd
with augd.connect(recipe="imagenet", batch_size=32) as stream:
    batch = next(stream.epoch(0))
    print(augd.__file__, batch.images.shape, batch.images.dtype, int(batch.valid.sum()))
"""


class Home:
    """A folder with photos and an environment, and what is typed there."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        self.environment = {
            "HOME": str(folder),
            "PATH": f"{folder}/env/bin:/usr/bin:/bin",
            "AUGD_RUNTIME_DIR": str(folder / "run"),
            "COLUMNS": "100",
            **{name: text for name, text in os.environ.items() if name.startswith("PIP_")},
        }
        make_photos(folder / "photos", 60, classes=["bricks", "leaves", "waves"])
        (folder / "words").mkdir()
        (folder / "words" / "a.txt").write_text("no photo")
        (folder / "first.py").write_text(FIRST_BATCH)
        self.python = python

    def type(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "env" / "bin" / words[0]), *words[1:]],
            cwd=self.folder,
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def install(self, wheel: Path, *, borrows: bool) -> None:
        """Make the environment and install the wheel, as the quick start says."""
        without = ["--without-pip"] if borrows else []
        command = [self.python, "-m", "venv", *without, "env"]
        subprocess.run(command, cwd=self.folder, check=True, timeout=120)
        if not borrows:
            done = self.type("python", "-m", "pip", "install", str(wheel))
            assert done.returncode == 0, done.stderr
            return
        inside = f"--python={self.folder}/env/bin/python"
        command = [sys.executable, "-m", "pip", inside, "install", "--quiet", "--no-deps"]
        subprocess.run([*command, "--no-index", str(wheel)], check=True, timeout=120)
        (packages,) = self.folder.glob("env/lib/python3*/site-packages")
        lenders = {str(Path(module.__file__ or "").parents[1]) for module in (np, zmq)}
        (packages / "borrowed.pth").write_text("\n".join(lenders))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: a build leaves its kernels, or their lack, in the tree that it is made of.
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("augd", "trainer"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=ignore)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder / "source")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    kernels = "auto" if os.environ.get("AUGD_PYTHONS") else "off"  # they have tests of their own
    environment = {**os.environ, "AUGD_BUILD_KERNELS": kernels}
    command.append(str(folder / "source"))
    subprocess.run(command, env=environment, check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=os.environ.get("AUGD_PYTHONS", "").split() or [""])
def home(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory) -> Home:
    began = time.monotonic()
    made = Home(tmp_path_factory.mktemp("stranger"), request.param or sys.executable)
    made.install(wheel, borrows=not request.param)
    print(f"{request.param or 'borrowed'}: installed in {time.monotonic() - began:.1f} s")
    return made


def test_four_commands_to_the_first_batch_of_ones_own_photos(home):
    """venv and pip install came before: these are the third and the fourth."""
    began = time.monotonic()
    daemon = subprocess.Popen(
        [str(home.folder / "env" / "bin" / "augd"), "serve", "photos/"],
        cwd=home.folder,
        env=home.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert daemon.stdout is not None
        said = daemon.stdout.readline()
        assert said.startswith("augd: serving photos (60 images, 3 classes) at ipc://"), said
        done = home.type("python", "first.py")
        assert done.returncode == 0, done.stderr
        where, told = done.stdout.split(maxsplit=1)
        assert where.startswith(str(home.folder)), "the wheel's, not the checkout's"
        assert told == "(32, 224, 224, 3) uint8 32\n"
        print(f"served and received in {time.monotonic() - began:.1f} s")
    finally:
        daemon.terminate()
        daemon.communicate(timeout=30)
    assert daemon.returncode == 0


def test_what_the_quick_start_offers_before(home):
    assert home.type("augd", "--version").stdout == f"{augd.__version__}\n"
    assert home.type("python", "-m", "augd", "--version").stdout == f"{augd.__version__}\n"
    checked = home.type("augd", "check", "photos/")
    assert checked.returncode == 0, checked.stderr
    shown = home.type("augd", "preview", "photos/", "--recipe", "imagenet", "--out", "sheet.png")
    assert shown.returncode == 0 and (home.folder / "sheet.png").stat().st_size > 10_000
    looked = home.type("augd", "doctor")
    assert looked.returncode == 0 and looked.stdout.startswith("versions ")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("serve nowhere", "nowhere is not a folder, nor a .csv or .jsonl manifest; give the"),
        ("serve words", "heic heif hif jxl, saw 1 .txt (a.txt) in 1 folder. Give a"),
        ("serve photos --producers many", "--producers: expected a number, auto or ray:N, got"),
        ("serve photos --listen 127.0.0.1:80", "address: expected ipc://PATH or tcp://HOST:PORT"),
        ("preview photos --recipe imagnet", "recipe: expected one of alexnet, big-vision, "),
        ("preview photos --recipe my.toml", "recipe: my.toml cannot be read (No such"),
        ("check nowhere", "dataset folder nowhere does not exist. Check the path."),
        ("status", "start one with `augd serve PATH`, or pass the address that it printed"),
    ],
)
def test_a_mistake_is_answered_in_one_line(home, line, says):
    done = home.type("augd", *line.split())
    assert len(done.stderr.splitlines()) == 1, done.stderr
    said = done.stderr
    # `check` ends with 1 where files are bad.
    assert done.returncode == (2 if line.startswith("check") else 1)
    assert said.startswith("augd: error: ") and says in said


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("serv photos", "Error: No such command 'serv'. Did you mean 'serve'?"),
        ("serve", "Error: Invalid value for '[NAME=]PATH...': expected one at least"),
        ("serve photos --procucers 2", "Error: No such option: --procucers"),
    ],
)
def test_a_line_that_is_not_understood_is_explained(home, line, says):
    done = home.type("augd", *line.split())
    assert done.returncode == 2 and says in done.stderr and "--help" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("missing", "code", "says"),
    [
        (
            "torch",
            "import trainer",
            "augd.torch needs torch, which is not installed here: python -m pip install -e '.[",
        ),
        (
            "torch",
            "import trainer.cli.app",
            "python -m pip install -e '.[trainer]' in the checkout of augd",
        ),
        (
            "starlette",
            "from augd.cli.entry import main; main()",
            "augd: error: --http: not installed: starlette; python -m pip install -e '.[http]' in "
            "the checkout of augd brings them",
        ),
    ],
)
def test_what_is_not_installed_is_named_with_what_brings_it(home, missing, code, says):
    # As every interpreter of the environment starts: a daemon is another one than its command.
    hidden = (
        "import os, sys; sys.modules.update(dict.fromkeys(os.environ.get('HIDDEN', '').split()))"
    )
    (packages,) = home.folder.glob("env/lib/python3*/site-packages")
    (packages / "hidden.pth").write_text(hidden)
    words = "import sys; sys.argv = ['augd', 'serve', 'photos', '--http', '127.0.0.1:0']\n"
    done = home.type("python", "-c", words + code, HIDDEN=missing)
    assert done.returncode == 1 and says in done.stderr.splitlines()[-1]
