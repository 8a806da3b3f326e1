"""OPEN: which stream a session gets, and where that begins.

A session joins a running stream that others read, or gets one of its own. If the request selects
samples, the daemon makes that selection first; the request waits in `Session.waiting`. A session on
a private stream seeks with the next OPEN. One on a shared stream never seeks: its client opens
another session. The session table calls in here. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from augd.errors import AugdError, OptionError, counted
from augd.plan.ops.base import walk_ops
from augd.plan.params_layout import NUM_PARAMS, NUM_PARAMS_WITH_STEPS
from augd.plan.recipe.op_catalogue import Catalogue
from augd.plan.recipe.phases import Phase, Size, StreamRecipe, parse_stream_recipe
from augd.protocol import epoch_layout
from augd.protocol import messages as msg
from augd.protocol.quarantine import as_entries, united
from augd.protocol.slot_layout import slot_layout, views_layout
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker import permissions
from augd.server.daemon.broker.dataset_facts import DatasetFacts
from augd.server.daemon.broker.outbox import Outbox
from augd.server.daemon.broker.scheduler import Scheduler
from augd.server.daemon.broker.selection import is_whole, settled
from augd.server.daemon.broker.session_state import Session, send_error
from augd.server.daemon.broker.states import SESSION, step
from augd.server.daemon.broker.stream import StreamState


class StreamOpener:
    """Handles OPEN: starts, seeks and joins streams."""

    def __init__(
        self,
        outbox: Outbox,
        scheduler: Scheduler,
        datasets: Mapping[str, DatasetFacts],
        sessions: Mapping[int, Session],
        catalogue: Catalogue,
    ) -> None:
        """Start with no stream.

        Args:
            sessions: by number; the session table adds and removes them.
        """
        self._outbox = outbox
        self._scheduler = scheduler
        self._datasets = datasets
        self._sessions = sessions
        self._catalogue = catalogue

    def open(self, session: Session, request: msg.Open) -> None:
        """Handle OPEN: at once, or after the ATTACH that it overtook."""
        if session.state == "leaving" or request.opening <= session.opening:
            self._outbox.stale["opening"] += 1
            return
        session.opening = request.opening
        if session.state == "new":
            session.waiting = request
        else:
            self._open_attached(session, request)

    def attached(self, session: Session) -> None:
        """Handle the OPEN that waited for the session's ATTACH, if there is one."""
        request, session.waiting = session.waiting, None
        if request is not None:
            self._open_attached(session, request)

    def _open_attached(self, session: Session, request: msg.Open) -> None:
        if unhealthy := self._scheduler.failures.unhealthy:
            send_error(self._outbox, session, "PRODUCERS_UNHEALTHY", unhealthy)
            return
        try:
            self._open_checked(session, request)
        except AugdError as error:
            send_error(self._outbox, session, error.code, str(error))

    def _open_checked(self, session: Session, request: msg.Open) -> None:
        stream = session.stream
        if stream is None:
            self._first_open(session, request)
        elif stream.spec != request.spec:
            raise OptionError("a stream keeps its spec; connect again for another one")
        elif stream.share is not None or request.share is not None:
            raise OptionError("a shared stream does not seek; connect again at the other place")
        else:
            self._start(session, stream, request)

    def _first_open(self, session: Session, request: msg.Open) -> None:
        """Join a stream, or make one, or have its samples selected first."""
        spec = request.spec
        name = permissions.find_dataset(spec.dataset, self._datasets, session.rights)
        facts = self._datasets[name]
        for phase in parse_stream_recipe(spec.recipe, self._catalogue).phases:
            phase.sizes(facts.first_size_px)
        if spec.layout.rank >= spec.layout.world:
            raise OptionError(
                f"rank: expected 0..{spec.layout.world - 1} for world={spec.layout.world}, "
                f"got {spec.layout.rank}"
            )
        if not session.selecting:
            permissions.check_stream(session.rights, self._sessions.values())
        earlier, session.waiting = session.waiting, request
        if session.selecting:
            if earlier is not None and earlier.spec != spec:
                session.waiting = earlier
                raise OptionError("a stream keeps its spec; connect again for another one")
        elif not is_whole(spec.selection):
            self._select(session, name, request)
        else:
            self._join_or_make(session, name, None)

    def _select(self, session: Session, name: str, request: msg.Open) -> None:
        """Have the samples selected, unless they are being selected for a sharer already."""
        for other in self._sessions.values():
            is_own = permissions.is_same(other.rights, session.rights)
            if (
                is_own
                and other.selecting
                and other.waiting
                and _is_same_request(other.waiting, request)
            ):
                session.selecting = other.selecting
                return
        if (stream := self._to_join(session, name, request)) is not None:
            self._join(session, stream, request)
            return
        session.selecting = self._outbox.number()
        has_splits = self._datasets[name].has_splits
        selection = settled(request.spec.selection, has_splits=has_splits)
        self._outbox.add(ev.SelectSamples(session.selecting, name, selection))

    def selected(self, number: int, chosen: msg.Chosen, num_unlabelled: int = 0) -> None:
        """Go on with the sessions whose samples were selected."""
        is_used = False
        for session in [s for s in self._sessions.values() if s.selecting == number]:
            session.selecting = 0
            assert session.waiting is not None
            dataset = session.waiting.spec.dataset
            try:
                name = permissions.find_dataset(dataset, self._datasets, session.rights)
                self._join_or_make(session, name, chosen, 0 if is_used else number)
                is_used = is_used or number in self._scheduler.streams
                if number in self._scheduler.streams:
                    self._scheduler.streams[number].num_unlabelled = num_unlabelled
            except AugdError as error:
                send_error(self._outbox, session, error.code, str(error))
        if not is_used:
            self._outbox.add(ev.DropArena(number))

    def select_failed(self, number: int, code: str, text: str) -> None:
        """Send ERROR to the sessions whose samples cannot be selected."""
        for session in self._sessions.values():
            if session.selecting == number:
                session.selecting = 0
                send_error(self._outbox, session, code, text)

    def _join_or_make(
        self, session: Session, name: str, chosen: msg.Chosen | None, number: int = 0
    ) -> None:
        request, session.waiting = session.waiting, None
        assert request is not None
        if (stream := self._to_join(session, name, request)) is not None:
            self._join(session, stream, request)
            return
        stream = self._make(request, name, chosen, number or self._outbox.number())
        permissions.check_memory(session.rights, self._sessions.values(), stream.arena_bytes)
        session.stream = stream
        share = request.share
        if share is not None and share.sharers > 1:
            stream.gather_deadline = self._outbox.now + share.wait_s
        self._scheduler.add(stream)
        self._start(session, stream, request)

    def _make(
        self, request: msg.Open, name: str, chosen: msg.Chosen | None, number: int
    ) -> StreamState:
        spec, layout, facts = request.spec, request.spec.layout, self._datasets[name]
        num_samples = facts.num_samples if chosen is None else chosen.num_samples
        if epoch_layout.batches_left(layout, num_samples) == 0:
            raise OptionError(
                f"drop_last leaves no batch: {counted(num_samples, 'sample')}, "
                f"{epoch_layout.global_batch(layout)} per global batch; use a smaller batch_size"
            )
        recipe = parse_stream_recipe(spec.recipe, self._catalogue)
        num_targets = facts.num_targets
        if num_targets and chosen is not None and chosen.num_picked:
            num_targets = chosen.num_picked
        num_params = _num_params_of(recipe) if spec.params else 0
        layouts = [
            _layout_of(phase, phase.sizes(facts.first_size_px), spec, num_targets, num_params)
            for phase in recipe.phases
        ]
        slot_bytes = max(size_bytes for _, size_bytes in layouts)
        arrays = layouts[0][0]
        stream = StreamState(
            number, name, spec, num_samples, arrays, slot_bytes, chosen, share=request.share
        )
        stream.phases = _changes_of(recipe, [arrays for arrays, _ in layouts])
        stream.num_unlabelled = facts.num_unlabelled if chosen is None else 0
        return stream

    def _start(self, session: Session, stream: StreamState, request: msg.Open) -> None:
        session.state = step(SESSION, session.state, "open")
        session.is_announced = False
        place = request.epoch, request.position
        stream.start(session.number, request.opening, request.credit, place, request.held)
        stream.quarantine = united(as_entries(stream.quarantine), request.quarantine)
        self._scheduler.producer_streams.revoke(stream)

    # sharing

    def _to_join(self, session: Session, name: str, request: msg.Open) -> StreamState | None:
        """Find a stream that this client can share: one of its own key, and of the same request."""
        share = request.share
        if share is None:
            return None
        place = request.epoch, request.position
        for stream in self._scheduler.streams.values():
            if (
                stream.dataset == name
                and stream.share is not None
                and stream.share.max_lag == share.max_lag
                and stream.spec == request.spec
                and not stream.is_failed
                and stream.clients
                and _masks_all(stream, request.quarantine)
                and (share.at == "next" or stream.offers(place))
                and all(permissions.is_same(one.rights, session.rights) for one in self._on(stream))
            ):
                return stream
        return None

    def _join(self, session: Session, stream: StreamState, request: msg.Open) -> None:
        session.waiting = None
        session.stream = stream
        session.state = step(SESSION, session.state, "open")
        assert request.share is not None
        is_next = request.share.at == "next"
        place = stream.next_place() if is_next else (request.epoch, request.position)
        stream.join(session.number, request.opening, request.credit, place)
        if stream.has_arena:
            self._outbox.add(ev.GiveArena(stream.number, session.number, is_read_only=True))

    def _on(self, stream: StreamState) -> list[Session]:
        return [session for session in self._sessions.values() if session.stream is stream]


def _changes_of(
    recipe: StreamRecipe, arrays: Sequence[tuple[msg.ArraySpec, ...]]
) -> tuple[msg.PhaseArrays, ...]:
    """Return the arrays of the phases, beginning with the first, that have others than before."""
    phases = zip(recipe.phases[1:], arrays[1:], arrays, strict=False)
    return tuple(
        msg.PhaseArrays(phase.from_epoch, here) for phase, here, before in phases if here != before
    )


def _num_params_of(recipe: StreamRecipe) -> int:
    """Return how many numbers describe a row: with its steps where some op is no matrix."""
    groups = (group for phase in recipe.phases for group in phase.groups)
    ops = (op for group in groups for _, op in walk_ops(group.recipe.ops))
    return NUM_PARAMS_WITH_STEPS if any(op.is_pixel_step for op in ops) else NUM_PARAMS


def _layout_of(
    phase: Phase, sizes: Sequence[Size], spec: msg.Spec, num_targets: int, num_params: int
) -> tuple[tuple[msg.ArraySpec, ...], int]:
    """Lay out a batch of a phase, whose view groups have rows of these sizes."""
    batch_size, has_colour = spec.layout.batch_size, phase.shared.colour_on == "device"
    if not phase.is_grouped:
        return slot_layout(
            batch_size,
            *sizes[0],
            num_targets,
            num_views=phase.num_views,
            has_colour=has_colour,
            num_params=num_params,
        )
    views: dict[str, tuple[int, int, int]] = {}
    for group, (height, width) in zip(phase.groups, sizes, strict=True):
        views[group.name] = group.place + group.recipe.views, height, width
    return views_layout(
        batch_size, views, num_targets, has_colour=has_colour, num_params=num_params
    )


def _is_same_request(a: msg.Open, b: msg.Open) -> bool:
    """Say whether two clients ask for one shared stream, to be begun at the same place."""
    places = (a.epoch, a.position, a.quarantine) == (b.epoch, b.position, b.quarantine)
    return a.spec == b.spec and a.share is not None and a.share == b.share and places


def _masks_all(stream: StreamState, entries: msg.Quarantine) -> bool:
    """Say whether a stream masks at least the samples that a client's state names."""
    return all(
        sample in stream.quarantine and stream.quarantine[sample] <= (epoch, position)
        for sample, epoch, position in entries
    )
