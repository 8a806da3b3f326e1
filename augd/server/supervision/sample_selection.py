"""Selects a stream's samples after checking that there is enough memory.

The daemon and the relay call this; both must get the same list.
"""

from __future__ import annotations

from augd.dataset.index_file import IndexFile
from augd.dataset.selection import SampleSelection, select
from augd.errors import OverLimit, counted
from augd.protocol.messages import Selection
from augd.transport.arena import SPARE_BYTES, available_bytes

_CHOOSING_BYTES = 128  # per sample of the dataset while the list is made; then 8 per selected one


def select_samples(index: IndexFile, asked: Selection) -> SampleSelection:
    """Select samples; takes about a quarter of a second per million of the dataset.

    Raises:
        OptionError: no sample can be selected like this.
        OverLimit: this machine has too little memory.
    """
    if _CHOOSING_BYTES * index.num_samples + SPARE_BYTES > available_bytes():
        raise OverLimit(
            f"choosing among {counted(index.num_samples, 'sample')} takes "
            f"{_CHOOSING_BYTES * index.num_samples / 1e6:.0f} MB, which this machine does not "
            f"have free. Connect without split, classes, limit and balance."
        )
    return select(
        index,
        split=asked.split,
        val_fraction=asked.val_fraction,
        classes=asked.classes,
        limit=asked.limit,
        balance=asked.balance,
    )
