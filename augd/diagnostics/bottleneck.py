"""The bottleneck of a stream: takes shares of time, returns the limit, a sentence and advice.

Used by `augd status`, the dashboard and `augd bench`. Each measures in its own way; all are judged
here, so that they agree about equal numbers. Pure: no I/O, no clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

LITTLE = 0.1  # a share of waiting below this does not matter
_ALMOST_ALL = 0.9  # above this share of waiting, the number of producers needed is unknown

Limit = Literal["producers", "transport", "trainer", "both", "none", "unknown"]


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The limit, a sentence for users, and how many producers are enough; None: not known."""

    limit: Limit
    sentence: str
    enough: int | None = None


def diagnose(
    waits: float,
    idle: float,
    num_producers: int,
    *,
    on_core: float = 1.0,
    transfer: float = 0.0,
    fetch: float = 0.0,
) -> Bottleneck:
    """Name the limit.

    Args:
        waits: share of the time that the trainer waited for a batch.
        idle: share of the time that the producers had nothing to make, their mean.
        num_producers: how many there are.
        on_core: share of their working time in which the producers had a core.
        transfer: share of the time in which moving batches to a device delayed the trainer.
        fetch: share of the time in which the trainer waited for a batch on its way, a part of
            `waits`.
    """
    shares = f"the trainer waited {waits:.0%} of the time, the producers {idle:.0%}"
    if transfer >= LITTLE:
        shares += f"; handing batches to its device took it {transfer:.0%}"
    if waits < LITTLE and idle < LITTLE:
        return Bottleneck("none", f"Nobody waits: {shares}.", num_producers)
    if idle < LITTLE:
        enough = producers_for(waits, idle, num_producers)
        return Bottleneck(
            "producers",
            f"Decoding is the limit: {shares}. {_more(enough, num_producers)}{_off_core(on_core)}",
            enough,
        )
    if waits < LITTLE:
        enough = max(1, math.ceil(num_producers * (1 - idle)))
        few = f" {enough} of {num_producers} producers would be enough."
        sentence = (
            f"The training step is the limit: {shares}.{few if enough < num_producers else ''}"
        )
        return Bottleneck("trainer", sentence, enough)
    on_its_way = f"for {fetch:.0%} of it a finished batch was on its way"
    if fetch > waits / 2:
        sentence = (
            f"The way to the trainer is the limit: {shares}; {on_its_way}. Connect by ipc:// where "
            "both are on one machine and share memory, over a faster link, or ask for smaller rows."
        )
        return Bottleneck("transport", sentence, num_producers)
    why, more = "batches come in bursts", ""
    if fetch >= LITTLE:
        why, more = on_its_way, ", or connect by ipc:// on the daemon's machine"
    return Bottleneck(
        "both", f"Both wait: {shares}; {why}. Raise prefetch or the batch size{more}."
    )


def producers_for(waits: float, idle: float, num_producers: int) -> int | None:
    """Return how many producers keep the trainer from waiting; None if it takes all there is.

    It used up their rows in the share of the time in which it did not wait.
    """
    if waits >= _ALMOST_ALL:
        return None
    return max(num_producers + 1, math.ceil(num_producers * (1 - idle) / (1 - waits)))


def _more(enough: int | None, num_producers: int) -> str:
    if enough is None:
        return "It takes whatever is made: more producers make more, up to one per core."
    more = enough - num_producers
    return f"{more} more producer{'s' if more > 1 else ''} would do, where cores are free."


def _off_core(on_core: float) -> str:
    if on_core > 0.8:
        return ""
    return (
        f" While producers worked they had a core {on_core:.0%} of the time: "
        "they wait for storage, or for cores that others use."
    )
