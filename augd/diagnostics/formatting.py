"""Texts of reports: sections, sizes, and the state of a cache.

Used by the commands that print a report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from augd.errors import counted

_SHOWN = 10


def section(title: str, entries: Sequence[str]) -> Iterator[str]:
    """Yield a title and the first entries below it; nothing if there are none."""
    if entries:
        yield ""
        yield title
        yield from (f"  {entry}" for entry in entries[:_SHOWN])
        if len(entries) > _SHOWN:
            yield f"  ... and {len(entries) - _SHOWN:,} more (--json has all)"


def say_size(size_bytes: int) -> str:
    """Format a size in the largest fitting unit."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= step:
            return f"{size_bytes / step:.1f} {unit}"
    return f"{size_bytes} bytes"


def say_cache(cache: Mapping[str, Any]) -> str:
    """Describe a cache in one line: its entries, its size, and its share of hits."""
    made = cache["hits"] + cache["misses"]
    share = f"; {cache['hits'] / made:.0%} of {counted(made, 'image')} came from it" if made else ""
    return (
        f"cache ({cache['kind']}): {cache['entries']:,} images, "
        f"{cache['filled_bytes'] / 1e9:.2f} of {cache['capacity_bytes'] / 1e9:.2f} GB{share}"
    )
