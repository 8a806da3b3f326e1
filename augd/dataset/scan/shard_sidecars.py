"""What the small members beside an image say of it: `.cls`, a class, and `.json`, an object.

Others write them, by Python's `json` most often, which writes NaN and lone surrogates, and in any
encoding. Of an object only labels and split are kept; whatever else it holds is nobody's business
here, and hinders nobody.

Invariants: raises nothing, whatever the bytes are; what is read is bounded. Imports no NumPy.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

_SAID: Final = ("label", "labels", "split")
_MARK: Final = b"\xef\xbb\xbf"
CLS_BYTES_MAX: Final = 1 << 16
JSON_BYTES_MAX: Final = 16 << 20
_DIGITS_MAX: Final = 400  # Python may be told to read no more than 640


class SidecarLabels(msgspec.Struct):
    """What is said of one image. `unread` says of what cannot be read why, and what it is."""

    cls: str | None = None
    json: dict[str, Any] | None = None
    unread: str = ""

    @property
    def has_label(self) -> bool:
        """Whether a label stands in it, whatever it is."""
        return self.cls is not None or bool(self.json and self.json.keys() & {"label", "labels"})

    def take(self, ending: bytes, content: bytes | None, size_bytes: int) -> None:
        """Take the content of a member, None where it is too large to be read."""
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
    """Read a `.cls`; None where it holds nothing."""
    return _text(content).strip(" \t\r\n\0") or None


def read_object(content: bytes) -> dict[str, Any] | None:
    """Read what a `.json` says of labels and split; None where it is no JSON.

    What is null says nothing. Anything but an object says nothing, either.
    """
    found: Any
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # NaN, Infinity, lone surrogates, a byte order mark, other encodings: slower, for the few.
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
        ValueError: it is none.
        RecursionError: it is too deep.
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
