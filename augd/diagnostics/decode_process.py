"""A separate process that decodes untrusted files: bytes in, pixels out.

For commands that read single files (`preview`, `explain`, `pca`, `pack`): they never decode in
their own process. The decode process is confined as a producer is, answers one question at a time,
and is started when it is first needed. One that dies or is silent is replaced at the next question,
and the file is then reported as a bad image.

A message is two lengths, a question or an answer in msgpack, and bytes: a file's, or pixels. The
parent checks an answer's size. A compromised process can return other pixels, and nothing else. It
reports once that it is ready, so that its start does not count against the first image.

Invariants: every wait has a deadline; the process ends when its parent does, however that ends.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, Self

import msgspec
import numpy as np
from msgspec import msgpack

from augd.pixels.decode import Pixels, at_scale, configure, decode, silence_library_noise
from augd.pixels.headers.read_header import BadImage, Header, read_header
from augd.pixels.headers.size_limits import max_data_bytes
from augd.pixels.transparency import BLACK, Background
from augd.process import interpreter
from augd.process.awake_clock import Awake
from augd.process.child_environment import ENVIRONMENT, without_secrets
from augd.process.exit_status import describe_status, end
from augd.process.parent_death import die_with
from augd.process.sandbox import confine, limit

PATIENCE_S = 60.0
"""For one answer: an image of 64 megapixels takes a few seconds, also under load."""

START_S: Final = 120.0
"""For its start, which on a machine under load takes longer than any image."""

_READY: Final = b"\1"
_HEAD_BYTES_MAX: Final = 1 << 20
_LENGTHS: Final = struct.Struct("<II")
_PART_BYTES: Final = 1 << 20

Answer = tuple[bytes, Any]
"""An answer: a struct in msgpack, and the bytes-like that follow."""


class DecoderLost(Exception):
    """The process died at its question, or was silent; the text says which."""


class Decode(msgspec.Struct, frozen=True):
    """Decode a region of the file that follows; see `augd.pixels.decode.decode`."""

    region: tuple[int, int, int, int]
    scale: int = 1
    background: Background = BLACK


class DecodedReply(msgspec.Struct, frozen=True):
    """The pixels follow, or `reason` says why there are none."""

    reason: str = ""


class _Due(NamedTuple):
    """A deadline."""

    clock: Awake
    at: float


class DecodeProcess:
    """The parent's end. `module` is the program that answers; use it in a `with`."""

    def __init__(self, module: str = __name__) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._is_ready = False
        self._clock = Awake()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._end()

    def ask(self, question: msgspec.Struct, content: Any, most_bytes: int) -> tuple[bytes, Any]:
        """Ask, and return the answer with what follows it, at most `most_bytes`.

        Raises:
            DecoderLost: the process died of it, or did not answer in time.
        """
        if self._process is None:
            self._start()
        assert self._link is not None
        patience_s = START_S
        try:
            if not self._is_ready:
                _read(self._link, len(_READY), self._due(START_S))
                self._is_ready = True
            patience_s = PATIENCE_S
            due = self._due(PATIENCE_S)
            _send(self._link, msgpack.encode(question), content, due)
            return _receive(self._link, most_bytes, due)
        except TimeoutError:
            self.close()
            raise DecoderLost(f"its decoder was silent for {patience_s:g} s") from None
        except (EOFError, OSError):
            raise DecoderLost(f"the decoder died of it ({describe_status(self._end())})") from None

    def decode(
        self,
        data: bytes | bytearray,
        header: Header,
        region: tuple[int, int, int, int],
        scale: int = 1,
        background: Background = BLACK,
    ) -> Pixels:
        """Decode, as `augd.pixels.decode.decode` does, in the process.

        Raises:
            BadImage: as there, or the decoder died of it.
        """
        *_, width, height = at_scale(region, scale)
        question = Decode(region, scale, background)
        try:
            said, body = self.ask(question, data, width * height * 3)
        except DecoderLost as lost:
            raise BadImage(str(lost)) from None
        if reason := msgpack.decode(said, type=DecodedReply).reason:
            raise BadImage(reason)
        if len(body) != width * height * 3:
            raise BadImage(f"decoded to another size: got {len(body)} bytes")
        return np.frombuffer(body, np.uint8).reshape(height, width, 3)

    def _due(self, patience_s: float) -> _Due:
        return _Due(self._clock, self._clock.now() + patience_s)

    def _start(self) -> None:
        near, far = socket.socketpair()
        near.setblocking(False)  # this end waits in `_await`, with a deadline; the other one blocks
        try:
            self._process = interpreter.start(
                *(self._module, str(far.fileno()), str(os.getpid())),
                pass_fds=(far.fileno(),),
                env={**without_secrets(), **ENVIRONMENT},
            )
        except BaseException:
            near.close()
            raise
        finally:
            far.close()
        self._link, self._is_ready = near, False

    def _end(self) -> int:
        """Reap the process; return its status, or that of the SIGKILL sent to it."""
        assert self._process is not None and self._link is not None
        self._link.close()
        status = end(self._process)
        self._process = self._link = None
        return status


def _send(link: socket.socket, head: bytes, body: Any, due: _Due | None) -> None:
    view = memoryview(body).cast("B")
    for part in (memoryview(_LENGTHS.pack(len(head), len(view)) + head), view):
        at = 0
        while at < len(part):
            _await(link, select.POLLOUT, due)
            with suppress(BlockingIOError):
                at += link.send(part[at : at + _PART_BYTES])


def _receive(link: socket.socket, most_bytes: int, due: _Due | None) -> tuple[bytes, bytearray]:
    head_bytes, body_bytes = _LENGTHS.unpack(_read(link, _LENGTHS.size, due))
    if head_bytes > _HEAD_BYTES_MAX or body_bytes > most_bytes:
        raise OSError("a message that is too long")
    return bytes(_read(link, head_bytes, due)), _read(link, body_bytes, due)


def _read(link: socket.socket, size: int, due: _Due | None) -> bytearray:
    found = bytearray(size)
    view, at = memoryview(found), 0
    while at < size:
        _await(link, select.POLLIN, due)
        count = link.recv_into(view[at : at + _PART_BYTES])
        if not count:
            raise EOFError
        at += count
    return found


def _await(link: socket.socket, event: int, due: _Due | None) -> None:
    """Wait until the socket is ready. Raises TimeoutError at the deadline."""
    if due is None:
        return
    poller = select.poll()
    poller.register(link, event)
    left_s = max(0.0, due.at - due.clock.now())
    if not due.clock.wait(lambda slice_s: poller.poll((slice_s or 0.0) * 1000), left_s):
        raise TimeoutError


# --- the process ---------------------------------------------------------------------------------


def answer_all(answer: Callable[[bytes, bytearray], Answer]) -> None:
    """Confine this process, and answer until the parent ends; called with the program's argv."""
    link_fd, parent_pid = map(int, sys.argv[1:3])
    die_with(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit(max_data_bytes())
    configure()
    silence_library_noise()
    link = socket.socket(fileno=link_fd)
    confine()
    try:
        link.sendall(_READY)
        while True:
            said, body = answer(*_receive(link, 1 << 32, None))
            _send(link, said, body, None)
    except (EOFError, ConnectionError):
        pass


def _answer(question: bytes, content: bytearray) -> Answer:
    asked = msgpack.decode(question, type=Decode)
    try:
        header = read_header(content)
        pixels = decode(content, header, asked.region, asked.scale, asked.background)
    except (BadImage, ValueError, MemoryError) as bad:
        return msgpack.encode(DecodedReply(str(bad) or type(bad).__name__)), b""
    return msgpack.encode(DecodedReply()), np.ascontiguousarray(pixels)


if __name__ == "__main__":
    answer_all(_answer)
