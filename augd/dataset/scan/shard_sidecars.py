"""Reads the small members beside an image in a shard: `.cls`, a class, and `.json`, an object.

Other programs write them, most often Python's `json`, which writes NaN and lone surrogates, and in
any encoding. Only labels and split of an object are kept. Everything else in it is ignored.

Invariants: raises nothing, whatever the bytes are; the bytes read are bounded. Imports no NumPy.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

_SAID: Final = ("label", "labels", "split")
_MARK: Final = b"\xef\xbb\xbf"
CLS_BYTES_MAX: Final = 1 << 16
JSON_BYTES_MAX: Final = 16 << 20
_DIGITS_MAX: Final = 400  # Python may be configured to read no more than 640


class SidecarLabels(msgspec.Struct):
    """What the sidecars hold about one image. `unread` gives what cannot be read, and why."""

    cls: str | None = None
    json: dict[str, Any] | None = None
    unread: str = ""

    @property
    def has_label(self) -> bool:
        """Whether it holds a label of any kind."""
        return self.cls is not None or bool(self.json and self.json.keys() & {"label", "labels"})

    def take(self, ending: bytes, content: bytes | None, size_bytes: int) -> None:
        """Take the content of a member; None if it is too large to be read."""
        if content is None:
            self.unread = f".{ending.decode()} of {size_bytes:,} bytes"
        elif ending == b"cls":
            self.cls = read_class(content)
            if self.cls is None:
                self.unread = "empty .cls"
        else:
            self.json = read_object(content)
            if self.json is None:
                self.unread = ".json that does not decode"


def read_class(content: bytes) -> str | None:
    """Read a `.cls`; None if it is empty."""
    return _text(content).strip(" \t\r\n\0") or None


def read_object(content: bytes) -> dict[str, Any] | None:
    """Read labels and split from a `.json`; None if it is no JSON.

    Null values, and anything but an object, hold nothing.
    """
    found: Any
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # NaN, Infinity, lone surrogates, a byte order mark, other encodings: slower, and rare.
        try:
            found = load_json(_text(content))
        except (ValueError, RecursionError):
            return None
    if not isinstance(found, dict):
        return {}
    return {key: found[key] for key in _SAID if found.get(key) is not None}


def load_json(text: str) -> Any:
    """Read JSON as Python's `json` writes it: NaN, lone surrogates, numbers of any size.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, parse_int=_whole_or_inf)


def _whole_or_inf(text: str) -> int | float:
    return int(text) if len(text) <= _DIGITS_MAX else float(text)


def _text(content: bytes) -> str:
    """Decode a text: by its byte order mark or its zeros, as UTF-8, or else as Latin-1."""
    if content.startswith(_MARK):
        content = content[len(_MARK) :]
    for encoding in (json.detect_encoding(content), "utf-8", "latin-1"):
        try:
            return content.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    raise AssertionError("Latin-1 decodes any bytes")
