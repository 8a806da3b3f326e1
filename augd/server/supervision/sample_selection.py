"""Choosing a stream's samples, as a message asks for it, with a look at the memory first.

Asked by whoever holds an index: the daemon, and the relay of producers on another host, which
must come to the same list.
"""

from __future__ import annotations

from augd.dataset.index_file import IndexFile
from augd.dataset.selection import SampleSelection, select
from augd.errors import OverLimit, counted
from augd.protocol.messages import Selection
from augd.transport.arena import SPARE_BYTES, available_bytes

_CHOOSING_BYTES = 128  # per sample of the data set, while the list is made; 8 per chosen one after


def choose(index: IndexFile, asked: Selection) -> SampleSelection:
    """Choose samples; takes about a quarter of a second per million of the data set.

    Raises:
        OptionError: there is nothing to choose like this.
        OverLimit: this machine has not the memory for it.
    """
    if _CHOOSING_BYTES * index.num_samples + SPARE_BYTES > available_bytes():
        raise OverLimit(
            f"choosing among {counted(index.num_samples, 'sample')} takes "
            f"{_CHOOSING_BYTES * index.num_samples / 1e6:.0f} MB, which this machine has not "
            f"free. Connect without split, classes, limit and balance."
        )
    return select(
        index,
        split=asked.split,
        val_fraction=asked.val_fraction,
        classes=asked.classes,
        limit=asked.limit,
        balance=asked.balance,
    )
