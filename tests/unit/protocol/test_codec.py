"""The encoding of messages: golden vectors both ways, then everything that must be refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augd.errors import ProtocolError
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.limits import HEADER_BYTES_MAX

DOCUMENT = Path(__file__).parents[3] / "docs" / "protocol.md"

_LAYOUT = msg.Layout(256, 1, 2, True)
_RECIPE = {"filter": "linear", "ops": [{"op": "center_crop", "size": [224, 224]}]}
_SPEC = msg.Spec("photos", _RECIPE, _LAYOUT, 7, False, "fail", 0.25, 2)
_ARRAYS = (msg.ArraySpec("ids", "int64", (256,), 64),)
_CHOSEN = msg.Chosen(900, 3, 2)
_SHARE = msg.Share("here", 2, 30.0, 4)
_QUARANTINE = ((41, 5, 640),)
_DIGEST = bytes(range(16))
_ENTRY = msg.CacheEntry(41, 64, 500, 375, 6, _DIGEST[:8], True)
_BAD = msg.BadRow(41, "cat/41.jpg", "JPEG ends after 10 of 99 bytes")

# One of each, with every field set to something else than its default.
MESSAGES: dict[str, msg.Message] = {
    message.__struct_config__.tag: message
    for message in (
        msg.Hello("6e6f6e6365", "augd 0.1", "frames", "photos"),
        msg.Open(3, 2, _SPEC, 5, 512, 3, ((1, 9),), _QUARANTINE, _SHARE),
        msg.Flow(3, 2, 17, 250_000, 40_000, 90_000),
        msg.Release(3, 1, 9),
        msg.Bye(3, ((1, 9),)),
        msg.Status(),
        msg.Paths("photos", "aabb", (41, 0)),
        msg.Ping(),
        msg.Welcome("6e6f6e6365", "abcd", 3, "/run/augd/default.attach", "f00d", 4242, {"val": 9}),
        msg.Opened(
            *(3, 2, 4, "00112233", {"seed": "7"}, "photos", 1000, _ARRAYS, 4096, 3),
            *(5, 512, _QUARANTINE, True, 3, "5eed", (("01d", "files 1 changed: a.jpg"),)),
            (msg.PhaseArrays(9, _ARRAYS),),
        ),
        msg.BatchMessage(3, 2, 16, 5, 8, 4096, 256, 1, 9, 1, _DIGEST),
        msg.EpochEnd(3, 2, 5, 4, 1000, 1, _DIGEST, _DIGEST[:8]),
        msg.QuarantinedMessage(3, _QUARANTINE, "sample 41 ended its producer twice"),
        msg.Detached(3, "session 3 is 5 batches behind"),
        msg.Notice("slow", "the client is slow"),
        msg.Error("UNKNOWN_DATASET", "dataset: none", 3, 2, True),
        msg.StatusReply({"restarts": 1}),
        msg.PathsReply((b"cat/41.jpg", b"\xff")),
        msg.Pong(),
        msg.Join("node7", 4711, {"photos": "aabb"}, {"opencv": "5.0"}, "seccomp"),
        msg.Joined(1024, "f00d", 4243),
        msg.Ready(4711, {"opencv": "5.0"}, "seccomp"),
        msg.CacheMessage(1 << 33, True),
        msg.Room(64, 1 << 26),
        msg.DatasetMessage("photos", "/photos", "aabb", True),
        msg.StreamMessage(
            *(4, "photos", _RECIPE, _LAYOUT, 7, False, _ARRAYS, 4096, 3),
            *(_CHOSEN, msg.Selection("train", 0.2, ("cat", "dog"), 900, "class")),
            *(msg.Repeats(3, 256), (msg.PhaseArrays(9, _ARRAYS),)),
        ),
        msg.Mask(4, _QUARANTINE),
        msg.Drop(4),
        msg.Lease(99, 4, 5, 4096, 32, 32, 1, 1),
        msg.Revoke((99, 100)),
        msg.Done(99, 1, (_BAD,), _DIGEST, _DIGEST[:8], 3, 2, 1, 30, 2, 3, 14),
        msg.Dropped(99),
        msg.Fail(99, "ValueError", "PLUGIN_FAILED"),
        msg.Cached("photos", (_ENTRY,), 1 << 20),
        msg.Alive(99),
        msg.LastWords("MemoryError"),
        msg.Trouble("no kernels"),
        msg.Drain(),
        msg.Kill(),
        msg.Part("nobody here knows this connection"),
        msg.Beat(True),
        msg.Ended("SIGSEGV", "signal", (99, 3, 41)),
        msg.AttachMessage(3, "f00d"),
        msg.Arena(4, 12288),
        msg.Piece(3, 2, 16, 4194304, 12288),
    )
}

Decode = Callable[[bytes], msg.Message]
DECODERS: dict[Decode, Any] = {
    codec.decode_from_client: msg.FromClient,
    codec.decode_to_client: msg.ToClient,
    codec.decode_from_producer: msg.FromProducer,
    codec.decode_to_producer: msg.ToProducer,
    codec.decode_from_relay: msg.FromRelay,
    codec.decode_to_relay: msg.ToRelay,
    codec.decode_over_attach: msg.OverAttach,
}


def decoder_of(message: msg.Message) -> Decode:
    return next(decode for decode, kinds in DECODERS.items() if type(message) in get_args(kinds))


def golden_vectors() -> dict[str, bytes]:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z_]+) \| `([0-9a-f]+)` \|$", text, re.MULTILINE)
    return {tag: bytes.fromhex(digits) for tag, digits in rows}


GOLDEN = golden_vectors()


def test_every_message_has_a_sample_and_a_golden_vector() -> None:
    kinds = [kind for union in DECODERS.values() for kind in get_args(union)]
    assert [kind.__struct_config__.tag for kind in kinds if kind.__struct_config__.tag] == [
        kind.__struct_config__.tag for kind in kinds
    ]
    assert set(MESSAGES) == {kind.__struct_config__.tag for kind in kinds} == set(GOLDEN)


def test_samples_leave_no_field_at_its_default() -> None:
    for tag, message in MESSAGES.items():
        fields = msgspec.structs.fields(message)
        left = [f.name for f in fields if getattr(message, f.name) == f.default]
        assert left == [], tag


@pytest.mark.clause("P-166")
@pytest.mark.parametrize("tag", ["OPENED", "STREAM"])
def test_a_stream_without_phases_is_announced_as_before_there_were_any(tag: str) -> None:
    plain = msgspec.structs.replace(MESSAGES[tag], phases=())
    assert b"phases" in codec.encode(MESSAGES[tag]) and b"phases" not in codec.encode(plain)


@pytest.mark.parametrize("tag", MESSAGES)
def test_golden_vectors_both_ways(tag: str) -> None:
    message = MESSAGES[tag]
    assert codec.encode(message).hex() == GOLDEN[tag].hex()
    assert decoder_of(message)(GOLDEN[tag]) == message
    assert decoder_of(message)(memoryview(GOLDEN[tag])) == message


@pytest.mark.parametrize("tag", MESSAGES)
def test_no_prefix_and_no_longer_frame_decodes(tag: str) -> None:
    frame, decode = GOLDEN[tag], decoder_of(MESSAGES[tag])
    for end in range(len(frame)):
        with pytest.raises(ProtocolError):
            decode(frame[:end])
    for more in (b"\x00", b"\xc0", frame):
        with pytest.raises(ProtocolError):
            decode(frame + more)


@pytest.mark.parametrize("tag", MESSAGES)
def test_unknown_fields_are_ignored(tag: str) -> None:
    fields = {**msgspec.msgpack.decode(GOLDEN[tag][1:]), "from_the_future": [{"a": 1}, None]}
    assert decoder_of(MESSAGES[tag])(b"\x01" + msgspec.msgpack.encode(fields)) == MESSAGES[tag]


@pytest.mark.parametrize("tag", MESSAGES)
def test_lying_types_are_refused_with_the_path_to_the_value(tag: str) -> None:
    fields = msgspec.msgpack.decode(GOLDEN[tag][1:])
    for name in fields.keys() - {"type"}:
        for lie in (object, b"\xff", [[]]):
            wrong = {"no": "field"} if lie is object else lie
            if isinstance(fields[name], type(wrong) if lie is not object else dict):
                continue
            frame = b"\x01" + msgspec.msgpack.encode({**fields, name: wrong})
            with pytest.raises(ProtocolError, match=rf"header does not decode: .* `\$\.{name}"):
                decoder_of(MESSAGES[tag])(frame)


@pytest.mark.parametrize("tag", MESSAGES)
def test_nobody_takes_anothers_messages(tag: str) -> None:
    for decode, kinds in DECODERS.items():
        if type(MESSAGES[tag]) not in get_args(kinds):
            with pytest.raises(ProtocolError, match=rf"Invalid value '{tag}' - at `\$.type`"):
                decode(GOLDEN[tag])


@pytest.mark.parametrize("version", [0, 2, 0x81, 255])
def test_another_version_is_named(version: int) -> None:
    with pytest.raises(codec.UnsupportedVersion) as caught:
        codec.decode_from_client(bytes([version]) + GOLDEN["PING"][1:])
    assert caught.value.code == "UNSUPPORTED_VERSION"
    assert str(caught.value) == (
        f"the peer speaks protocol version {version}, this side speaks 1; "
        "install the same version of augd on both sides"
    )


def test_a_header_has_a_largest_size_both_ways() -> None:
    room = HEADER_BYTES_MAX - len(codec.encode(msg.StatusReply({"a": ""})))
    longest = codec.encode(msg.StatusReply({"a": "x" * (room - 2)}))
    assert len(longest) <= HEADER_BYTES_MAX
    codec.decode_to_client(longest)
    with pytest.raises(
        ProtocolError, match="message STATUS_REPLY is 65537 bytes, more than the 65"
    ):
        codec.encode(msg.StatusReply({"a": "x" * (HEADER_BYTES_MAX - len(longest) + room - 1)}))
    with pytest.raises(ProtocolError, match="header of 65537 bytes, expected at most 65536"):
        codec.decode_from_client(bytes(HEADER_BYTES_MAX + 1))


@pytest.mark.parametrize("depth", [10, 1_000, 60_000])
@pytest.mark.parametrize("opener", [b"\x91", b"\x81\xa1a"])
def test_deep_nesting_is_refused_or_harmless(depth: int, opener: bytes) -> None:
    depth = min(depth, (HEADER_BYTES_MAX - 100) // len(opener))
    head = b"\x01\x82\xa4type\xa4PING\xa1a"
    try:
        assert codec.decode_from_client(head + opener * depth + b"\xc0") == msg.Ping()
    except ProtocolError as error:
        assert depth > 100, error


def test_an_error_never_quotes_much_of_what_it_refuses() -> None:
    frame = b"\x01" + msgspec.msgpack.encode({"type": "X" * 65_000})
    with pytest.raises(ProtocolError) as caught:
        codec.decode_from_client(frame)
    assert len(str(caught.value)) < 500
    assert str(caught.value).endswith("X' - at `$.type`")
    codec.encode(msg.Error("MALFORMED", str(caught.value)))


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"max_bad_fraction": float("nan")}, "$.spec.max_bad_fraction"),
        ({"max_bad_fraction": 1.5}, "$.spec.max_bad_fraction"),
        ({"prefetch": 0}, "$.spec.prefetch"),
        ({"prefetch": 1025}, "$.spec.prefetch"),
        ({"seed": 2**63}, "$.spec.seed"),
        ({"seed": True}, "$.spec.seed"),
        ({"bad": "ignore"}, "$.spec.bad"),
        ({"dataset": "d" * 257}, "$.spec.dataset"),
        ({"layout": {"batch_size": 0}}, "$.spec.layout.batch_size"),
        ({"layout": {"batch_size": 1, "rank": -1}}, "$.spec.layout.rank"),
        ({"layout": {"batch_size": 1, "world": 0}}, "$.spec.layout.world"),
        ({"layout": {"batch_size": 1.0}}, "$.spec.layout.batch_size"),
    ],
)
def test_bounds_are_enforced_before_anything_acts(spec: dict[str, Any], path: str) -> None:
    fields = msgspec.msgpack.decode(GOLDEN["OPEN"][1:])
    fields["spec"] |= spec
    with pytest.raises(ProtocolError, match=rf" `{re.escape(path)}`"):
        codec.decode_from_client(b"\x01" + msgspec.msgpack.encode(fields))


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_protocol_errors(noise: bytes) -> None:
    for decode in DECODERS:
        for frame in (noise, b"\x01" + noise):
            try:
                decode(frame)
            except ProtocolError:
                pass
            else:
                assert frame[:1] == b"\x01"


@given(st.sampled_from(sorted(MESSAGES)), st.data())
def test_a_flipped_byte_gives_a_message_or_a_protocol_error(tag: str, data: st.DataObject) -> None:
    frame = bytearray(GOLDEN[tag])
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    for decode in DECODERS:
        try:
            assert isinstance(decode(bytes(frame)), msg.Message)
        except ProtocolError:
            continue


def test_class_lists_may_be_longer_than_a_header() -> None:
    names = [f"class {number}" for number in range(20_000)]
    frame = codec.encode_names(names)
    assert len(frame) > HEADER_BYTES_MAX
    assert codec.decode_names(frame) == names
    for wrong in (b"", frame[:-1], msgspec.msgpack.encode([1]), b"\xa1\xff"):
        with pytest.raises(ProtocolError, match="class list does not decode"):
            codec.decode_names(wrong)


def test_what_a_peer_wrote_is_quoted_as_one_printable_line() -> None:
    """Else it could write lines of its own into a log, or steer a terminal."""
    tag = "\x1b[2J\naugd: all is well\u2028"
    for decode in DECODERS:
        with pytest.raises(ProtocolError) as caught:
            decode(b"\x01" + msgspec.msgpack.encode({"type": tag}))
        assert str(caught.value).isprintable()
        assert r"\u001b[2J\u000aaugd: all is well\u2028" in str(caught.value)


def test_a_number_beyond_64_bits_is_refused_by_name() -> None:
    with pytest.raises(ProtocolError, match="message FLOW has a number beyond 64 bits"):
        codec.encode(msg.Flow(3, 2, 1 << 64))
