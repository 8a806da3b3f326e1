"""`trainer fit` under torchrun: two ranks go the steps of one process with both their rows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import augd
from tests.support.learning import assert_same, load, run_trainer
from tests.support.scenes import make_coloured
from tests.support.stores import free_port
from trainer.training.distributed import Ranks, join_ranks

ROOT = Path(__file__).resolve().parents[2]

LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos to train on: with 5 rows a rank, the last step has 4 rows for one and 0."""
    root = tmp_path_factory.mktemp("photos")
    make_coloured(root / "train", 12)
    make_coloured(root / "val", 3)
    return root


def start(*command: object, **environment: str) -> subprocess.Popen[str]:
    own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | own | environment,
    )


# Torch is loaded once, and then every rank is a process of its own. Told to end, it tells them.
BOTH = """
import json, os, runpy, signal, sys
import torch.distributed

run, name, *sys.argv[1:] = sys.argv[1:]
if name == "trainer":
    import torch._dynamo, torchvision, trainer.cli
pids = []
for rank in "01":
    pids.append(os.fork())
    if not pids[-1]:
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
        getattr(runpy, run)(name, run_name="__main__")
        sys.exit()
signal.signal(signal.SIGTERM, lambda *_: [os.kill(pid, signal.SIGTERM) for pid in pids])
statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
print("ranks ended with", *statuses)
"""


def start_ranks(run: str, name: object, *words: object) -> subprocess.Popen[str]:
    """Start two ranks of a module or a file, as torchrun does, which would load torch thrice.

    Args:
        run: the function of `runpy` that does it.
        name: of the module or the file.
        words: its arguments.
    """
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    return start("-P", "-c", BOTH, run, name, *words, **meeting)


def finish(process: subprocess.Popen[str], timeout_s: float = 100) -> tuple[str, str]:
    try:
        return process.communicate(timeout=timeout_s)
    except BaseException:
        process.terminate()  # it ends its ranks; they would wait for each other
        process.communicate()
        raise


def options_of(photos: Path, batch_size: int, out: Path) -> list[object]:
    return [
        *(photos, "--producers", 1, "--arch", "small-convnet", "--recipe", "keras-small"),
        *("--size", 78, "--dropout", 0, "--lr", 0.003, "--epochs", 1, "--device", "cpu"),
        *("--batch-size", batch_size, "--out", out),
    ]


@pytest.fixture(scope="module")
def both(photos, tmp_path_factory) -> tuple[dict, str]:
    """The checkpoint of a run by two ranks, and what it printed."""
    out = tmp_path_factory.mktemp("ranks") / "two"
    process = start(*LAUNCH, "-m", "trainer", "fit", *options_of(photos, 5, out))
    printed, complaints = finish(process)
    assert process.returncode == 0, complaints
    return load(out / "last.pt"), printed


@pytest.mark.slow
def test_two_ranks_are_one(photos, both, tmp_path, capsys):
    two, printed = both
    assert run_trainer("fit", *options_of(photos, 10, tmp_path / "one")) == 0
    alone = capsys.readouterr().out
    told = "24 images to train on, 6 to validate with (split 'val')"
    assert f"on cpu: {told}" in alone
    assert printed.count(f"on cpu, 2 ranks: {told}") == 1, "one of them speaks"
    one = load(tmp_path / "one" / "last.pt")
    for name, weights in one["model"].items():
        assert torch.allclose(weights, two["model"][name], rtol=1e-4, atol=1e-6), name
    for a, b in zip(one["history"], two["history"], strict=True):
        for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy"):
            assert a[name] == pytest.approx(b[name], rel=1e-4)
    assert len(two["rng"]) == 2 and not torch.equal(*two["rng"]), "dropout of their own"
    assert two["settings"]["world"] == 2


@pytest.mark.slow
@pytest.mark.timeout(300)  # two starts of torch, twice over, beside three
def test_ranks_that_were_killed_go_on_exactly(photos, both, tmp_path):
    options = [*options_of(photos, 5, tmp_path), "--checkpoint-every", 1]
    ranks = start_ranks("run_module", "trainer", "fit", *options)
    try:
        deadline_s = time.monotonic() + 90
        while not (tmp_path / "last.pt").exists():
            assert ranks.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
    finally:
        ranks.terminate()
        finish(ranks, 60)
    left = load(tmp_path / "last.pt")
    assert left["schedule"]["batch"] in (1, 2), "in mid-epoch"
    printed, complaints = finish(start_ranks("run_module", "trainer", "fit", *options, "--resume"))
    assert printed.endswith("ranks ended with 0 0\n"), complaints
    assert_same(load(tmp_path / "last.pt"), both[0])


@pytest.mark.slow
def test_a_rank_that_lost_the_others_says_so(tmp_path):
    program = tmp_path / "half.py"
    program.write_text(
        "import os\n"
        "from trainer.training.distributed import join_ranks\n"
        "with join_ranks() as ranks:\n"
        "    ranks.sums(1)\n"
        "    if ranks.rank == 1:\n"
        "        os._exit(3)\n"
        "    ranks.sums(1)\n"
    )
    printed, complaints = finish(start_ranks("run_path", program))
    assert re.search(r"ranks ended with (?!0 )-?\d+ 3$", printed.rstrip()), (printed, complaints)
    assert "ConnectError: rank 0 of 2 lost the others: one of them ended; its own" in complaints


class TestEnvironment:
    def test_alone(self, monkeypatch):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        with join_ranks() as ranks:
            assert (ranks.rank, ranks.world, ranks.is_first) == (0, 1, True)
            assert ranks.sums(1, 2.5) == [1, 2.5] and ranks.text_of_first("x") == "x"
        monkeypatch.setenv("WORLD_SIZE", "1")
        with join_ranks() as ranks:
            assert ranks.world == 1
        network = torch.nn.Linear(1, 1)
        assert Ranks().parallel(network) is network

    def test_half_of_it(self, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        with (
            pytest.raises(
                augd.OptionError, match="got RANK=1, WORLD_SIZE=2, LOCAL_RANK=None: start the rank"
            ),
            join_ranks(),
        ):
            pass
