"""What two snapshots of a daemon tell: how busy its producers are, and who waits for whom.

Arithmetic over plain data, as `Broker.snapshot` makes it; knows no connection, no clock and no
screen. A producer reports its counters with each chunk it finishes, so that over half a second
its share is an estimate; a producer that finished none is judged by whether it holds leases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Plain = Mapping[str, Any]

_IDLE_LITTLE = 0.1  # a share of waiting below which nobody needs to care
_MADE = ("ready", "sent")  # slots with a finished batch, on this side or the trainer's


def compare(before: Plain, after: Plain, seconds: float) -> dict[str, Any]:
    """Add to the later snapshot what happened in the `seconds` between the two.

    Producers get `busy_share` and `images_per_s`, streams `images_per_s`; the whole gets
    `seconds`, `limit` ("producers", "trainers", "none" or "unknown"), `who_waits`, a sentence,
    and `enough_producers`, None where it cannot be told.
    """
    earlier = {one["number"]: one for one in before["producers"]}
    producers = [
        {**one, **_pace_of_producer(earlier.get(one["number"]), one, seconds)}
        for one in after["producers"]
    ]
    opened = {one["session"]: one for one in before["streams"]}
    streams = [
        {**one, "images_per_s": _rate_of_stream(opened.get(one["session"]), one, seconds)}
        for one in after["streams"]
    ]
    limit, sentence, enough = who_waits(producers, streams)
    return {
        **after,
        "producers": producers,
        "streams": streams,
        "seconds": seconds,
        "limit": limit,
        "who_waits": sentence,
        "enough_producers": enough,
    }


def _pace_of_producer(before: Plain | None, after: Plain, seconds: float) -> dict[str, float]:
    start = before or {"busy_s": 0.0, "idle_s": 0.0, "rows": 0, "leases": 0}
    busy_s, idle_s = after["busy_s"] - start["busy_s"], after["idle_s"] - start["idle_s"]
    rows = after["rows"] - start["rows"]
    if rows and busy_s + idle_s > 0:
        # What it waited since its last chunk is not reported yet.
        silent_s = max(0.0, seconds - busy_s - idle_s) if not after["leases"] else 0.0
        share = busy_s / (busy_s + idle_s + silent_s)
    else:
        share = 1.0 if start["leases"] and after["leases"] else 0.0
    return {"busy_share": share, "images_per_s": rows / seconds}


def _rate_of_stream(before: Plain | None, after: Plain, seconds: float) -> float:
    """Images sent per second; what was sent is counted anew when a stream moves."""
    sent: int = after["sent"] - (before["sent"] if before else 0)
    rate: float = max(0, sent) * after["batch_size"] / seconds
    return rate


def who_waits(producers: Sequence[Plain], streams: Sequence[Plain]) -> tuple[str, str, int | None]:
    """Name who limits the pace, say it in a sentence, and how many producers would be enough."""
    ready = [one for one in producers if one["state"] == "ready"]
    if not streams:
        return "unknown", "Nobody waits: no stream is open.", None
    if not ready:
        return "producers", "The trainers wait: no producer is ready yet.", None
    busy = sum(one["busy_share"] for one in ready) / len(ready)
    if busy >= 1 - _IDLE_LITTLE:
        return "producers", _trainers_wait(busy, streams), None
    if any(one["images_per_s"] for one in streams):
        enough = max(1, math.ceil(len(ready) * busy))
        return "trainers", _producers_wait(busy, streams, enough, len(ready)), enough
    if all(_is_full(one) for one in streams):
        return (
            "trainers",
            (
                "The producers wait for the trainers: every slot holds a finished batch, and none "
                "was taken just now (a long step, or a pause between epochs)."
            ),
            None,
        )
    return "none", "Nothing moves just now: no batch was asked for.", None


def _is_full(stream: Plain) -> bool:
    return not any(count for state, count in stream["slots"].items() if state not in _MADE)


def _trainers_wait(busy: float, streams: Sequence[Plain]) -> str:
    empty = sum(not any(one["slots"].get(state) for state in _MADE) for one in streams)
    said = f"The producers are the limit: they are busy {busy:.0%} of the time"
    if empty:
        which = "the stream has" if len(streams) == 1 else f"{empty} of {len(streams)} streams have"
        return f"{said}, and {which} no finished batch: the trainers wait for them."
    if all(_is_full(one) for one in streams):
        return f"{said}, and just keep up with the trainers."
    return f"{said}; the trainers take batches about as fast as they are made."


def _producers_wait(busy: float, streams: Sequence[Plain], enough: int, num_producers: int) -> str:
    whom = "the trainer" if len(streams) == 1 else "the trainers"
    said = f"The producers wait for {whom}: they are busy {busy:.0%} of the time."
    if enough == num_producers:
        return said
    return f"{said} {enough} of {num_producers} producers would be enough."
