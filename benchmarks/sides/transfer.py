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
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from augd.client.slots import FramedSlots
from augd.diagnostics.procfs import cpu_s
from augd.protocol import messages as msg
from augd.protocol.codec import decode_over_attach, encode
from augd.protocol.permissions import Rights
from augd.protocol.slot_layout import row_frames, slot_layout
from augd.transport.address import TcpAddress
from augd.transport.auth import keys
from augd.transport.auth.authenticator import Authenticator
from augd.transport.auth.curve import client_curve
from augd.transport.batch_channel import BatchChannel
from augd.transport.row_channel import RowChannel
from augd.transport.zmq_sockets import Dealer, Poller
from benchmarks._rounds import answer_rounds

_ROWS = 256
_CHUNKS = 8
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
        batch = msg.BatchMessage(_SESSION, 1, number, 0, number, 0, _ROWS, slot, 0)
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


class _ByRows:
    """A daemon's rows socket: the sender is a remote producer, and connects; with keys or without.

    A message is a chunk, an eighth of a slot, as producers send them.
    """

    def __init__(self, stack: ExitStack, kind: str) -> None:
        self.memory = memoryview(mmap.mmap(-1, SLOT_BYTES * _NUM_SLOTS))
        self._gate: Authenticator | None = None
        self.keys = ""
        if kind == "rows, CURVE":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server, pair = keys.make_server_pair(folder / "keys"), keys.make_pair()
            self.keys = str(folder / "maker.key")
            own = keys.ClientKeys("maker", pair, server.public)
            keys.write_client_keys(Path(self.keys), own)
            known = keys.KnownClient(pair.public, Rights("maker", may_produce=True))
            keys.register(folder / "keys", known)
            self._gate = Authenticator(folder / "keys")
            self._gate.open()
            stack.callback(self._gate.close)
        self._rows = RowChannel(None if self._gate is None else self._gate.produce_curve)
        stack.callback(self._rows.close)
        self._door = len(self._rows.router_pair.routers) - 1
        self._rows.bind(TcpAddress(_LOOPBACK, 0))
        self.port = self._rows.port
        self._poller = Poller()
        self._poller.register(self._rows.router_pair.routers[self._door], "rows")
        if self._gate is not None:
            self._poller.register(self._gate, "gate")

    def receive(self, number: int) -> None:
        start = number % _NUM_SLOTS * SLOT_BYTES
        for chunk in range(_CHUNKS):
            while self._rows.receive(self._door) is None:
                if "gate" in self._poller.wait(_TIMEOUT_S) and self._gate is not None:
                    self._gate.serve()
            places = _frames_of(self.memory[start : start + SLOT_BYTES], chunk)
            if not self._rows.receive_rows(self._door, places):
                raise RuntimeError("what came is not what was sent")


def _frames_of(slot: memoryview, chunk: int) -> list[memoryview]:
    rows = _ROWS // _CHUNKS
    return [slot[at : at + size] for at, size in row_frames(_ARRAYS, chunk * rows, rows)]


def receive(kind: str) -> None:
    """Serve rounds: be the receiver, with a sender of its own."""
    with ExitStack() as stack:
        by_rows = _ByRows(stack, kind) if kind.startswith("rows") else None
        towards = (by_rows.port, by_rows.keys) if by_rows is not None else (0, "")
        sender = stack.enter_context(_start_sender(kind, *towards))
        assert sender.stdin is not None and sender.stdout is not None
        allowance = sender.stdin
        stack.callback(sender.stdin.close)  # its end ends the sender
        port = int(sender.stdout.readline())
        by_others = _ByFrames if kind == "frames" else _BySocket
        receiver = by_rows or by_others(port)
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
        if by_rows is None and bytes(receiver.memory) != _content():
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


def _start_sender(kind: str, port: int, keys: str) -> subprocess.Popen[bytes]:
    arguments = json.dumps({"send": kind, "port": port, "keys": keys})
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sides.transfer", arguments],
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


def send(kind: str, port: int = 0, keys: str = "") -> None:
    """Be the sender, until the pipe from the receiver ends."""
    memory = mmap.mmap(-1, SLOT_BYTES * _NUM_SLOTS)
    memory[:] = _content()
    whole = memoryview(memory)
    slots = [whole[at : at + SLOT_BYTES] for at in range(0, len(whole), SLOT_BYTES)]
    if kind == "frames":
        _send_frames(slots)
    elif kind.startswith("rows"):
        _send_rows(slots, TcpAddress(_LOOPBACK, port), keys)
    else:
        _send_plainly(slots)


def _send_rows(slots: list[memoryview], address: TcpAddress, keys: str) -> None:
    dealer = Dealer(address, client_curve(address, keys or None))
    header = encode(msg.Done(1))
    print(0, flush=True)
    number = 0
    while allowed := os.read(0, _NUM_SLOTS):
        for _ in allowed:
            for chunk in range(_CHUNKS):
                dealer.send_rows([header, *_frames_of(slots[number % _NUM_SLOTS], chunk)])
            number += 1
    dealer.close()


def _send_frames(slots: list[memoryview]) -> None:
    sender = BatchChannel()
    sender.bind(TcpAddress(_LOOPBACK, 0))
    print(sender.port, flush=True)
    poller = Poller()
    poller.register(sender.router_pair.routers[0], "router")
    while (received := sender.router_pair.receive(0)) is None:
        poller.wait(_TIMEOUT_S)
    attach = decode_over_attach(received[1][0])
    assert isinstance(attach, msg.AttachMessage)
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
        send(arguments["send"], arguments["port"], arguments["keys"])
    else:
        receive(arguments["receive"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
