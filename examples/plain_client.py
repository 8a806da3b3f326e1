"""A client of augd in another hand: it imports nothing of augd, and follows docs/protocol.md alone.

It streams one epoch of a dataset by frames, over TCP, and checks the digests of rows and ids
against those of the producers. A client in another language does the same with its own libraries.

    augd serve photos/ --listen tcp://127.0.0.1:5555
    python examples/plain_client.py tcp://127.0.0.1:5555 photos

It prints the number of samples and the digest of the epoch, as `Stream.receipt` gives it.
"""

from __future__ import annotations

import secrets
import sys
from typing import Any, NoReturn

import msgpack
import numpy as np
import zmq
from xxhash import xxh3_64_intdigest, xxh3_128_intdigest

VERSION = b"\x01"
TIMEOUT_MS = 30_000
NUM_SLOTS = 3  # batches that may be on their way at once
RECIPE = {"filter": "antialias", "ops": [{"op": "random_resized_crop", "size": 224}]}
GAMMA, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
MASK = 2**64 - 1


class Session:
    """A session with a daemon: its two sockets, and the messages over them."""

    def __init__(self, address: str, dataset: str) -> None:
        """Open a session and attach it (P-20, P-22, P-92)."""
        self.context = zmq.Context()
        self.control = self._connect(address)
        self.send(type="HELLO", nonce=secrets.token_hex(8), transport="frames", dataset=dataset)
        welcome = self.receive("WELCOME")
        self.session: int = welcome["session"]
        host = address.rpartition(":")[0]
        self.bulk = self._connect(f"{host}:{welcome['bulk_port']}")
        attach = {"type": "ATTACH", "session": self.session, "token": welcome["token"]}
        self.bulk.send(VERSION + msgpack.packb(attach))

    def _connect(self, address: str) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        socket.connect(address)
        return socket

    def send(self, **message: Any) -> None:
        """Send a header: the version and a msgpack map (P-11, P-12)."""
        self.control.send(VERSION + msgpack.packb(message))

    def receive(self, *wanted: str) -> dict[str, Any]:
        """Wait for one of these messages; others are for people, or void."""
        while True:
            frames = read(self.control)
            message: dict[str, Any] = msgpack.unpackb(frames[0][1:])
            if message["type"] == "ERROR":
                fail(f"{message['code']}: {message['text']}")
            if message["type"] == "NOTICE":
                print(message["text"], file=sys.stderr)
            if message["type"] in wanted:
                return message

    def receive_slot(self, size_bytes: int, sequence: int) -> bytearray:
        """Put the pieces of a slot together (P-93 to P-96)."""
        slot = bytearray()
        while len(slot) < size_bytes:
            header, content = read(self.bulk)
            piece = msgpack.unpackb(header[1:])
            if not piece["size_bytes"]:
                continue  # a probe
            expected = (sequence, len(slot), len(content))
            if (piece["sequence"], piece["offset"], piece["size_bytes"]) != expected:
                fail(f"expected a piece of sequence, offset and size {expected}, got {piece}")
            slot += content
        return slot


def read(socket: zmq.Socket[bytes]) -> list[bytes]:
    """Receive the frames of one message."""
    if not socket.poll(TIMEOUT_MS):
        fail(f"nothing came for {TIMEOUT_MS // 1000} s")
    return socket.recv_multipart()


def fail(text: str) -> NoReturn:
    """End the program with one line."""
    sys.exit(f"plain_client: {text}")


def arrays_of(slot: bytearray, specs: list[dict[str, Any]], rows: int) -> dict[str, np.ndarray]:
    """Return views of a slot's arrays, cut to the rows of this batch."""
    found = {}
    for spec in specs:
        shape = (rows, *spec["shape"][1:])
        array = np.frombuffer(slot, spec["dtype"], int(np.prod(shape)), spec["offset"])
        found[spec["name"]] = array.reshape(shape)
    return found


def digests_of(arrays: dict[str, np.ndarray], position: int) -> tuple[int, int]:
    """Return the sums over rows of P-120 and P-121; padding counts nothing."""
    of_rows, of_ids = 0, 0
    for row, sample in enumerate(arrays["ids"].tolist()):
        if sample < 0:
            continue
        seed = xxh3_64_intdigest(arrays["ids"][row].tobytes() + arrays["labels"][row].tobytes())
        of_rows += xxh3_128_intdigest(arrays["images"][row].tobytes(), seed)
        x = (sample + GAMMA * (position + row + 1)) & MASK
        x = ((x ^ x >> 30) * MIX_1) & MASK
        x = ((x ^ x >> 27) * MIX_2) & MASK
        of_ids += x ^ x >> 31
    return of_rows % 2**128, of_ids % 2**64


def stream(address: str, dataset: str) -> tuple[int, str]:
    """Stream epoch 0; return the number of its samples and the digest of all its rows."""
    session = Session(address, dataset)
    number = session.session
    spec = {"dataset": dataset, "recipe": RECIPE, "layout": {"batch_size": 64}, "prefetch": 2}
    session.send(type="OPEN", session=number, opening=1, spec=spec, credit=NUM_SLOTS)
    opened = session.receive("OPENED")
    samples, digest, ids_digest, released = 0, 0, 0, 0
    while (message := session.receive("BATCH", "EPOCH_END"))["type"] == "BATCH":
        slot = session.receive_slot(opened["slot_bytes"], message["sequence"])
        arrays = arrays_of(slot, opened["arrays"], message["rows"])
        of_rows, of_ids = digests_of(arrays, message["position"])
        if of_rows != int.from_bytes(message["digest"], "little"):
            fail(f"batch {message['number']}: its bytes have another digest than BATCH says")
        samples += len(arrays["ids"])
        digest, ids_digest = (digest + of_rows) % 2**128, (ids_digest + of_ids) % 2**64
        released += 1
        place = {"slot": message["slot"], "generation": message["generation"]}
        session.send(type="RELEASE", session=number, **place)
        session.send(type="FLOW", session=number, opening=1, credit=NUM_SLOTS + released)
    sums = (message["samples"], message["digest"], message["ids_digest"])
    if sums != (samples, digest.to_bytes(16, "little"), ids_digest.to_bytes(8, "little")):
        fail(f"EPOCH_END counts {sums}, here are {samples} samples with other digests")
    session.send(type="BYE", session=number)
    session.context.destroy(linger=1000)
    return samples, f"{digest:032x}"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        fail("usage: plain_client.py ADDRESS DATASET, for example tcp://127.0.0.1:5555 photos")
    print(*stream(*sys.argv[1:]))
