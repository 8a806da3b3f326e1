"""What should stand in every row: the plan, the mask, and the digests, as small pure functions.

The oracle of the simulation. Knows neither broker nor time: a row is decided by the place and by
the quarantine that its reader knows, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

from augd.protocol import epoch_layout
from augd.protocol.messages import Layout

Place = tuple[int, int]  # (epoch, position)
Row = tuple[int, int, int, bool]  # epoch, position, sample, whether it is masked

PADDING: Row = (-1, -1, -1, False)
NOTHING: Row = (-2, -2, -2, False)  # never written
DIGEST_MODULUS = 1 << 128
IDS_MODULUS = 1 << 64


class Violation(AssertionError):
    """A rule of the protocol was broken."""


def sample_at(num_samples: int, epoch: int, position: int) -> int:
    """Return which sample stands there: each epoch is another permutation."""
    return (position + 5 * epoch) % num_samples


def row_at(num_samples: int, epoch: int, position: int, quarantine: Mapping[int, Place]) -> Row:
    """Return what the row of this position must hold; beyond the epoch it is padding."""
    if position >= num_samples:
        return PADDING
    sample = sample_at(num_samples, epoch, position)
    place = quarantine.get(sample)
    return epoch, position, sample, place is not None and place <= (epoch, position)


def batch_at(
    layout: Layout, num_samples: int, epoch: int, position: int, quarantine: Mapping[int, Place]
) -> list[Row]:
    """Return the rows of this rank's batch."""
    first = position + layout.rank * layout.batch_size
    count = epoch_layout.batch_rows(layout, num_samples, position)
    return [row_at(num_samples, epoch, first + row, quarantine) for row in range(count)]


def digest(row: Row) -> int:
    """Digest a row; sums over rows do not depend on their order."""
    if row == PADDING:
        return 0
    epoch, position, sample, is_masked = row
    number = ((epoch * 1009 + position) * 1009 + sample) * 2 + is_masked + 1
    return number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % DIGEST_MODULUS


def ids_digest(row: Row) -> int:
    """Digest which sample stands at a row's position."""
    if row == PADDING:
        return 0
    _, position, sample, _ = row
    return ((position + 1) * 1009 + sample) * 0x9E3779B97F4A7C15 % IDS_MODULUS


def following(layout: Layout, num_samples: int, place: Place) -> Place:
    """Return the place itself, or the next epoch's start where no batch is left."""
    epoch, position = place
    if epoch_layout.batches_left(layout, num_samples, position) == 0:
        return epoch + 1, 0
    return place
