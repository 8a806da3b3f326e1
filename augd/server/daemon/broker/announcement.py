"""OPENED and the notices of a session: what its stream is, and what a person should know of it.

The session table calls `announce` after each event. It sends OPENED once the arena exists and a
producer has reported what decides its pixels; only then is the stream's content known. Pure: no
I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from augd.plan.content import content_of
from augd.plan.recipe.op_catalogue import Catalogue
from augd.plan.recipe.phases import expand_stream, parse_stream_recipe
from augd.protocol import messages as msg
from augd.protocol.limits import EPOCH_LAST, QUARANTINE_MAX
from augd.protocol.quarantine import as_entries, united
from augd.server.daemon.broker import permissions
from augd.server.daemon.broker.batch_state import ClientCursor
from augd.server.daemon.broker.dataset_facts import DatasetFacts, class_notes, relevant, split_note
from augd.server.daemon.broker.outbox import ERROR_TEXT_MAX, Outbox
from augd.server.daemon.broker.scheduler import Scheduler
from augd.server.daemon.broker.selection import policy_of
from augd.server.daemon.broker.session_state import Session, send_error
from augd.server.daemon.broker.stream import StreamState


class StreamAnnouncer:
    """Sends OPENED, and settles the content that it names."""

    def __init__(
        self,
        outbox: Outbox,
        scheduler: Scheduler,
        datasets: Mapping[str, DatasetFacts],
        catalogue: Catalogue,
    ) -> None:
        self._outbox = outbox
        self._scheduler = scheduler
        self._datasets = datasets
        self._catalogue = catalogue
        self._class_notes: dict[str, dict[str, str]] = {}  # by dataset, once one was opened

    def announce(self, session: Session) -> None:
        """Send OPENED once the arena stands and a producer line what decides its pixels."""
        stream, environment = session.stream, self._scheduler.environment
        if session.is_announced or stream is None or not stream.has_arena or stream.is_failed:
            return
        if environment is None or session.state != "open":
            return
        session.is_announced = True
        client = stream.clients[session.number]
        place = self._place_of(stream, client)
        if place[0] > EPOCH_LAST:
            stream.fail()
            text = f"epoch: expected 0..{EPOCH_LAST}, got a place behind the end of the last one"
            send_error(self._outbox, session, "BAD_OPTION", text)
            return
        self._settle_content(stream, environment, place)
        assert stream.content is not None
        if len(stream.quarantine) > QUARANTINE_MAX:
            num = len(stream.quarantine)
            text = f"{num:,} samples are quarantined, at most {QUARANTINE_MAX} can be"
            stream.fail()
            send_error(self._outbox, session, "QUARANTINE_LIMIT", text)
            return
        opened = msg.Opened(
            session=session.number,
            opening=client.opening,
            stream=stream.number,
            content=stream.content.digest,
            content_fields=dict(stream.content.fields),
            dataset=stream.dataset,
            num_positions=stream.num_samples,
            arrays=stream.arrays,
            slot_bytes=stream.slot_bytes,
            phases=stream.phases,
            num_slots=len(stream.slots),
            epoch=place[0],
            position=place[1],
            quarantine=as_entries(stream.quarantine),
            is_shared=stream.share is not None,
            num_unlabelled=stream.num_unlabelled,
            stamp=self._datasets[stream.dataset].stamp,
            changes=self._datasets[stream.dataset].changes,
        )
        self._send_notices(session, stream)
        classes = stream.spec.selection.classes or stream.dataset
        self._outbox.send(session.peer, opened, classes=classes)

    def _send_notices(self, session: Session, stream: StreamState) -> None:
        """Send a session, once, what a person should know of its dataset."""
        if session.has_notices:
            return
        session.has_notices = True
        facts, selection = self._datasets[stream.dataset], stream.spec.selection
        notices = [] if selection.classes else [("doubt", text) for text in facts.doubts]
        if (note := split_note(facts, selection, stream.num_samples)) is not None:
            notices.append(("split", note))
        for kind, text in notices:
            line = f"dataset {stream.dataset!r}: {text}"
            self._outbox.send(session.peer, msg.Notice(kind, line[:ERROR_TEXT_MAX]))
        if stream.dataset not in self._class_notes:
            self._class_notes[stream.dataset] = class_notes(stream.dataset, self._datasets)
        readable = permissions.readable(session.rights, self._datasets)
        for other, text in self._class_notes[stream.dataset].items():
            if other in readable:
                self._outbox.send(session.peer, msg.Notice("classes", text[:ERROR_TEXT_MAX]))

    def _place_of(self, stream: StreamState, client: ClientCursor) -> tuple[int, int]:
        for batch in stream.batches:
            if batch.sequence == client.first:
                return batch.epoch, batch.position
        return stream.next_place()

    def _settle_content(
        self, stream: StreamState, environment: Mapping[str, str], place: tuple[int, int]
    ) -> None:
        """Compute the content of a stream, and merge the quarantines of client and daemon."""
        facts, spec = self._datasets[stream.dataset], stream.spec
        is_first = stream.content is None
        if is_first:
            recipe = parse_stream_recipe(spec.recipe, self._catalogue)
            stream.content = content_of(
                dataset_digest=facts.digest,
                recipe=expand_stream(recipe),
                seed=spec.seed,
                shuffle=spec.shuffle,
                repeats=spec.repeats,
                policy=policy_of(spec, has_splits=facts.has_splits),
                environment=relevant(
                    recipe.environment_of(self._catalogue, environment), facts.decoders
                ),
            )
        assert stream.content is not None
        if stream.share is not None and not is_first:
            return  # the other clients were sent it already: it must not change
        known = self._scheduler.failures.registers[stream.dataset].entries(
            stream.content.digest, place
        )
        stream.quarantine = united(as_entries(stream.quarantine), known)
        if stream.quarantine:
            self._scheduler.producer_streams.mask(stream)
