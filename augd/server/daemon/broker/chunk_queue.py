"""The chunks of one stream that wait for a producer, in the order of its batches.

Each stream has one `ChunkQueue`. A chunk waits in its batch: among `pending`, or among `suspects`
when it holds a row that ended its producer. The scheduler takes the first one of the lowest batch;
a lost chunk goes back in front. The queue counts what waits, because every message to the daemon
asks for it. A sum over a thousand slots each time would let one client delay all others. Pure: no
I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from augd.server.daemon.broker import chunk_size
from augd.server.daemon.broker.batch_state import NO_SAMPLE, BatchState, Chunk
from augd.server.daemon.broker.states import CHUNK, step


class ChunkQueue:
    """Counts the waiting chunks of a stream's batches, and takes them in order."""

    def __init__(self) -> None:
        self.num_pending = 0
        self.num_suspects = 0

    def cut(self, batch: BatchState, rows: int) -> None:
        """Queue a batch that begins, in chunks of about so many rows."""
        batch.pending.extend(_cut_chunks(batch, 0, batch.rows, rows))
        batch.missing = len(batch.pending)
        self.num_pending += batch.missing

    def take(self, batches: Iterable[BatchState], rows_max: int | None = None) -> Chunk | None:
        """Take the first pending chunk in batch order; the caller leases it.

        A chunk of more than `rows_max` rows is divided first.
        """
        for batch in batches if self.num_pending else ():
            if batch.pending:
                if rows_max is not None and batch.pending[0].rows > rows_max:
                    self._divide(batch)
                self.num_pending -= 1
                return _lease(batch.pending)
        return None

    def take_suspect(self, batches: Iterable[BatchState]) -> Chunk | None:
        """Take the first chunk that an unused producer must make by itself."""
        for batch in batches if self.num_suspects else ():
            if batch.suspects:
                self.num_suspects -= 1
                return _lease(batch.suspects)
        return None

    def put_back(self, chunk: Chunk) -> None:
        """Queue a lost chunk again, in front of its batch."""
        if chunk.suspect == NO_SAMPLE:
            self.num_pending += 1
            chunk.batch.pending.insert(0, chunk)
        else:
            self.num_suspects += 1
            chunk.batch.suspects.insert(0, chunk)

    def isolate(self, chunk: Chunk, row: int, sample: int) -> None:
        """Cut a row, which ended its producer, out of a pending chunk, to be made by itself."""
        batch = chunk.batch
        batch.pending.remove(chunk)
        batch.suspects.append(Chunk(batch, chunk.first_row + row, 1, suspect=sample))
        rest = [(chunk.first_row, row), (chunk.first_row + row + 1, chunk.rows - row - 1)]
        pieces = [Chunk(batch, first, rows) for first, rows in rest if rows]
        batch.pending[:0] = pieces
        batch.missing += len(pieces)
        self.num_pending += len(pieces) - 1
        self.num_suspects += 1

    def clear(self, batch: BatchState) -> None:
        """Remove the waiting chunks of a batch that is given up."""
        self.num_pending -= len(batch.pending)
        self.num_suspects -= len(batch.suspects)
        batch.pending.clear()
        batch.suspects.clear()

    def _divide(self, batch: BatchState) -> None:
        """Cut the first pending chunk into chunks of the usual size."""
        whole = batch.pending[0]
        parts = list(_cut_chunks(batch, whole.first_row, whole.rows, chunk_size.CHUNK_ROWS))
        for part in parts:
            part.attempt = whole.attempt
        batch.pending[:1] = parts
        batch.missing += len(parts) - 1
        self.num_pending += len(parts) - 1


def _lease(queue: list[Chunk]) -> Chunk:
    chunk = queue.pop(0)
    chunk.state = step(CHUNK, chunk.state, "lease")
    chunk.batch.slot.writers += 1
    return chunk


def _cut_chunks(batch: BatchState, first_row: int, num_rows: int, rows: int) -> Iterator[Chunk]:
    """Cut a row range of a batch into equal chunks of about so many rows."""
    pieces = max(1, round(num_rows / rows))
    for piece in range(pieces):
        first = num_rows * piece // pieces
        yield Chunk(batch, first_row + first, num_rows * (piece + 1) // pieces - first)
