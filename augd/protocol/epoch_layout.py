"""How an epoch is cut into batches: pure arithmetic on positions.

An epoch is the sequence of positions 0..num_samples-1; augd/plan/order/order.py decides which
sample stands at a position. A global batch of world x batch_size positions
starts at `position`; rank r has rows [r*B, (r+1)*B) of it. `position` is the only state.
"""

from __future__ import annotations

from augd.protocol.messages import Layout


def global_batch(layout: Layout) -> int:
    """Positions that all ranks together consume per batch."""
    return layout.batch_size * layout.world


def first_position(layout: Layout, position: int) -> int:
    """Position of the first row of this rank's part of the global batch that starts there."""
    return position + layout.rank * layout.batch_size


def batches_left(layout: Layout, num_samples: int, position: int = 0) -> int:
    """Batches from `position` to the end of the epoch."""
    left = max(0, num_samples - position)
    step = global_batch(layout)
    return left // step if layout.drop_last else -(-left // step)


def batch_rows(layout: Layout, num_samples: int, position: int) -> int:
    """Rows of this rank's batch: a single trainer's last batch is short, others are padded."""
    if layout.world > 1:
        return layout.batch_size
    return min(layout.batch_size, num_samples - position)


def real_rows(layout: Layout, num_samples: int, position: int) -> int:
    """Rows of this rank's batch that are samples and not padding."""
    first = first_position(layout, position)
    return max(0, min(layout.batch_size, num_samples - first))


def batch_number(layout: Layout, position: int) -> int:
    """Return the number of the batch that starts at `position`, counted from the epoch's start."""
    return -(-position // global_batch(layout))


def samples_of_rank(layout: Layout, num_samples: int, position: int) -> int:
    """Real samples (not padding) that this rank gets from `position` to the epoch's end."""
    step, share = global_batch(layout), layout.batch_size
    full, rest = divmod(max(0, num_samples - position), step)
    if layout.drop_last:
        return full * share
    return full * share + min(max(rest - layout.rank * share, 0), share)
