"""Rates from two snapshots of a daemon: how busy its producers are, and the bottleneck.

Used by `augd status` and the dashboard. Arithmetic over plain data, as `Broker.snapshot` makes it;
no I/O, no clock. A producer reports its counters with each finished chunk, and a trainer with each
released batch, so over half a second their shares are estimates. A producer that finished nothing
counts as busy if it holds leases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from augd.diagnostics.bottleneck import LITTLE, Bottleneck, diagnose

Plain = Mapping[str, Any]

_SPENT = {"waited_share": "waited_s", "fetch_share": "fetch_s", "transfer_share": "transfer_s"}
_MADE = ("ready", "sent")  # slots with a finished batch, on this side or the trainer's


def compare(before: Plain, after: Plain, seconds: float) -> dict[str, Any]:
    """Add to the later snapshot what happened in the `seconds` between the two.

    - Producers get `busy_share` and `images_per_s`.
    - Streams get `images_per_s`, `waited_share`, `fetch_share` (of it: for a batch on its way) and
      `transfer_share`.
    - The whole gets `seconds`, `images_per_s`, `busy_share`, `limit` (as in
      `augd.diagnostics.bottleneck`) and `who_waits`, a sentence. It also gets `waited_share` and
      `fetch_share` of the stream that waited the most, and the largest `transfer_share`.
      `enough_producers` is None where it cannot be told.
    """
    earlier = {one["number"]: one for one in before["producers"]}
    producers = [
        {**one, **_pace_of_producer(earlier.get(one["number"]), one, seconds)}
        for one in after["producers"]
    ]
    opened = {one["stream"]: one for one in before["streams"]}
    streams = [
        {**one, **_pace_of_stream(opened.get(one["stream"]), one, seconds)}
        for one in after["streams"]
    ]
    ready = [one for one in producers if one["state"] == "ready"]
    verdict = who_waits(producers, streams)
    slowest = _slowest(streams)
    return {
        **after,
        "producers": producers,
        "streams": streams,
        "seconds": seconds,
        "images_per_s": sum(one["images_per_s"] for one in streams),
        "busy_share": sum(one["busy_share"] for one in ready) / max(1, len(ready)),
        "waited_share": slowest["waited_share"],
        "fetch_share": slowest["fetch_share"],
        "transfer_share": max((one["transfer_share"] for one in streams), default=0.0),
        "limit": verdict.limit,
        "who_waits": verdict.sentence,
        "enough_producers": verdict.enough,
    }


def _pace_of_producer(before: Plain | None, after: Plain, seconds: float) -> dict[str, float]:
    if before is not None and before["pid"] != after["pid"]:
        before = None  # a replacement
    start = before or {"busy_s": 0.0, "idle_s": 0.0, "rows": 0, "leases": 0}
    busy_s, idle_s = after["busy_s"] - start["busy_s"], after["idle_s"] - start["idle_s"]
    rows = after["rows"] - start["rows"]
    if rows and busy_s + idle_s > 0:
        share = busy_s / (busy_s + idle_s)
    else:
        share = 1.0 if start["leases"] and after["leases"] else 0.0
    return {"busy_share": share, "images_per_s": rows / seconds}


def _pace_of_stream(before: Plain | None, after: Plain, seconds: float) -> dict[str, float]:
    """Return images sent per second, and the shares of time of the stream's clients."""
    images = after["images"] - (before["images"] if before else 0)

    def share(of: str) -> float:
        # A daemon of an older release may not count it.
        spent_s = after.get(of, 0.0) - (before.get(of, 0.0) if before else 0.0)
        return min(1.0, float(spent_s) / seconds / max(1, len(after["readers"])))

    return {
        "images_per_s": images / seconds,
        **{name: share(spent) for name, spent in _SPENT.items()},
    }


def who_waits(producers: Sequence[Plain], streams: Sequence[Plain]) -> Bottleneck:
    """Name the bottleneck, from the streams that move; say what is known if none does."""
    ready = [one for one in producers if one["state"] == "ready"]
    if not streams:
        return Bottleneck("unknown", "Nobody waits: no stream is open.")
    if not ready:
        return Bottleneck("producers", "The trainers wait: no producer is ready yet.")
    busy = sum(one["busy_share"] for one in ready) / len(ready)
    if any(one["images_per_s"] for one in streams):
        slowest = _slowest(streams)
        return diagnose(
            slowest["waited_share"],
            1 - busy,
            len(ready),
            transfer=max(one["transfer_share"] for one in streams),
            fetch=slowest["fetch_share"],
        )
    if busy >= 1 - LITTLE:
        return Bottleneck(
            "producers", "The producers are at work on the next batch; none was sent yet."
        )
    if all(_is_full(one) for one in streams):
        sentence = (
            "The producers wait for the trainers: every slot holds a finished batch, and none "
            "was taken just now (a long step, or a pause between epochs)."
        )
        return Bottleneck("trainer", sentence)
    return Bottleneck("none", "Nothing moves just now: no batch was asked for.")


def _slowest(streams: Sequence[Plain]) -> Plain:
    """Return the stream that waited the most."""
    nobody = {"waited_share": 0.0, "fetch_share": 0.0}
    return max(streams, key=lambda one: one["waited_share"], default=nobody)


def _is_full(stream: Plain) -> bool:
    return not any(count for state, count in stream["slots"].items() if state not in _MADE)
