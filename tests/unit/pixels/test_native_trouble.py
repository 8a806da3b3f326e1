"""Kernels that were built and don't load: one line says why, and OpenCV makes the pixels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from platform import machine
from struct import unpack_from

import pytest

import augd
from augd.cli import doctor
from augd.client.status import status
from augd.pixels import native
from augd.pixels.library_versions import describe_environment
from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker import scheduler
from augd.server.supervision.producer_process import Kernels
from tests.support.programs import finish, start_by_hand
from tests.support.relays import await_remotes, running_relay
from tests.support.scenes import digest_epoch, make_folder
from tests.support.table import Table

pytestmark = pytest.mark.skipif(native.kernels is None, reason="no native kernels here")

# Has another folder looked into for the kernels, by every process that has this on its path.
ELSEWHERE = """
import augd.pixels
augd.pixels.__path__.insert(0, {folder!r})
"""
LOOK = "from augd.pixels import native; print(native.kernels, native.trouble, sep='|')"


def damaged(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def put(folder: Path) -> None:
        whole = Path(native.kernels.__file__)
        (folder / whole.name).write_bytes(change(whole.read_bytes()))

    return put


def made_up(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "_kernels.py").write_text(text) and None


REFUSES = """
VERSION = {version}
class DecodeError(Exception): pass
def decode_jpeg(*arguments):
    raise DecodeError("Wrong JPEG library version: library is 80, caller expects 62")
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "kernels"
    folder.mkdir()
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(ELSEWHERE.format(folder=str(folder)))
    monkeypatch.setenv("PYTHONPATH", str(site))
    return folder


def look() -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return done.stdout.rstrip("\n")


@pytest.mark.parametrize(
    ("put", "says"),
    [
        (damaged(lambda whole: b""), "file too short"),
        (damaged(lambda whole: whole[:4096]), "is damaged: expected "),
        (damaged(lambda whole: whole[:30_000]), "is damaged: expected "),
        (damaged(lambda whole: b"<html>not found</html>" * 99), "invalid ELF header"),
        (damaged(lambda whole: whole.replace(b"libjpeg.so.62", b"libjpeg.so.99")), "libjpeg.so.99"),
        (
            made_up("VERSION = 3"),
            f"is of another version: expected {native._VERSION}, got 3. Build it again",
        ),
        (made_up(REFUSES.format(version=native._VERSION)), "was built for another libjpeg than"),
    ],
    ids=["empty", "headers alone", "cut off", "no library", "no libjpeg", "old", "other libjpeg"],
)
def test_what_does_not_load_leaves_the_work_to_opencv(
    put: Callable[[Path], None], says: str, elsewhere: Path
) -> None:
    put(elsewhere)
    kernels, _, trouble = look().partition("|")
    assert kernels == "None"
    assert trouble.startswith("the native kernels don't load: ")
    assert says in trouble and "\n" not in trouble


def test_what_is_whole_loads(elsewhere: Path) -> None:
    damaged(lambda whole: whole)(elsewhere)
    kernels, _, trouble = look().partition("|")
    assert str(elsewhere) in kernels and trouble == ""


def test_who_left_them_out_hears_nothing_of_them(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged(lambda whole: b"")(elsewhere)
    monkeypatch.setenv("AUGD_KERNELS", "off")
    assert look() == "None|"


def test_a_daemon_serves_without_them_says_so_once_and_doctor_has_a_row(
    elsewhere: Path, tmp_path: Path
) -> None:
    damaged(lambda whole: whole[:4096])(elsewhere)
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=8)
    address = f"ipc://{tmp_path}/d"
    process = start_by_hand(folder, address, "--producers", "2")
    try:
        assert digest_epoch(address, epochs=1)
        assert status(address)["environment"]["kernels"] == "none"
    finally:
        process.terminate()
        _, errors = finish(process)
    assert errors.count("the native kernels don't load: ") == 1, errors
    assert "expected " in errors and "run augd doctor" in errors
    assert errors.count("without native kernels") == 1
    row = doctor._kernels()
    assert row.verdict == "better" and "is damaged: expected" in row.found
    assert "AUGD_KERNELS=off" in row.advice


def test_kernels_that_end_who_loads_them_are_a_row_of_doctor(elsewhere: Path) -> None:
    made_up("import os, signal; os.kill(os.getpid(), signal.SIGBUS)")(elsewhere)
    row = doctor._kernels()
    assert (row.found, row.verdict) == ("ended by SIGBUS", "bad")
    assert "AUGD_KERNELS=off" in row.advice


def fatal(whole: bytes) -> bytes:
    """Damage what the loader calls first, DT_INIT, so that loading it ends the process (SIGILL)."""
    library, entries = bytearray(whole), {}
    for at in program_headers(whole):
        kind, _, offset, address, _, size = unpack_from("<IIQQQQ", whole, at)
        if kind == 2:  # PT_DYNAMIC
            for place in range(offset, offset + size, 16):
                entries.setdefault(*unpack_from("<qQ", whole, place))
        elif kind == 1 and "base" not in entries and unpack_from("<I", whole, at + 4)[0] & 1:
            entries["base"] = offset - address  # of what can be run
    start = entries[12] + entries["base"]
    library[start : start + 2] = b"\x0f\x0b"  # UD2
    return bytes(library)


def program_headers(library: bytes) -> Iterator[int]:
    first, size, count = *unpack_from("<Q", library, 32), *unpack_from("<HH", library, 54)
    return iter(range(first, first + size * count, size))


ON_X86 = pytest.mark.skipif(machine() != "x86_64", reason="the damage is made for x86-64")


@ON_X86
def test_producers_that_kernels_end_while_they_load_are_tried_without(
    elsewhere: Path, tmp_path: Path
) -> None:
    """Five places, so that all their deaths in a row would be called unhealthy."""
    damaged(fatal)(elsewhere)
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=8)
    address = f"ipc://{tmp_path}/d"
    process = start_by_hand(folder, address, "--producers", "5")
    try:
        assert digest_epoch(address, epochs=1)
        said = status(address)
        assert said["environment"]["kernels"] == "none" and not said["unhealthy"]
    finally:
        process.terminate()
        _, errors = finish(process)
    assert errors.count("SIGILL before it was ready; the next is started without") >= 1, errors
    assert errors.count("the native kernels are left out: they end producers") == 1, errors
    assert "while they load (SIGILL). Install augd anew" in errors and "run augd doctor" in errors


def play(ends: list[str]) -> list[bool]:
    """Start one producer after another, each ready or ended; returns which had kernels."""
    kernels, had = Kernels(), list[bool]()
    for end in ends:
        has_kernels = not kernels.switch()
        had.append(has_kernels)
        if end == "ready":
            kernels.took_up(has_kernels=has_kernels)
        else:
            kernels.ended("SIGSEGV", ExitReason(end), has_kernels=has_kernels)
    return had


@pytest.mark.parametrize(
    ("ends", "had"),
    [
        (["signal", "signal", "ready", "ready"], [True, True, False, False]),
        (["signal", "ready", "signal", "signal", "ready"], [True] * 5),
        (["signal", "signal", "signal", "signal", "ready"], [True, True, False, True, True]),
        (["error", "outside", "memory", "killed", "ready"], [True] * 5),
    ],
    ids=["their fault", "one accident", "not their fault", "ended otherwise"],
)
def test_kernels_are_left_out_where_they_alone_can_be_at_fault(
    ends: list[str], had: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUGD_KERNELS", raising=False)
    assert play(ends) == had


def test_the_doctor_names_the_kernels_as_contents_do() -> None:
    name = describe_environment()["kernels"]
    row = doctor._kernels()
    assert row.found.startswith(f"native kernels {name}, ") and "version" not in row.found


def test_serve_says_which_kernels_work() -> None:
    table = Table(producers=0)
    table.broker._scheduler.pool.grow(table.now)
    table.feed(ev.Tick())
    ready = msg.Ready(1, {"kernels": "2, libjpeg-turbo 3.0", "opencv": "5.0.0"}, "seccomp")
    actions = table.feed(ev.FromLocalProducer(0, ready))
    text = "pixels are made by native kernels 2, libjpeg-turbo 3.0, and OpenCV 5.0.0"
    assert ev.Log(20, text) in actions


@pytest.mark.clause("P-76")
def test_an_installations_trouble_is_logged_once_and_of_a_few_kinds() -> None:
    table = Table(producers=2)
    said = []
    for number, text in [(0, "no kernels"), (1, "no kernels"), *((0, f"{n}") for n in range(99))]:
        said += table.feed(ev.FromLocalProducer(number, msg.Trouble(text)))
    told = [one.text for one in said if isinstance(one, ev.Log)]
    assert told[0] == (
        "no kernels: OpenCV and Pillow make the pixels, about half as fast; run augd doctor"
    )
    assert len(told) == scheduler.TROUBLES_MAX


@pytest.mark.clause("P-76")
def test_a_relay_says_it_on_its_own_host(elsewhere: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=8)
    with augd.serve({"small": folder}, producers=0, listen="tcp://127.0.0.1:0") as daemon:
        damaged(lambda whole: b"")(elsewhere)
        with running_relay(folder, daemon.address, "--producers", "2") as relay:
            await_remotes(daemon.address, 2)
            errors = relay.end()
    assert errors.count("the native kernels don't load: file too short; `augd doctor`") == 1, errors


@ON_X86
def test_a_relay_tries_its_producers_without_what_ended_them(
    elsewhere: Path, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=8)
    with augd.serve({"small": folder}, producers=0, listen="tcp://127.0.0.1:0") as daemon:
        damaged(fatal)(elsewhere)
        with running_relay(folder, daemon.address, "--producers", "2") as relay:
            await_remotes(daemon.address, 2)
            assert status(daemon.address)["environment"]["kernels"] == "none"
            errors = relay.end()
    assert "SIGILL before it was ready; the next is started without native kernels" in errors
    assert errors.count("the native kernels are left out: they end producers") == 1, errors
