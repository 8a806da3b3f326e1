"""Finds the formats in a dataset whose decoders are packages of their own, by its index.

Called by the daemon at its start. The version of such a decoder decides pixels. So it is part of
the content of streams of these datasets, and of no others. Formats follow from endings; for files
without one, from what the scan found in them.

Invariants: reads the index alone, once, and copies nothing of it; imports no NumPy. A file with
another format's ending is not found.
"""

from __future__ import annotations

import mmap
import re
from bisect import bisect_left
from typing import Final

from augd.dataset.index_format import ITEM_BYTES, read_index_header
from augd.pixels.headers.formats import ENDINGS, FORMAT_OF_ENDING, PACKAGES

_ENDINGS: Final = b"|".join(
    ending for kind, endings in ENDINGS.items() if kind in PACKAGES for ending in endings
)
_FOUND: Final = re.compile(rb"\.(" + _ENDINGS + rb")", re.IGNORECASE)


def package_formats(index_fd: int) -> frozenset[str]:
    """Return those formats of `PACKAGES` of which an index file lists a sample."""
    header, start = read_index_header(index_fd)
    places = {place.name: place for place in header.arrays}
    found = set(header.formats) & PACKAGES.keys()
    with mmap.mmap(index_fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
        paths, offsets = places["paths"], places["path_offsets"]
        first = start + offsets.offset
        size = offsets.length * ITEM_BYTES[offsets.dtype]
        with (
            memoryview(mapped)[first : first + size] as whole,
            whole.cast("q") as ends,
        ):
            at = start + paths.offset
            for match in _FOUND.finditer(mapped, at, at + paths.length):
                kind = FORMAT_OF_ENDING[match[1].lower()]
                if kind in found:
                    continue
                place = bisect_left(ends, match.end() - at)
                if place < len(ends) and ends[place] == match.end() - at:
                    found.add(kind)
                    if len(found) == len(PACKAGES):
                        break
    return frozenset(found)
