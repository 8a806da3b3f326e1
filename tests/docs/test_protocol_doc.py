"""docs/protocol.md says what the code does: tables, and a test for every clause.

The tables between `<!-- table: NAME -->` and `<!-- end -->` are rendered here from the code;
`python -m tests.docs.test_protocol_doc` writes them anew. The golden vectors are not: they
change only by hand, together with the protocol's version.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

from augd.plan.order.repeat_option import Repeats
from augd.plan.order.shuffle_option import Blocks
from augd.protocol import messages as msg
from augd.protocol.limits import HEADER_BYTES_MAX, PIECE_BYTES, PLACES_MAX, QUARANTINE_MAX
from augd.server.daemon.broker import (
    broker,
    chunk_size,
    failures,
    outbox,
    producers,
    quarantine,
    remote_producers,
    sessions,
)
from augd.server.daemon.broker.states import CHUNK, PRODUCER, SESSION, SLOT, Table
from augd.server.relay import remote_producer

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "protocol.md"
_BLOCK = re.compile(r"<!-- table: ([a-z ]+) -->\n(.*?)<!-- end -->", re.DOTALL)
_CLAUSE = re.compile(r"^- \*\*\[(P-\d+)\]\*\* ", re.MULTILINE)


def render_states(table: Table) -> str:
    rows = [
        f"| {state} | {verb} | {after} |"
        for state, verbs in table.items()
        for verb, after in verbs.items()
    ]
    ends = [f"| {state} | | |" for state, verbs in table.items() if not verbs]
    return "\n".join(["| state | verb | next |", "|---|---|---|", *rows, *ends])


def render_messages(kinds: Any) -> str:
    lines: list[str] = []
    for kind in get_args(kinds):
        lines += [f"**{kind.__struct_config__.tag}**: {_summary(kind)}", "", *_fields(kind)]
    return "\n".join(lines).rstrip()


def render_parts() -> str:
    lines: list[str] = []
    kinds = (
        msg.Spec,
        Blocks,
        Repeats,
        msg.Selection,
        msg.Layout,
        msg.ArraySpec,
        msg.Chosen,
        msg.BadRow,
    )
    for kind in (*kinds, msg.CacheEntry):
        lines += [f"**{kind.__name__}**: {_summary(kind)}", "", *_fields(kind)]
    return "\n".join(lines).rstrip()


def _summary(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split())


def _fields(kind: type) -> Iterator[str]:
    fields = msgspec.structs.fields(kind)
    if not fields:
        yield "No fields."
        yield ""
        return
    yield "| field | type | default |"
    yield "|---|---|---|"
    for field in fields:
        default = "" if field.required else f"`{_plain(field.default)}`"
        yield f"| `{field.encode_name}` | {describe(inspect.type_info(field.type))} | {default} |"
    yield ""


def _plain(value: Any) -> str:
    if isinstance(value, msgspec.Struct):
        return "{}"  # of fields at their defaults, which may be left out
    return {"()": "[]", "True": "true", "False": "false"}.get(repr(value), repr(value))


def describe(kind: Any) -> str:
    """Name a type with its bounds, in words."""
    match kind:
        case inspect.IntType(ge=low, le=high):
            return "int" if high is None else f"int {low}..{_power(high)}"
        case inspect.FloatType(ge=low, le=high):
            return f"float {low:g}..{high:g}"
        case inspect.StrType(max_length=length):
            return "str" if length is None else f"str ≤ {length}"
        case inspect.BytesType(max_length=length):
            return f"bytes ≤ {length}"
        case inspect.BoolType():
            return "bool"
        case inspect.LiteralType(values=values):
            return " or ".join(f'"{value}"' for value in sorted(values, reverse=True))
        case inspect.NoneType():
            return "nil"
        case inspect.AnyType():
            return "anything"
    return _describe_compound(kind)


def _describe_compound(kind: Any) -> str:
    match kind:
        case inspect.StructType(cls=cls):
            return cls.__name__
        case inspect.VarTupleType(item_type=item, max_length=length):
            return f"array of {describe(item)}" + (f", at most {length}" if length else "")
        case inspect.TupleType(item_types=items):
            return "[" + ", ".join(describe(item) for item in items) + "]"
        case inspect.DictType(key_type=key, value_type=value):
            return f"map of {describe(key)} to {describe(value)}"
        case inspect.UnionType(types=types):
            return " or ".join(describe(one) for one in types)
    raise NotImplementedError(kind)


def _power(value: int) -> str:
    for exponent in range(10, 64):
        if value in (2**exponent, 2**exponent - 1):
            return f"2^{exponent}" + ("" if value == 2**exponent else " − 1")
    return str(value)


def render_bounds() -> str:
    rows: list[tuple[str, object, str]] = [
        ("HEADER_BYTES_MAX", HEADER_BYTES_MAX, "a header, its version byte included"),
        ("PIECE_BYTES", PIECE_BYTES, "the second frame of a PIECE, at most"),
        ("SESSIONS_MAX", sessions.SESSIONS_MAX, "sessions open at a time"),
        ("ERROR_TEXT_MAX", outbox.ERROR_TEXT_MAX, "characters of an ERROR's text"),
        ("ATTACH_S", sessions.ATTACH_S, "s from HELLO to ATTACH"),
        ("DRAIN_S", broker.DRAIN_S, "s that draining producers get before they are killed"),
        ("JOIN_S", producers.JOIN_S, "s from JOINED to a remote producer's ATTACH"),
        ("REAP_S", producers.REAP_S, "s from KILL to ENDED, or to a killed producer's end"),
        ("REMOTES_MAX", remote_producers.REMOTES_MAX, "remote producers at a time"),
        (
            "PLACES_MAX",
            PLACES_MAX,
            "producers that a daemon starts, at most; others count from here",
        ),
        ("BEAT_S", remote_producer.BEAT_S, "s between BEATs of a relay"),
        ("START_S", producers.START_S, "s from a producer's start to READY"),
        ("PATIENCE_S", producers.PATIENCE_S, "s that a producer with leases may say nothing"),
        ("PAUSE_MAX_S", producers.PAUSE_MAX_S, "s between restarts of a producer, at most"),
        ("DEATHS_MIN", producers.DEATHS_MIN, "deaths in a row that make producers unhealthy"),
        ("ATTEMPTS_MAX", failures.ATTEMPTS_MAX, "producers that one chunk may end"),
        ("STRIKES", quarantine.STRIKES, "deaths with a sample in hand that quarantine it"),
        ("QUARANTINE_MAX", QUARANTINE_MAX, "samples in a stream's quarantine"),
        ("DEPTH", producers.DEPTH, "leases that a producer has at most"),
        ("LOW_WATER", producers.LOW_WATER, "leases at which it gets more"),
        ("CHUNK_ROWS", chunk_size.CHUNK_ROWS, "rows of a chunk, about, of usual rows at most"),
        ("CHUNK_NS", chunk_size.CHUNK_NS, "ns of CPU time that a chunk takes, about, at most"),
        ("QUICK_NS", chunk_size.QUICK_NS, "ns that chunks of quick rows take, about"),
        ("QUICK_CHUNKS_MIN", chunk_size.QUICK_CHUNKS_MIN, "them for each producer, in all slots"),
        (
            "QUICK_ROWS_MAX",
            chunk_size.QUICK_ROWS_MAX,
            "rows of a chunk of quick rows, about, at most",
        ),
    ]
    lines = [f"| `{name}` | {value} | {what} |" for name, value, what in rows]
    return "\n".join(["| name | value | of |", "|---|---|---|", *lines])


TABLES: dict[str, Callable[[], str]] = {
    "client to daemon": lambda: render_messages(msg.FromClient),
    "daemon to client": lambda: render_messages(msg.ToClient),
    "daemon to relay": lambda: render_messages(msg.Kill | msg.Part),
    "relay to daemon": lambda: render_messages(msg.Beat | msg.Ended),
    "over the attach socket": lambda: render_messages(msg.OverAttach),
    "daemon to producer": lambda: render_messages(msg.ToProducer),
    "producer to daemon": lambda: render_messages(msg.FromProducer),
    "parts": render_parts,
    "slot": lambda: render_states(SLOT),
    "chunk": lambda: render_states(CHUNK),
    "session": lambda: render_states(SESSION),
    "producer": lambda: render_states(PRODUCER),
    "bounds": render_bounds,
}


def read_document() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def clauses_of_tests() -> dict[str, list[str]]:
    """Clause ids by the test files that are marked with them."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for arguments in re.findall(r"@(?:pytest\.mark\.)?clause\(([^)]*)\)", path.read_text()):
            for clause in re.findall(r'"(P-\d+)"', arguments):
                found.setdefault(clause, []).append(path.name)
    return found


@pytest.mark.parametrize("name", TABLES)
def test_the_document_holds_the_tables_of_the_code(name: str) -> None:
    blocks = dict(_BLOCK.findall(read_document()))
    assert blocks.keys() == TABLES.keys()
    assert blocks[name].strip() == TABLES[name](), (
        "the code changed: python -m tests.docs.test_protocol_doc"
    )


def test_every_clause_has_a_test_and_every_marked_clause_exists() -> None:
    written = _CLAUSE.findall(read_document())
    marked = clauses_of_tests()
    assert len(written) == len(set(written)), "a clause id stands twice"
    assert [clause for clause in written if clause not in marked] == []
    assert {c: files for c, files in marked.items() if c not in written} == {}


def test_the_document_names_the_version_of_the_code() -> None:
    assert f"Protocol version: {msg.PROTOCOL_VERSION}." in read_document()


def write_tables() -> None:
    """Write the tables anew; the text between them stays."""

    def fresh(block: re.Match[str]) -> str:
        return f"<!-- table: {block[1]} -->\n\n{TABLES[block[1]]()}\n\n<!-- end -->"

    DOCUMENT.write_text(_BLOCK.sub(fresh, read_document()), encoding="utf-8")


if __name__ == "__main__":
    write_tables()
