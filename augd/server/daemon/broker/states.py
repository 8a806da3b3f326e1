"""The legal transitions of slots, chunks, sessions and producers, as tables.

One table each: state -> verb -> next state. `step` looks a transition up; a missing one cannot
happen. So the whole life of a slot or a session stands here and nowhere else. docs/protocol.md
prints these tables; a test compares. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

Table = Mapping[str, Mapping[str, str]]

# free -> filling -> ready -> sent -> free; sent again to each client of a shared stream. A slot
# whose batch was given up while producers still write into it is `draining`: it must not be used
# before the last of them has stopped.
SLOT: Table = {
    "free": {"fill": "filling"},
    "filling": {"complete": "ready", "abandon": "draining"},
    "ready": {"send": "sent", "abandon": "draining"},
    "sent": {"send": "sent", "release": "free"},
    "draining": {"drained": "free"},
}

# pending -> leased -> done; back to pending when its producer was reaped or gave it up.
CHUNK: Table = {
    "pending": {"lease": "leased"},
    "leased": {"finish": "done", "lose": "pending"},
    "done": {},
}

# A session attaches (its lifeline is connected), opens, and closes from any state. One that ended
# but still holds slots is `leaving` until it has released them.
SESSION: Table = {
    "new": {"attach": "attached", "close": "closed"},
    "attached": {"open": "open", "close": "closed"},
    "open": {"open": "open", "leave": "leaving", "close": "closed"},
    "leaving": {"close": "closed"},
    "closed": {},
}

# A producer starts, is ready for leases, and is gone once it was reaped.
PRODUCER: Table = {
    "starting": {"ready": "ready", "kill": "killed", "reap": "gone"},
    "ready": {"kill": "killed", "reap": "gone"},
    "killed": {"reap": "gone"},
    "gone": {},
}


def step(table: Table, state: str, verb: str) -> str:
    """Return the state after `verb`; a transition that the table lacks cannot happen."""
    following = table[state].get(verb)
    assert following is not None, f"no transition {verb!r} from state {state!r}"
    return following
