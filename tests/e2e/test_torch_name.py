"""The torch side has a name that no file of a user's can hide, and is there once."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import augd.torch

HIDDEN = """
import sys
import trainer
assert trainer.MINE
before = trainer
import augd, augd.torch
from augd.torch.training.loop import Training
assert augd.torch.connect.__module__ == "augd.torch.data.stream", augd.torch.connect.__module__
assert augd.torch.Batch is sys.modules["augd.torch.data.host_feed"].Batch
assert sys.modules["trainer"] is before and not hasattr(before, "connect")
assert not [name for name in sys.modules if name.startswith("trainer.")]
try: import trainer.data.stream
except ModuleNotFoundError as error: print(error)
"""

HELP = """
import atexit, sys
atexit.register(lambda: print("torch was loaded:", "torch" in sys.modules))
from augd.cli.entry import train
train()
"""


def test_a_users_own_trainer_py_stays_his(tmp_path: Path) -> None:
    """It is first on `sys.path`, and imported before."""
    (tmp_path / "trainer.py").write_text("MINE = True\n")
    script = tmp_path / "train.py"
    script.write_text(HIDDEN)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "No module named 'trainer.data'; 'trainer' is not a package\n"


def test_both_names_are_the_same_modules() -> None:
    trainer = importlib.import_module("trainer")
    assert trainer is augd.torch
    for name in ("data.stream", "training.loop", "models.build_network"):
        first = importlib.import_module(f"trainer.{name}")
        assert first is importlib.import_module(f"augd.torch.{name}")
        package = name.partition(".")[0]
        assert getattr(augd.torch, package) is importlib.import_module(f"trainer.{package}")
        assert first.__spec__ is not None and first.__spec__.name == f"augd.torch.{name}"


def test_the_first_name_gives_the_second(tmp_path: Path) -> None:
    code = (
        "import trainer.data.host_feed, sys; from trainer import Batch; import augd.torch; "
        "assert trainer is augd.torch and Batch is augd.torch.data.host_feed.Batch; "
        "assert sys.modules['trainer.data.host_feed'] is sys.modules['augd.torch.data.host_feed']"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_help_waits_for_neither_the_name_nor_torch(tmp_path: Path) -> None:
    (tmp_path / "trainer.py").write_text("raise SystemExit('it was run')\n")
    done = subprocess.run(
        [sys.executable, "-P", "-c", HELP, "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "fit" in done.stdout
    assert done.stdout.endswith("torch was loaded: False\n")


def test_its_names_are_there_before_they_are_used() -> None:
    assert set(augd.torch.__all__) <= set(dir(augd.torch))
    scope: dict[str, object] = {}
    exec("from augd.torch import *", scope)
    assert set(augd.torch.__all__) <= set(scope)
    with pytest.raises(AttributeError, match=r"^module 'augd\.torch' has no attribute 'steam'$"):
        getattr(augd.torch, "steam")  # noqa: B009
