"""What a client with a key may do: a name, and the bounds that its operator wrote beside it.

Read from the clients' files (`augd/transport/auth/keys.py`), carried with every message of that
client to the broker, which decides by it (`augd/server/daemon/broker/permissions.py`). Holds no key
and knows no file. A client without rights (`None` in their place) came over a socket that needs no
key. It is the daemon's own user, or the operator admits every client.
"""

from __future__ import annotations

from msgspec import Struct

# Two streams for each of eight GPUs: training and validation.
STREAMS_DEFAULT = 16
BYTES_DEFAULT = 16 * 10**9


class Rights(Struct, frozen=True):
    """What one client may do; `datasets` is None if it may read all.

    `max_streams` counts streams that are open at a time, `max_bytes` the memory of their arenas.
    `may_produce` lets producers join with this key; clients receive their rows.
    """

    name: str
    datasets: tuple[str, ...] | None = None
    max_streams: int = STREAMS_DEFAULT
    max_bytes: int = BYTES_DEFAULT
    may_produce: bool = False
