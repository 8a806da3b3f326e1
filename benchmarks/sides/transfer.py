"""Competitor: a process that receives slots, and one that sends them; by frames or a socket.

The receiver tells the sender through a pipe, a byte per slot, how many more it may send: as
many are under way as a client with the default `prefetch` has slots. What is received is
compared once with what was sent, before anything is measured.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from augd.procfs import cpu_s
from augd.transport.address import TcpAddress
from augd.transport.bulk import BulkSender
from augd.transport.slots import FramedSlots
from augd.transport.sockets import Poller
from augd.wire import messages as msg
from augd.wire.codec import decode_over_attach
from augd.wire.slot import slot_layout
from benchmarks._rounds import answer_rounds

_ROWS = 256
_ARRAYS, SLOT_BYTES = slot_layout(_ROWS, 224, 224)
_NUM_SLOTS = 5
_LOOPBACK = "127.0.0.1"
_SESSION, _TOKEN = 1, "token"
_TIMEOUT_S = 60.0


class _ByFrames:
    """A client's slots, filled by pieces."""

    def __init__(self, port: int) -> None:
        self._slots = FramedSlots(TcpAddress(_LOOPBACK, port), _SESSION, _TOKEN)
        opened = msg.Opened(_SESSION, 1, 1, "", {}, "", 1, _ARRAYS, SLOT_BYTES, _NUM_SLOTS)
        self.memory = self._slots.open(opened)

    def receive(self, number: int) -> None:
        slot = number % _NUM_SLOTS
        batch = msg.BatchReady(_SESSION, 1, number, 0, number, 0, _ROWS, slot, 0)
        self._slots.fetch(batch, time.monotonic() + _TIMEOUT_S)


class _BySocket:
    """The same memory, filled by `recv_into`."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((_LOOPBACK, port), _TIMEOUT_S)
        self.memory = memoryview(mmap.mmap(-1, SLOT_BYTES * _NUM_SLOTS))

    def receive(self, number: int) -> None:
        start = number % _NUM_SLOTS * SLOT_BYTES
        slot = self.memory[start : start + SLOT_BYTES]
        filled = 0
        while filled < SLOT_BYTES:
            got = self._socket.recv_into(slot[filled:])
            if not got:
                raise RuntimeError("the sender ended")
            filled += got


def receive(kind: str) -> None:
    """Serve rounds: be the receiver, with a sender of its own."""
    with ExitStack() as stack:
        sender = stack.enter_context(_start_sender(kind))
        assert sender.stdin is not None and sender.stdout is not None
        allowance = sender.stdin
        stack.callback(sender.stdin.close)  # its end ends the sender
        port = int(sender.stdout.readline())
        receiver = _ByFrames(port) if kind == "frames" else _BySocket(port)
        number = 0

        def allow(count: int) -> None:
            allowance.write(b"\0" * count)
            allowance.flush()

        def take(count: int) -> None:
            nonlocal number
            for _ in range(count):
                receiver.receive(number)
                number += 1

        allow(_NUM_SLOTS)
        take(_NUM_SLOTS)
        if bytes(receiver.memory) != _content():
            raise RuntimeError("what came is not what was sent")

        def run_round(seconds: float) -> dict[str, float]:
            started, first = time.monotonic(), number
            own_s, senders_s = time.process_time(), cpu_s(sender.pid)
            allow(_NUM_SLOTS)
            while time.monotonic() - started < seconds:
                take(1)
                allow(1)
            take(_NUM_SLOTS)
            passed_s = time.monotonic() - started
            own_s, senders_s = time.process_time() - own_s, cpu_s(sender.pid) - senders_s
            gigabytes = (number - first) * SLOT_BYTES / 1e9
            return {
                "images": (number - first) * _ROWS,
                "seconds": passed_s,
                "cpu_s": own_s + senders_s,
                "gb_per_s": gigabytes / passed_s,
                "sender_cpu_s_per_gb": senders_s / gigabytes,
                "receiver_cpu_s_per_gb": own_s / gigabytes,
            }

        answer_rounds(run_round)


def _start_sender(kind: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sides.transfer", json.dumps({"send": kind})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _content() -> bytes:
    """Make slots that differ from each other and from any shift of themselves by a piece."""
    return b"".join(
        bytes([slot, part % 256]) * 2048
        for slot in range(_NUM_SLOTS)
        for part in range(SLOT_BYTES // 4096)
    )


def send(kind: str) -> None:
    """Be the sender, until the pipe from the receiver ends."""
    memory = mmap.mmap(-1, SLOT_BYTES * _NUM_SLOTS)
    memory[:] = _content()
    whole = memoryview(memory)
    slots = [whole[at : at + SLOT_BYTES] for at in range(0, len(whole), SLOT_BYTES)]
    if kind == "frames":
        _send_frames(slots)
    else:
        _send_plainly(slots)


def _send_frames(slots: list[memoryview]) -> None:
    sender = BulkSender()
    sender.bind(TcpAddress(_LOOPBACK, 0))
    print(sender.port, flush=True)
    poller = Poller()
    poller.register(sender.doors.routers[0], "router")
    while (received := sender.doors.receive(0)) is None:
        poller.wait(_TIMEOUT_S)
    attach = decode_over_attach(received[1][0])
    assert isinstance(attach, msg.AttachAs)
    sender.admit(attach.session, received[0])
    number = 0
    while allowed := os.read(0, _NUM_SLOTS):
        for _ in allowed:
            piece = msg.Piece(_SESSION, 1, number, 0, 0)
            if not sender.send(piece, slots[number % _NUM_SLOTS]):
                raise RuntimeError("the receiver is gone")
            number += 1
    sender.close()


def _send_plainly(slots: list[memoryview]) -> None:
    with socket.create_server((_LOOPBACK, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        connection, _ = listener.accept()
    number = 0
    with connection:
        while allowed := os.read(0, _NUM_SLOTS):
            for _ in allowed:
                connection.sendall(slots[number % _NUM_SLOTS])
                number += 1


def main(arguments: Mapping[str, Any]) -> None:
    """Be one end. Arguments: `receive` or `send`, with "frames" or "plain socket"."""
    if "send" in arguments:
        send(arguments["send"])
    else:
        receive(arguments["receive"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
