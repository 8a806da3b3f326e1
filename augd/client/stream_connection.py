"""The connections of one stream, one after another: open again where the last one ended.

Runs in the training process, between `augd/client/stream.py` and `augd/client/connection.py`.
It reconnects when the daemon is lost, and moves to another production when a shared stream seeks
or is detached. Loads no NumPy and starts no thread.

Invariants: a stream goes on only with the content that it was opened with; every wait ends by
`timeout_s`.
"""

from __future__ import annotations

import logging
import random
import weakref
from collections.abc import Callable
from typing import Any

from msgspec import structs

from augd.client.connection import Connection, Start
from augd.client.wait_notice import WaitNotice, sentence
from augd.errors import ConnectError, ConnectionLost, SpecMismatch
from augd.plan.content import Content, differences
from augd.process.awake_clock import Awake
from augd.protocol import epoch_layout
from augd.protocol import messages as msg
from augd.protocol.quarantine import as_entries

_log = logging.getLogger("augd")

Place = tuple[int, int]  # (epoch, position)
# Opens a connection within so many seconds of a clock. While it opens, it calls the function that
# logs a wait, which returns the seconds until it is to be called again.
Connect = Callable[[msg.Spec, Start, float, Callable[[], float], Awake], Connection]

_PAUSE_S = 0.05  # before the first attempt to reconnect
# A restarted daemon is back within a second. Until then attempts are cheap; later they would be
# useless load from many trainers.
_SOON_S = 3.0
_PAUSE_SOON_S = 0.1
_PAUSE_MAX_S = 2.0


class StreamConnection:
    """The connection that a stream has now, and how it gets the next one.

    `seek`, `reconnect`, `detach` and `take_all_splits` return whether files of the dataset have
    changed since the connection before. A stream that is dropped leaves its connection.

    Attributes:
        current: the connection in use.
        opened: what the daemon answered to its OPEN.
        spec: what the stream asks for, the same at each connection.
        share: with whom it shares a production; None for a stream of its own.
        timeout_s: the longest wait for a daemon.
        num_lost: connections that ended and were opened again.
        num_detached: 1 once the stream lagged too far behind its sharers and left them.
        notices: changes of files, as texts for the user.
    """

    def __init__(self, connection: Connection, connect: Connect, timeout_s: float) -> None:
        """Take an open connection; `connect` opens the next ones."""
        assert connection.session.opened is not None
        self.current = connection
        self.opened: msg.Opened = connection.session.opened
        self.spec = connection.session.spec
        self.share = connection.session.share
        self.is_split_open = connection.session.is_split_open
        self.timeout_s = timeout_s
        self.num_lost = 0
        self.num_detached = 0
        self.notices: list[str] = []
        self._connect = connect
        self._clock = Awake()  # shared by all its connections
        self._closer: weakref.finalize[..., Any] = weakref.finalize(self, connection.leave)

    def close(self) -> None:
        """Leave the connection in use; closing twice is fine."""
        self._closer()

    def seek(self, place: Place) -> bool:
        """Have the next batch come from another place; a shared stream leaves its sharers."""
        self.current.check_usable()
        if self.share is not None:
            return self._move(place, structs.replace(self.share, at="here"))
        try:
            self.current.seek(*place)
        except ConnectionLost as lost:
            return self.reconnect(lost, place)
        return False

    def detach(self, place: Place) -> bool:
        """Leave sharers that did not wait, and go on alone at a place."""
        self.num_detached += 1
        self.share = None
        return self._move(place, None)

    def take_all_splits(self) -> bool:
        """Open again with all samples, for a state that was saved without a choice of split."""
        selection = structs.replace(self.spec.selection, split=None)
        self.spec = structs.replace(self.spec, selection=selection)
        self.is_split_open = False
        return self._move((0, 0), self.share)

    def _move(self, place: Place, share: msg.Share | None) -> bool:
        """Change to another production; batches that are held stay as they are."""
        self.current.leave()
        deadline = self._clock.now() + self.timeout_s
        why = f"a shared stream was left for epoch {place[0]}, position {place[1]}."
        return self._adopt(self._connect_until(self._start(place, share), deadline, why))

    def reconnect(self, lost: ConnectionLost, place: Place) -> bool:
        """Wait until a daemon is back, and open the stream at a place.

        Raises:
            ConnectError: no daemon is back within `timeout_s`.
            SpecMismatch: the daemon serves other content.
        """
        self.num_lost += 1
        share = self.share
        if share is not None:
            share = msg.Share("here", 1, 0.0, share.max_lag)
        start = self._start(place, share)
        self.current.leave()  # with shared memory and a daemon that lives, held batches stay
        connection = self._connect_until(start, self._clock.now() + self.timeout_s, str(lost))
        assert connection.session.opened is not None
        opened = connection.session.opened
        was, now = Content(self.opened.content_fields), Content(opened.content_fields)
        if now != was:
            connection.close()
            named = "; ".join(differences(was, now, "{name}: {a} before, {b} now"))
            changes = dict(opened.changes)
            if "dataset:" in named and self.opened.stamp in changes:
                named += f" ({changes[self.opened.stamp]})"
            raise SpecMismatch(
                f"the daemon at {connection.address} came back with other content: {named}. Start "
                "it as it was, or connect anew."
            )
        return self._adopt(connection)

    def _adopt(self, connection: Connection) -> bool:
        """Go on with a new connection; say whether files changed meanwhile."""
        assert connection.session.opened is not None
        self._closer.detach()
        connection.fetch_s = self.current.fetch_s  # counted over all connections
        was = self.opened.stamp
        self.current, self.opened = connection, connection.session.opened
        self._closer = weakref.finalize(self, connection.leave)
        changed = self.changed_since(was)
        if changed is not None:
            self.note_change(changed)
        return changed is not None

    def changed_since(self, stamp: str) -> str | None:
        """Say which files have other times than under a stamp; None if none, or not known."""
        changes = dict(self.opened.changes)
        if not stamp or stamp == self.opened.stamp or stamp not in changes:
            return None
        return f"files of dataset {self.opened.dataset!r} have changed: {changes[stamp]}"

    def note_change(self, text: str) -> None:
        """Log that files changed, and keep the text among the notices."""
        notice = f"{text}. Rows of changed files differ from those before"
        self.notices.append(notice)
        _log.warning("%s", notice)

    def _start(self, place: Place, share: msg.Share | None) -> Start:
        layout, num_positions = self.spec.layout, self.opened.num_positions
        if not epoch_layout.batches_left(layout, num_positions, place[1]):
            place = place[0] + 1, 0
        return Start(*place, as_entries(self.current.session.quarantine), share)

    def _connect_until(self, start: Start, deadline: float, why: str) -> Connection:
        chance = random.Random()  # trainers that lost the same daemon must not all come at once
        clock = self._clock
        pause_s, soon = _PAUSE_S, clock.now() + _SOON_S
        why = sentence(why)  # the text of a daemon's ERROR may lack its full stop
        then = f"the stream goes on at position {start.position} of epoch {start.epoch}"
        notice = WaitNotice(why, then, deadline - clock.now(), clock.now)
        while True:
            try:
                within_s = max(deadline - clock.now(), _PAUSE_S)
                connection = self._connect(self.spec, start, within_s, notice.log_if_due, clock)
                notice.end()
                return connection
            except ConnectError as error:
                left_s = deadline - clock.now()
                if left_s <= 0:
                    raise ConnectError(
                        f"{why} No daemon was back within {self.timeout_s:g} s: {error}"
                    ) from error
                pause_s = min(pause_s, notice.log_if_due())
                clock.sleep(min(left_s, pause_s * chance.uniform(0.5, 1.0)))
                is_soon = clock.now() < soon
                pause_s = min(2 * pause_s, _PAUSE_SOON_S if is_soon else _PAUSE_MAX_S)
