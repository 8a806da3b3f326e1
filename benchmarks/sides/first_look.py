"""A client that connects as soon as a daemon listens, and takes one batch of 64.

Prints the moments of the machine's monotonic clock at which it got on.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import augd

_GIVE_UP_S = 30.0
_LOOK_EVERY_S = 0.002


def main(address: str) -> None:
    """Connect, take a batch, tell when."""
    connect = augd.connect
    moments = {"client imported": time.monotonic()}
    socket = Path(address.removeprefix("ipc://"))
    while not socket.is_socket():
        if time.monotonic() - moments["client imported"] > _GIVE_UP_S:
            sys.exit(f"nobody listens at {address} after {_GIVE_UP_S:g} s")
        time.sleep(_LOOK_EVERY_S)
    moments["daemon listens"] = time.monotonic()
    with connect(address, batch_size=64) as stream:
        moments["stream opened"] = time.monotonic()
        batch = next(stream.epoch(0))
        moments["first batch"] = time.monotonic()
        if not batch.valid.all():
            sys.exit("the first batch holds bad samples")
    print(json.dumps(moments))


if __name__ == "__main__":
    main(sys.argv[1])
