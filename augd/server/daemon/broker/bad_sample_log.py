"""Which bad samples the log has named: each once for one reason, however many epochs meet it.

Where the recipe is at fault, one line is for all rows: no file is to be mended.

Beside the way of a batch. Counts, masks and the status are others' business: only the log would
fill up with what is known already. Pure, and bounded: what can't be remembered isn't logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from augd.plan.size_mismatch import is_misfit, what_was_wanted
from augd.protocol.messages import BadRow

NAMED_MAX = 10_000
_MISFIT = "the recipe does not fit all images, and rows are masked, of which this is the first"


class BadSampleLog:
    """What was said of bad samples since the daemon started."""

    def __init__(self) -> None:
        """Nothing was said."""
        self._said: set[tuple[str, int, str]] = set()

    def new(self, dataset: str, rows: Sequence[BadRow]) -> Iterator[str]:
        """Yield a line for each row that nobody heard of, and one when it gets too many."""
        for row in rows:
            key = (dataset, row.sample, row.reason)
            if is_misfit(row.reason):
                key = (dataset, -1, what_was_wanted(row.reason))
            if key in self._said or len(self._said) > NAMED_MAX:
                continue
            self._said.add(key)
            if len(self._said) > NAMED_MAX:
                yield f"{NAMED_MAX} bad samples were named: further ones are only counted"
                return
            yield f"{_MISFIT if key[1] < 0 else 'bad sample, masked'}: {dataset}: {name_row(row)}"


def name_row(row: BadRow) -> str:
    """Say which sample is bad and why."""
    return f"sample {row.sample} ({row.path}): {row.reason}"
