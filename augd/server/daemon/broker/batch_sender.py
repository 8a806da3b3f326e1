"""BATCH, PIECE and EPOCH_END: the batches that a session is sent.

The session table calls `deliver` after each event. Pure: no I/O, no clock.
"""

from __future__ import annotations

from augd.protocol import messages as msg
from augd.protocol.digest_sums import write_digest, write_ids_digest
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.batch_state import BatchState, ClientCursor
from augd.server.daemon.broker.outbox import Outbox
from augd.server.daemon.broker.session_state import Session
from augd.server.daemon.broker.stream import StreamState


class BatchSender:
    """Sends ready batches in order, and the sums of an epoch after its last batch."""

    def __init__(self, outbox: Outbox) -> None:
        """Keep nothing but the outbox: what was sent stands in the stream's cursors."""
        self._outbox = outbox

    def deliver(self, session: Session) -> None:
        """Send a session the batches that are ready, as far as its credit reaches."""
        stream = session.stream
        if stream is None or not session.is_announced or session.state != "open":
            return
        client = stream.clients[session.number]
        for batch in stream.sendable(client):
            self._send_batch(session, stream, client, batch)

    def _send_batch(
        self, session: Session, stream: StreamState, client: ClientCursor, batch: BatchState
    ) -> None:
        sequence = client.sent - 1
        ready = msg.BatchMessage(
            session=session.number,
            opening=client.opening,
            sequence=sequence,
            epoch=batch.epoch,
            number=batch.number,
            position=batch.position,
            rows=batch.rows,
            slot=batch.slot.index,
            generation=batch.slot.generation,
            num_bad=batch.sums.num_bad,
            digest=write_digest(batch.sums.digest),
        )
        self._outbox.send(session.peer, ready)
        if session.is_framed:
            self._outbox.add(
                ev.SendSlot(
                    session=session.number,
                    opening=client.opening,
                    sequence=sequence,
                    stream=stream.number,
                    slot=batch.slot.index,
                    slot_bytes=stream.slot_bytes,
                )
            )
        if stream.is_last(batch):
            self._end_epoch(session, client, batch.epoch)

    def _end_epoch(self, session: Session, client: ClientCursor, epoch: int) -> None:
        sums = client.take_sums()
        end = msg.EpochEnd(
            session=session.number,
            opening=client.opening,
            epoch=epoch,
            batches=sums.batches,
            samples=sums.samples,
            num_bad=sums.num_bad,
            digest=write_digest(sums.digest),
            ids_digest=write_ids_digest(sums.ids_digest),
        )
        self._outbox.send(session.peer, end)
