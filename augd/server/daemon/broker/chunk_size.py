"""How many rows a chunk has: enough to outweigh its lease, few enough to share a batch.

Each stream has one `ChunkSize`. It averages the time that a row takes its producers, as DONE
reports it, and answers when the stream cuts its next batch. Pure: no I/O, no clock.
"""

from __future__ import annotations

CHUNK_ROWS = 32  # usual ones
# While the time of a row is unknown: every producer gets a part of the first batch.
CHUNK_ROWS_UNKNOWN = 8
# Of a batch, unless that makes chunks of more than `CHUNK_ROWS`: each costs the daemon memory.
CHUNKS_MAX = 256
# What a chunk should take its producer: 32 usual rows. Rows of photos of 12 megapixels take longer:
# larger chunks would let a new stream wait for seconds behind those that are leased already. A
# lease costs the daemon half a millisecond, so smaller chunks would cost too much.
CHUNK_NS = 50_000_000
# Small rows and cached rows take less time than their lease would: 32 of CIFAR's from a cache take
# a millisecond, and so does the lease. Such chunks get as many rows as take this long, if each
# producer still finds some in the slots. By the clock: rows that wait for a disk are not quick.
QUICK_NS = 20_000_000
QUICK_ROWS_MAX = 512
QUICK_CHUNKS_MIN = 4  # in all slots, for each producer
_WEIGHT = 8  # chunks over which the time of a row is averaged


class ChunkSize:
    """The time of a row of one stream, and the size of chunks that follows from it."""

    def __init__(self, batch_size: int) -> None:
        self.row_ns = 0.0  # CPU time of a row, 0 while it is unknown
        self.num_producers = 1
        self._batch_size = batch_size
        self._row_wall_ns = 0.0  # the same by the clock
        self._num_measured = 0  # chunks that the averages come from

    def rows(self, batches_ahead: int) -> int:
        """Return about how many rows the chunks of the next batch have.

        Args:
            batches_ahead: batches that may be filled at once, by slots and credit.
        """
        wanted = round(CHUNK_NS / self.row_ns) if self.row_ns else CHUNK_ROWS_UNKNOWN
        usual = min(CHUNK_ROWS, max(1, wanted, -(-self._batch_size // CHUNKS_MAX)))
        if not self.row_ns:
            return usual
        share = batches_ahead * self._batch_size // (QUICK_CHUNKS_MIN * self.num_producers)
        quick = round(QUICK_NS / max(self.row_ns, self._row_wall_ns))
        return max(usual, min(quick, share, QUICK_ROWS_MAX, self._batch_size))

    def measure(self, rows: int, cpu_ns: int, wall_ns: int) -> bool:
        """Average in a finished chunk; return True once, when the average is settled.

        The size follows CPU time: rows that wait for a slow disk need many leased ahead, so that
        their files are read early.
        """
        if not cpu_ns or rows <= 0:
            return False
        self._num_measured += 1
        weight = 1 / min(self._num_measured, _WEIGHT)
        self.row_ns += (cpu_ns / rows - self.row_ns) * weight
        self._row_wall_ns += (wall_ns / rows - self._row_wall_ns) * weight
        return self._num_measured == _WEIGHT


def remote_rows_max(batch_size: int) -> int:
    """Return how many rows of such batches a slot of a remote producer's own memory holds."""
    return min(batch_size, CHUNK_ROWS * 3 // 2)
