"""The rest of docs/errors.md: what a new user meets, tried out as he would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import augd
from augd.protocol.messages import PROTOCOL_VERSION
from augd.transport.zmq_sockets import Router
from tests.support.processes import is_alive
from tests.support.scenes import SMALL, make_folder, read_epoch

ERRORS = Path(__file__).resolve().parents[2] / "docs" / "errors.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=20)


@pytest.fixture(scope="module")
def daemon(folder: Path):
    with augd.serve({"small": folder}, producers=1) as served:
        yield served


def test_every_class_of_the_page_exists_and_every_class_is_on_it():
    named = set(re.findall(r"`(\w+)`", ERRORS.read_text()))
    classes = {
        name
        for name in augd.__all__
        if isinstance(getattr(augd, name), type) and issubclass(getattr(augd, name), augd.AugdError)
    }
    assert len(classes) > 10
    assert classes - {"AugdError"} <= named, classes - named


def test_another_version_answers(tmp_path):
    """A daemon of another release answers with its own version byte."""
    from augd.transport.address import parse_address

    address = parse_address(f"ipc://{tmp_path}/d")
    router = Router()
    router.bind(address)
    code = f"import augd; augd.connect('ipc://{tmp_path}/d', timeout_s=20)"
    client = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while (received := router.receive()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    router.send(received[0], [bytes([PROTOCOL_VERSION + 1]) + b"\x80"])
    _, errors = client.communicate(timeout=20)
    router.close()
    assert (
        f"the peer speaks protocol version {PROTOCOL_VERSION + 1}, this side speaks "
        f"{PROTOCOL_VERSION}; install the same version of augd on both sides"
    ) in errors


def test_a_folder_for_sockets_that_cannot_be_made(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUGD_RUNTIME_DIR", str(tmp_path / "file" / "run"))
    with pytest.raises(
        augd.OptionError, match=r"cannot be made for the daemon's sockets: .*AUGD_RUNTIME_DIR"
    ):
        augd.serve(folder)
    with pytest.raises(augd.OptionError, match=r"\.lock cannot be opened: .*--listen ipc://PATH"):
        augd.serve(folder, listen="ipc:///proc/d")


def test_no_place_for_the_index_is_a_warning(folder, tmp_path):
    (tmp_path / "file").write_text("")
    process = subprocess.Popen(
        [sys.executable, "-m", "augd", "serve", str(folder), "--listen", f"ipc://{tmp_path}/d"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "serving" in process.stdout.readline()
    with augd.connect(f"ipc://{tmp_path}/d", recipe=SMALL) as stream:
        assert len(read_epoch(stream, 0)) == 1
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "index" in errors, "a warning says that it is built again each time"


class Through(torch.utils.data.IterableDataset):
    """What people write first: a stream inside a DataLoader."""

    def __init__(self, stream: augd.Stream | None, address: str) -> None:
        self.stream = stream
        self.address = address

    def __iter__(self):
        stream = self.stream
        if stream is None:
            stream = augd.connect(self.address, recipe=SMALL, batch_size=10)
        for batch in stream.epoch(0):
            yield torch.from_numpy(batch.images.copy())


def test_a_stream_in_a_dataloader_worker(daemon):
    with augd.connect(daemon.address, recipe=SMALL, batch_size=10) as stream:
        loader = torch.utils.data.DataLoader(
            Through(stream, daemon.address), batch_size=None, num_workers=1
        )
        with pytest.raises(ConnectionError, match="connect in the process that reads"):
            list(loader)
        assert len(read_epoch(stream, 0)) == 4, "the parent's stream is unharmed"


def test_a_worker_that_connects_itself(daemon):
    loader = torch.utils.data.DataLoader(
        Through(None, daemon.address), batch_size=None, num_workers=1
    )
    assert [len(images) for images in loader] == [10, 10, 10, 10]


def test_an_interrupted_notebook_cell_leaves_the_daemon_alone(folder):
    """The kernel's whole process group gets SIGINT; inside a running event loop, as there."""
    code = (
        "import asyncio, os, signal, time, augd\n"
        "async def cell():\n"
        f"    daemon = augd.serve({{'small': {str(folder)!r}}}, producers=1)\n"
        f"    stream = augd.connect(daemon.address, recipe={SMALL!r}, batch_size=10)\n"
        "    try:\n"
        "        os.killpg(0, signal.SIGINT); time.sleep(5)\n"
        "    except KeyboardInterrupt:\n"
        "        pass\n"
        "    print(sum(1 for _ in stream.epoch(0)), daemon.pid)\n"
        "try:\n"
        "    asyncio.run(cell())\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
    )
    batches, pid = done.stdout.split()
    assert batches == "4"
    deadline = time.monotonic() + 5
    while is_alive(int(pid)):
        assert time.monotonic() < deadline, "the daemon outlived its notebook"
        time.sleep(0.01)
