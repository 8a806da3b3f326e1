"""The client that imports no augd streams what augd's own does."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import augd
from tests.support.scenes import make_folder

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "examples" / "plain_client.py"
RECIPE = {"ops": [{"op": "random_resized_crop", "size": 224}]}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[augd.ServedDaemon]:
    folder = make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=75)
    with augd.serve({"small": folder}, producers=1, listen="tcp://127.0.0.1:0") as served:
        yield served


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(CLIENT), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_it_imports_nothing_of_augd_and_is_short():
    text = CLIENT.read_text()
    assert len(text.splitlines()) <= 150
    found = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = {getattr(node, "module", None) or node.names[0].name for node in found}
    assert names == {"__future__", "secrets", "sys", "typing", "msgpack", "numpy", "zmq", "xxhash"}


def test_an_epoch_has_the_digest_that_augd_computes(daemon):
    done = run(daemon.address, "small")
    assert done.returncode == 0, done.stderr
    with augd.connect(daemon.address, recipe=RECIPE, batch_size=32, split="all") as stream:
        for batch in stream.epoch(0):
            batch.release()
        receipt = stream.receipt(0)
    assert done.stdout.split() == [str(receipt["samples"]), receipt["bytes"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["small"], "usage: plain_client.py ADDRESS DATASET"),
        (["{address}", "other"], "UNKNOWN_DATASET"),
    ],
)
def test_what_it_cannot_do_is_one_line(daemon, words, said):
    done = run(*(word.format(address=daemon.address) for word in words))
    assert done.returncode == 1
    assert done.stderr.startswith("plain_client: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
