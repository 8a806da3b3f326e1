"""Which bad samples were logged: each one once per reason, however many epochs meet it.

If the recipe is at fault, one line stands for all rows: no file is to be repaired. Counts, masks
and STATUS do not depend on it; it only keeps the log short. Pure, and bounded: beyond `NAMED_MAX`
samples nothing more is logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from augd.plan.size_mismatch import is_misfit, what_was_wanted
from augd.protocol.messages import BadRow

NAMED_MAX = 10_000
_MISFIT = "the recipe does not fit all images, and rows are masked, of which this is the first"


class BadSampleLog:
    """The bad samples that were logged since the daemon started."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, int, str]] = set()

    def new(self, dataset: str, rows: Sequence[BadRow]) -> Iterator[str]:
        """Yield a line for each row that was not logged before, and one when the limit is
        reached."""
        for row in rows:
            key = (dataset, row.sample, row.reason)
            if is_misfit(row.reason):
                key = (dataset, -1, what_was_wanted(row.reason))
            if key in self._logged or len(self._logged) > NAMED_MAX:
                continue
            self._logged.add(key)
            if len(self._logged) > NAMED_MAX:
                yield f"{NAMED_MAX} bad samples were named: further ones are only counted"
                return
            yield f"{_MISFIT if key[1] < 0 else 'bad sample, masked'}: {dataset}: {name_row(row)}"


def name_row(row: BadRow) -> str:
    """Name a bad sample and the reason."""
    return f"sample {row.sample} ({row.path}): {row.reason}"
