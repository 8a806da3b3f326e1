"""One daemon per address, and nothing left of a killed one."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from augd.errors import AddressInUse, OptionError
from augd.transport import lock as lock_module
from augd.transport.address import Address, parse_address
from augd.transport.lock import AddressLock

_HOLDER = """
import sys
from augd.transport.address import parse_address
from augd.transport.lock import AddressLock
address = parse_address(sys.argv[1])
lock = AddressLock.acquire(address)
address.path.touch()
address.attach_path.touch()
print("held", lock._janitor.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return parse_address(f"ipc://{tmp_path}/a")


def files(address: Address) -> list[str]:
    return sorted(path.name for path in address.path.parent.iterdir())


def hold(address: Address) -> tuple[subprocess.Popen[bytes], int]:
    """Hold the address in another process; returns it and its janitor's pid."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(address)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
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
    address.path.touch()
    assert address.lock_path.read_text() == f"{os.getpid()}\n"
    assert address.lock_path.stat().st_mode & 0o777 == 0o600
    lock.release()
    assert files(address) == []
    AddressLock.acquire(address).release()


def test_a_second_daemon_is_told_who_is_there(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "WAIT_S", 0.05)
    holder, _ = hold(address)
    with pytest.raises(AddressInUse) as caught:
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
    address.path.touch()
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
