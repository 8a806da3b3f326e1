"""One daemon per address, and nothing left of a killed one."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from augd.errors import AddressInUse, OptionError
from augd.server.daemon import address_lock as lock_module
from augd.server.daemon.address_lock import AddressLock
from augd.transport import owned_socket
from augd.transport.address import Address, parse_address

_HOLDER = """
import socket, sys
from augd.transport import owned_socket
from augd.transport.address import parse_address
from augd.server.daemon.address_lock import AddressLock
address = parse_address(sys.argv[1])
lock = AddressLock.acquire(address)
owned_socket.listen(address.path, socket.SOCK_STREAM)
owned_socket.listen(address.attach_path, socket.SOCK_SEQPACKET)
print("held", lock._janitor.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return parse_address(f"ipc://{tmp_path}/a")


def make_socket(path: Path) -> None:
    owned_socket.listen(path, socket.SOCK_STREAM).close()


def files(address: Address) -> list[str]:
    return sorted(path.name for path in address.path.parent.iterdir())


def hold(address: Address) -> tuple[subprocess.Popen[bytes], int]:
    """Hold the address in another process; returns it and its janitor's pid."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(address)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert holder.stdout is not None
    words = holder.stdout.readline().split()
    assert words[:1] == [b"held"]
    return holder, int(words[1])


def end(holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.wait()
    for pipe in (holder.stdin, holder.stdout):
        assert pipe is not None
        pipe.close()


def await_end(pidfd: int) -> None:
    assert select.select([pidfd], [], [], 10.0)[0], "the janitor lives on"
    os.close(pidfd)


def test_release_leaves_nothing(address: Address) -> None:
    lock = AddressLock.acquire(address)
    make_socket(address.path)
    assert address.lock_path.read_text() == f"{os.getpid()}\n"
    assert address.lock_path.stat().st_mode & 0o777 == 0o600
    lock.release()
    assert files(address) == []
    AddressLock.acquire(address).release()


def test_a_second_daemon_is_told_who_is_there(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, _ = hold(address)
    with monkeypatch.context() as patch, pytest.raises(AddressInUse) as caught:
        patch.setattr(lock_module, "WAIT_S", 0.05)
        AddressLock.acquire(address)
    assert str(caught.value) == (
        f"a daemon (pid {holder.pid}) already serves {address}: connect to it, stop it, "
        "or choose another address with --listen ipc://PATH"
    )
    assert files(address) == ["a", "a.attach", "a.lock"]  # the first is unharmed
    end(holder)
    AddressLock.acquire(address).release()


def test_the_janitor_removes_what_a_killed_daemon_leaves(address: Address) -> None:
    holder, janitor = hold(address)
    pidfd = os.pidfd_open(janitor)
    end(holder)
    await_end(pidfd)
    assert files(address) == []


def test_a_new_daemon_waits_for_the_janitor_of_a_killed_one(address: Address) -> None:
    holder, _ = hold(address)
    end(holder)
    lock = AddressLock.acquire(address)  # whether or not the janitor has finished
    make_socket(address.path)
    assert address.lock_path.read_text() == f"{os.getpid()}\n"
    assert files(address) == ["a", "a.lock"]  # and it removes nothing of the new one's
    lock.release()


def test_what_is_left_when_the_janitor_was_killed_too_is_cleared(address: Address) -> None:
    holder, janitor = hold(address)
    pidfd = os.pidfd_open(janitor)
    os.kill(janitor, 9)
    end(holder)
    await_end(pidfd)
    assert files(address) == ["a", "a.attach", "a.lock"]
    lock = AddressLock.acquire(address)
    assert files(address) == ["a.lock"]
    lock.release()


def test_a_link_in_place_of_the_lock_is_not_followed(address: Address, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    address.lock_path.symlink_to(victim)
    with pytest.raises(OptionError, match="cannot be opened: Too many levels of symbolic links"):
        AddressLock.acquire(address)
    assert victim.read_text() == "precious"


def test_a_link_in_place_of_a_socket_is_not_removed(address: Address, tmp_path: Path) -> None:
    make_socket(tmp_path / "victim")
    for path in (address.path, address.rows_path):
        path.symlink_to(tmp_path / "victim")
        with pytest.raises(OptionError, match=rf"{path} exists: a link of user .* is not removed"):
            AddressLock.acquire(address)
        assert path.is_symlink()
        path.unlink()
    assert (tmp_path / "victim").exists()


@pytest.mark.parametrize("has_lock", [False, True])
@pytest.mark.parametrize("suffix", ["", ".attach", ".bulk", ".rows"])
def test_a_file_at_an_address_is_left_as_it_is(
    address: Address, suffix: str, has_lock: bool
) -> None:
    path = address.path.with_name(address.path.name + suffix)
    path.write_text("path,label")
    if has_lock:
        address.lock_path.write_text("4711\n")
    before = files(address)
    with pytest.raises(OptionError) as caught:
        AddressLock.acquire(address)
    assert str(caught.value) == (
        f"{path} exists: a file of user {os.geteuid()}, expected nothing or a socket that an "
        f"earlier daemon of user {os.geteuid()} left. It is not removed: choose another address "
        "with --listen ipc://PATH"
    )
    assert path.read_text() == "path,label"
    assert files(address) == before


def test_a_socket_of_another_program_is_left_as_it_is(address: Address) -> None:
    with owned_socket.listen(address.path, socket.SOCK_STREAM):
        with pytest.raises(OptionError, match=r"a socket that no daemon of augd left, since there"):
            AddressLock.acquire(address)
        assert files(address) == ["a"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(address.path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of other users")
def test_a_socket_of_another_user_is_left_as_it_is(address: Address) -> None:
    make_socket(address.path)
    os.lchown(address.path, 4321, -1)
    address.lock_path.write_text("4711\n")
    with pytest.raises(OptionError, match=rf"{address.path} exists: a socket of user 4321, "):
        AddressLock.acquire(address)
    assert address.path.is_socket()


@pytest.mark.parametrize("content", ["[[package]]\nname = 'x'\n", "-1", "1\n2\n", "9" * 40])
def test_a_file_called_as_the_lock_is_left_as_it_is(address: Address, content: str) -> None:
    address.lock_path.write_text(content)
    with pytest.raises(
        OptionError, match=rf"{address.lock_path} exists and is no lock of a daemon"
    ):
        AddressLock.acquire(address)
    assert address.lock_path.read_text() == content


def test_a_second_name_of_a_file_is_no_lock(address: Address, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("123\n")
    os.link(tmp_path / "victim", address.lock_path)
    with pytest.raises(OptionError, match="is no lock of a daemon"):
        AddressLock.acquire(address)
    assert (tmp_path / "victim").read_text() == "123\n"


def test_the_janitor_leaves_what_was_put_in_place_of_its_files(
    address: Address, tmp_path: Path
) -> None:
    lock = AddressLock.acquire(address)
    make_socket(tmp_path / "victim")
    address.lock_path.unlink()
    address.lock_path.write_text("other")
    address.path.write_text("other")
    address.bulk_path.symlink_to(tmp_path / "victim")
    make_socket(address.rows_path)
    lock.release()
    assert files(address) == ["a", "a.bulk", "a.lock", "victim"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_a_socket_is_never_anybody_elses(tmp_path: Path, umask: int) -> None:
    """Looked at by name from another thread, from before it is there."""
    path, modes = tmp_path / "s", set()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            with suppress(FileNotFoundError):
                modes.add(os.lstat(path).st_mode & 0o777)

    before, looking = os.umask(umask), threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(20):
            owned_socket.listen(path, socket.SOCK_STREAM).close()
            owned_socket.remove_own(path)
        owned_socket.listen(path, socket.SOCK_STREAM).close()
        modes.add(os.lstat(path).st_mode & 0o777)
        assert os.umask(umask) == umask, "as it was"
    finally:
        os.umask(before)
        ended.set()
        looking.join()
    assert modes == {0o600}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_end_that_is_asked_for_removes_what_its_janitor_does_not(
    address: Address, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "WAIT_S", 0.2)
    lock = AddressLock.acquire(address)
    for path in (address.path, address.attach_path, address.bulk_path, address.rows_path):
        make_socket(path)
    assert len(files(address)) == 5
    assert lock._janitor is not None
    lock._janitor.send_signal(number)
    lock.release()
    assert files(address) == []


def test_an_end_leaves_the_sockets_of_who_has_the_address_by_now(address: Address) -> None:
    first = AddressLock.acquire(address)
    assert first._janitor is not None
    first._janitor.kill()
    first._janitor.wait()
    address.lock_path.unlink()  # as a janitor does it, before another daemon starts
    second = AddressLock.acquire(address)
    make_socket(address.path)
    first.release()
    assert files(address) == ["a", address.lock_path.name]
    second.release()
    assert files(address) == []


def test_an_end_leaves_what_lies_in_place_of_a_socket(address: Address) -> None:
    lock = AddressLock.acquire(address)
    assert lock._janitor is not None
    lock._janitor.kill()
    address.attach_path.write_text("photos")
    lock.release()
    assert files(address) == [address.attach_path.name]
    assert address.attach_path.read_text() == "photos"
