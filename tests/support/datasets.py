"""Small folders on the disk, their stand-in for an index, and what a scan of them refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from augd.errors import DatasetError


class Listed:
    """Stands in for a dataset's index."""

    def __init__(self, root: Path, names: list[str]) -> None:
        stats = [(root / name).stat() for name in names]
        self._names = names
        self.sizes_bytes: NDArray[np.int64] = np.array([s.st_size for s in stats], np.int64)
        self.mtimes_ns: NDArray[np.int64] = np.array([s.st_mtime_ns for s in stats], np.int64)

    def path_bytes(self, sample: int) -> bytes:
        return self._names[sample].encode()

    def path(self, sample: int) -> str:
        return self._names[sample]


def fill(root: Path, *names: str, content: bytes = b"x") -> Path:
    """Write files of this content, and their folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def refusal_of(read: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Return the one line with which a dataset is refused."""
    with pytest.raises(DatasetError) as caught:
        read(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
