"""The samples of a split, as a stream would have them.

Used by `augd preview`, `explain` and `pca`.
"""

from __future__ import annotations

import sys
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from augd.dataset.index_file import IndexFile
from augd.dataset.scan_result import say_splits
from augd.dataset.selection import select
from augd.errors import OptionError

Split = Literal["train", "val", "test"]


def ids_of_split(index: IndexFile, asked: str | None) -> NDArray[Any] | None:
    """Return the ids of a split, int64 and ascending; None for all samples.

    Without a choice it is the training split, if the dataset records splits; a line says so.

    Raises:
        OptionError: there is no such split.
    """
    if asked not in (None, "train", "val", "test", "all"):
        raise OptionError(f"--split: expected train, val, test or all, got {asked!r}")
    if asked is None and index.has_splits:
        print(
            f"augd: the dataset records splits ({say_splits(index.count_splits())}): training "
            f"samples are taken; --split all takes all",
            file=sys.stderr,
        )
        asked = "train"
    if asked in (None, "all"):
        return None
    return np.array(select(index, split=cast(Split, asked)).ids, np.int64)
