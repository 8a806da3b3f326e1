"""The sandboxed process that transcodes images: see `augd/diagnostics/decode_process.py`.

A packer writes shards and decodes nothing. The process that decodes untrusted bytes writes no file.
The packer checks each result: its size, and its table, from which the index is made.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import msgpack

from augd.cli.pack.photo import Packed, Shrink, pack_photo
from augd.diagnostics.decode_process import Answer, DecodeProcess, DecoderLost, answer_all
from augd.pixels.headers.read_header import BadImage, Header
from augd.pixels.jpeg_segments import Table

_STRIKES: Final = 2
_MOST_BYTES: Final = 1 << 30  # of what a photo becomes: twice the largest file that is read


class _Pack(msgspec.Struct, frozen=True):
    """Request: transcode the file that follows."""

    shrink: Shrink | None


class _Cut(msgspec.Struct, frozen=True, array_like=True):
    """A table of segments: its numbers, and the lengths' bytes."""

    size: tuple[int, int]
    mcu: tuple[int, int]
    interval: int
    scan_offset: int
    lengths: bytes


class _Made(msgspec.Struct, frozen=True):
    """Reply: the bytes for the shard follow; none if the file stays as it is."""

    header: Header | None
    cut: _Cut | None
    is_packed: bool
    reason: str
    is_shrunk: bool


class Packer(DecodeProcess):
    """The packer's end of the process. Use it in a `with`."""

    def __init__(self, shrink: Shrink | None) -> None:
        super().__init__(__name__)
        self._question = _Pack(shrink)

    def pack(self, content: bytes | bytearray) -> Packed:
        """Transcode a file's bytes for a shard; one that kills its decoder stays as it is."""
        died = ""
        for _ in range(_STRIKES):
            try:
                said, body = self.ask(self._question, content, _MOST_BYTES)
            except DecoderLost as lost:
                died = str(lost)
                continue
            try:
                return _read(said, body or content)
            except (msgspec.DecodeError, BadImage) as error:
                return Packed(content, None, None, "kept", f"not transcoded: {error}")
        return Packed(content, None, None, "kept", died)


def _read(said: bytes, data: bytes | bytearray) -> Packed:
    made = msgpack.decode(said, type=_Made)
    table = None
    if made.cut is not None:
        lengths = memoryview(made.cut.lengths).cast("H")
        table = Table.of(
            made.cut.size, made.cut.mcu, made.cut.interval, made.cut.scan_offset, lengths
        )
    how: Literal["packed", "kept"] = "packed" if made.is_packed else "kept"
    return Packed(data, made.header, table, how, made.reason, made.is_shrunk)


def _answer(question: bytes, content: bytearray) -> Answer:
    asked = msgpack.decode(question, type=_Pack)
    one = pack_photo(content, asked.shrink)
    cut = None
    if (table := one.table) is not None:
        sizes = (table.width, table.height), (table.mcu_width, table.mcu_height)
        cut = _Cut(*sizes, table.interval, table.scan_offset, table.lengths.tobytes())
    made = _Made(one.header, cut, one.how == "packed", one.reason, one.is_shrunk)
    return msgpack.encode(made), b"" if one.data is content else one.data


if __name__ == "__main__":
    answer_all(_answer)
