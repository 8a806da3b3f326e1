"""Daemons and trainers to be killed: started as a person would, and followed to the last byte."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import augd
from augd.client.status import status as ask_status
from tests.support.scenes import arrays_of

VICTIM_BYTES = 7_777

# A decoder with a deed of its own for one file, which it knows by its size. What must be remembered
# from one producer to the next stands in a file that is opened before they give up writing.
HOOK = """
import sys
if "augd.server.producer" in sys.orig_argv:
    import ctypes, os, time
    import cv2
    marks = open({marks!r}, "ab")
    imdecode = cv2.imdecode

    def hooked(data, flags):
        if len(data) == {size_bytes} and os.fstat(marks.fileno()).st_size < {times}:
            os.write(marks.fileno(), b".")
            {deed}
        return imdecode(data, flags)

    cv2.imdecode = hooked
"""


def start_by_hand(folder: Path | str, address: str, *more: str) -> subprocess.Popen[str]:
    """Start `augd serve` as a person would; returns when it says that it serves."""
    process = begin_by_hand(folder, address, *more)
    assert process.stdout is not None
    if "serving" not in process.stdout.readline():
        process.kill()
        raise AssertionError(f"the daemon did not start: {finish(process)[1]}")
    return process


def begin_by_hand(folder: Path | str, address: str, *more: str) -> subprocess.Popen[str]:
    """Start `augd serve` and don't wait for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "augd", "serve", str(folder), "--listen", address, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for its end; returns its status and what it wrote to stderr."""
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL it, and reap it."""
    process.kill()
    finish(process)


def free_port() -> int:
    """Return a port that nobody listens at, at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def put_in_place(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every Python that is started from now on run this first."""
    (folder / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{Path.cwd()}")


def follow(
    stream: augd.Stream,
    epochs: int,
    on_batch: Callable[[augd.Batch], None] = lambda batch: None,
    *,
    first: int = 0,
) -> list[tuple[str, dict[str, Any]]]:
    """Read epochs; returns the digest of every byte and the receipt of each."""
    found = []
    for epoch in range(first, first + epochs):
        digest = hashlib.blake2b()
        for batch in stream.epoch(epoch):
            on_batch(batch)
            for array in arrays_of(batch).values():
                digest.update(array.tobytes())
        found.append((digest.hexdigest(), stream.receipt(epoch)))
    return found


def is_up(address: str, num_producers: int) -> bool:
    """Say whether all producers of a daemon are ready."""
    states = [one["state"] for one in ask_status(address, 10)["producers"]]
    return states == ["ready"] * num_producers


def mark_victim(photo: Path) -> None:
    """Give a JPEG the size by which `HOOK` knows it, by a comment that changes no pixel."""
    content = photo.read_bytes()
    comment_bytes = VICTIM_BYTES - len(content) - 4  # a segment of its own, after the first marker
    segment = b"\xff\xfe" + (comment_bytes + 2).to_bytes(2, "big") + b"." * comment_bytes
    photo.write_bytes(content[:2] + segment + content[2:])
    assert photo.stat().st_size == VICTIM_BYTES
