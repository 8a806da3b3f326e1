"""Sets of which more than a hundredth is damaged: refused by default, learnt from when asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import augd
from tests.support.learning import run_trainer
from tests.support.scenes import make_coloured

pytestmark = pytest.mark.usefixtures("one_torch_thread")

COMMON = ("--size", 32, "--batch-size", 8, "--device", "cpu", "--recipe", "eval", "--epochs", 1)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[augd.ServedDaemon]:
    """Two of twelve photos to train on are damaged, and one of six to validate with."""
    root = tmp_path_factory.mktemp("photos")
    make_coloured(root / "train", 6)
    make_coloured(root / "val", 3)
    for path in (*sorted((root / "train").rglob("*.jpg"))[::6], min((root / "val").rglob("*.jpg"))):
        path.write_bytes(b"damaged")
    with augd.serve({"photos": root}, producers=1) as served:
        yield served


def fit(daemon: augd.ServedDaemon, out: Path, *more: object) -> int:
    command = ("fit", "--connect", daemon.address, "--arch", "squeezenet1_1", "--out", out)
    return run_trainer(*command, *COMMON, *more)


def test_a_run_says_what_is_damaged_and_goes_on_when_told_to(
    daemon: augd.ServedDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert fit(daemon, out) == 1
    said = capsys.readouterr().err
    assert "2 bad samples in epoch 0, more than the 1 that max_bad_fraction=0.01 allows" in said
    assert "`augd check` names all such files: mend or remove them, or allow more" in said
    assert fit(daemon, out, "--max-bad-fraction", 0.5) == 0
    common = ("--connect", daemon.address, "--checkpoint", out, "--max-bad-fraction", 0.5)
    assert run_trainer("evaluate", *common, "--device", "cpu", "--out", tmp_path / "found") == 0
    assert "1 image could not be read" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["fit", "features", "evaluate", "inspect"])
def test_every_command_that_reads_takes_it(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_trainer(command, "photos", "--max-bad-fraction", 1.5) == 2
    assert "--max-bad-fraction" in capsys.readouterr().err
