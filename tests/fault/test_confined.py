"""A producer that was taken over finds nothing to reach: tried from within a decoder."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import augd
from augd.client.status import status as ask_status
from tests.support.commands import run_augd
from tests.support.processes import await_true, producers_of
from tests.support.programs import put_in_place
from tests.support.scenes import digest_epoch, make_folder, opencv_decodes

# What somebody would try who runs his own code in place of a decoder. The report was opened before
# the producer confined itself: afterwards no file can be written.
TAKEN_OVER = """
import sys
if "augd.server.producer" in sys.orig_argv:
    import ctypes, os, socket, subprocess
    import cv2
    report = open({report!r}, "a", buffering=1)
    libc = ctypes.CDLL(None, use_errno=True)

    def call(function, *arguments):
        if function(*arguments) < 0:
            raise OSError(ctypes.get_errno(), "")

    ATTEMPTS = dict(
        inet=lambda: socket.socket(socket.AF_INET),
        inet6=lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
        unix=lambda: socket.socket(socket.AF_UNIX),
        packet=lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        run=lambda: subprocess.run(["true"]),
        fork=os.fork,
        execv=lambda: os.execv("/bin/true", ["true"]),
        kill=lambda: os.kill(os.getppid(), 15),
        kill_all=lambda: os.kill(-1, 0),
        ptrace=lambda: call(libc.ptrace, 16, os.getppid(), None, None),
        outlive=lambda: call(libc.prctl, 1, 0, 0, 0, 0),
        unshare=lambda: call(libc.unshare, 0x40000000),
        write=lambda: open({victim!r}, "w"),
        remove=lambda: os.unlink({victim!r}),
        memory=lambda: open("/proc/%d/mem" % os.getppid(), "r+b"),
    )
    imdecode = cv2.imdecode

    def taken_over(data, flags):
        while ATTEMPTS:
            name, attempt = ATTEMPTS.popitem()
            try:
                attempt()
                print(name, "succeeded", file=report)
            except OSError as error:
                print(name, error.errno, file=report)
        return imdecode(data, flags)

    cv2.imdecode = taken_over
"""

UNCONFINED = """
import sys
if "augd.server.producer" in sys.orig_argv:
    import augd.process.sandbox
    augd.process.sandbox.confine = lambda: ""
"""


@pytest.fixture(scope="module", autouse=True)
def without_kernels() -> Iterator[None]:
    with opencv_decodes():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=60)


@pytest.mark.clause("P-78")
def test_a_decoder_that_was_taken_over_reaches_nothing_while_batches_flow(
    folder, tmp_path, monkeypatch
):
    with augd.serve({"small": folder}, producers=1) as served:
        undisturbed = digest_epoch(served.address, epochs=1)
        (one,) = ask_status(served.address, 5)["producers"]
    if "seccomp" not in one["confinement"]:
        pytest.skip("this kernel grants no seccomp filter")
    report, victim = tmp_path / "report", tmp_path / "victim"
    victim.write_text("mine")
    text = TAKEN_OVER.format(report=str(report), victim=str(victim))
    put_in_place(text, tmp_path, monkeypatch)
    with augd.serve({"small": folder}, producers=1) as served:
        assert digest_epoch(served.address, epochs=1) == undisturbed
        assert ask_status(served.address, 5)["restarts"] == 0
    said = dict(line.split() for line in report.read_text().splitlines())
    assert said == dict.fromkeys(re.findall(r"^        (\w+)=", TAKEN_OVER, re.M), "1")
    assert len(said) == 15
    assert victim.read_text() == "mine"


def test_every_producer_is_confined_and_the_status_says_so(folder):
    with augd.serve({"small": folder}, producers=2) as served:
        await_true(
            lambda: all(one["pid"] for one in ask_status(served.address, 5)["producers"]), 10, "up"
        )
        kinds = {one["confinement"] for one in ask_status(served.address, 5)["producers"]}
        modes = {
            re.search(r"^Seccomp:\s+(\d)", Path(f"/proc/{pid}/status").read_text(), re.M)[1]
            for pid in producers_of(served.pid)
        }
        done = run_augd("status", served.address)
    (kind,) = kinds
    assert modes == ({"2"} if "seccomp" in kind else {"0"})
    if kind:
        assert f"The producers are confined by {kind.replace('+', ' and ')}.\n" in done.stdout


@pytest.mark.clause("P-78")
def test_without_confinement_the_daemon_warns_once_and_serves(folder, tmp_path, monkeypatch):
    put_in_place(UNCONFINED, tmp_path, monkeypatch)
    address = f"ipc://{tmp_path}/d"
    options = ("--listen", address, "--producers", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "augd", "serve", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "serving" in process.stdout.readline()
    await_true(lambda: len(ask_status(address, 5)["producers"]) == 2, 10, "both are there")
    assert digest_epoch(address, epochs=1)
    await_true(
        lambda: all(one["pid"] for one in ask_status(address, 5)["producers"]), 10, "both are up"
    )
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert len(re.findall(r"producer \d is not confined: .* grants no seccomp", errors)) == 1, (
        errors
    )
