"""Where fuzzing starts: the hostile images and a message of each kind. `corpus/` adds to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

from augd.protocol import codec
from tests.fuzz.targets import DECODERS
from tests.hostile.images import hostile_images
from tests.unit.protocol.test_codec import DECODERS as KINDS
from tests.unit.protocol.test_codec import MESSAGES

CORPUS: Final = Path(__file__).parent / "corpus"
MAX_BYTES: Final = 8192  # of an input: larger ones only slow the search down


def seeds(target: str) -> Iterator[bytes]:
    """Give the inputs that a target starts from."""
    if target in ("header", "pixels"):
        yield from (one.data for one in hostile_images() if len(one.data) <= MAX_BYTES)
    elif target == "wire":
        for message in MESSAGES.values():
            decoder = next(d for d, kinds in KINDS.items() if type(message) in get_args(kinds))
            number = DECODERS.index(decoder)  # type: ignore[arg-type]
            yield bytes((number,)) + codec.encode(message)
    else:
        yield codec.encode_names(["cat", "dog", "Ähre"])
    yield from corpus(target)


def corpus(target: str) -> list[bytes]:
    """Give the committed inputs of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
