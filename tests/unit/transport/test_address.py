"""Addresses and the private directory."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from augd.errors import ConnectError, OptionError
from augd.transport import address as address_module
from augd.transport.address import (
    PATH_BYTES_MAX,
    TcpAddress,
    bulk_address,
    make_runtime_dir,
    parse_address,
    require_daemon,
    runtime_dir,
)


def test_an_address_names_the_files_beside_it() -> None:
    address = parse_address("ipc:///run/augd/one")
    assert str(address) == "ipc:///run/augd/one"
    assert address.attach_path == Path("/run/augd/one.attach")
    assert address.lock_path == Path("/run/augd/one.lock")


def test_the_default_is_in_the_chosen_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUGD_RUNTIME_DIR", "/chosen")
    assert parse_address(None).path == Path("/chosen/default")
    monkeypatch.delenv("AUGD_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_dir() == tmp_path / "augd"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    assert runtime_dir() == Path(f"/tmp/augd-{os.getuid()}")


@pytest.mark.parametrize(
    "text",
    ["", "photos", "/run/a", "tcp://localhost", "tcp://:1", "tcp://a:65536", "tcp://a:x", "ipc://"],
)
def test_anything_but_a_path_or_a_port_is_refused(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_address(text)
    expected = f"address: expected ipc://PATH or tcp://HOST:PORT, got {text!r}"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("text", "is_loopback"),
    [
        ("tcp://127.0.0.1:5600", True),
        ("tcp://127.8.0.9:1", True),
        ("tcp://localhost:1", True),
        ("tcp://[::1]:1", True),
        ("tcp://0.0.0.0:1", False),
        ("tcp://*:1", False),
        ("tcp://10.0.0.1:1", False),
        ("tcp://localhost.example.org:1", False),
    ],
)
def test_what_strangers_can_reach(text: str, is_loopback: bool) -> None:
    address = parse_address(text)
    assert isinstance(address, TcpAddress)
    assert str(address) == text
    assert address.is_loopback() == is_loopback


def test_the_bulk_socket_is_beside_the_path_or_at_its_own_port() -> None:
    assert str(bulk_address(parse_address("ipc:///run/a"), 7)) == "ipc:///run/a.bulk"
    assert str(bulk_address(parse_address("tcp://host:1"), 7)) == "tcp://host:7"


def test_nobody_at_a_port_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        require_daemon(parse_address(f"tcp://127.0.0.1:{port}"))
    with pytest.raises(ConnectError, match=rf"no daemon at tcp://127.0.0.1:{port}: .* refused"):
        require_daemon(parse_address(f"tcp://127.0.0.1:{port}"))


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    longest = "/" + "a" * (PATH_BYTES_MAX - len(".attach") - 1)
    assert str(parse_address(f"ipc://{longest}").path) == longest
    with pytest.raises(OptionError) as caught:
        parse_address(f"ipc://{longest}b")
    assert str(caught.value) == (
        f"address: {longest}b has 101 bytes, a UNIX socket's path may have 100: "
        "choose a shorter one or set AUGD_RUNTIME_DIR"
    )


def test_the_directory_is_made_private(tmp_path: Path) -> None:
    make_runtime_dir(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    make_runtime_dir(tmp_path / "a" / "b")


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(OptionError) as caught:
        make_runtime_dir(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} can be written by other users, expected mode 0700: chmod 700 {tmp_path}"
    )
    tmp_path.chmod(0o1777)  # with the sticky bit nobody can replace what is another's
    make_runtime_dir(tmp_path)


def test_somebody_elses_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = tmp_path.stat().st_uid
    if owner == 0:
        os.chown(tmp_path, 4321, -1)
        owner = 4321
    else:
        monkeypatch.setattr(address_module.os, "geteuid", lambda: owner + 1)
    with pytest.raises(OptionError, match=rf"belongs to user {owner}, expected .*: set AUGD_RUN"):
        make_runtime_dir(tmp_path)


def test_no_daemon_is_told_at_once(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(ConnectError) as caught:
            require_daemon(parse_address(f"ipc://{path}"))
        assert str(caught.value) == (
            f"no daemon at ipc://{path}: start one with `augd serve PATH --listen ipc://{path}`, "
            "or pass the address that it printed"
        )
