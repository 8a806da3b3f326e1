"""Where does one daemon end: the real broker and plan, 10^9 samples, 1,000 producers, 64 trainers.

No process, no socket and no pixel: the broker is fed as its daemon feeds it, each message encoded
and decoded as on the wire, by producers that take as long for a chunk as was measured
(`--ms-per-image`) and trainers that take a batch as soon as it is there. The clock is a simulated
one; what is measured is the CPU time that the broker takes.
Printed: messages and images per second of one core, its memory, the time to the first batch, what
losing 10 % of the producers in one moment costs, and what planning costs at 10^9 samples.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import os
import random
import time
from collections import deque
from itertools import count
from typing import Any

import numpy as np

from augd.diagnostics.procfs import anonymous_bytes
from augd.plan.order.sample_sequence import Draw
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.broker import Broker, DatasetFacts

DIGEST = "0" * 32
RECIPE = {"ops": [{"op": "random_resized_crop", "size": 224}, {"op": "mirror"}]}
LINK_S = 0.0005  # from a producer's word to the daemon's ear, in one data centre
JITTER = 0.3  # service times differ by so much either way


class Site:
    """Producers and trainers around a broker, on a clock of their own."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Let everybody join and open."""
        self._rng = random.Random(0)
        self._ms_per_image = arguments.ms_per_image
        facts = {"d": DatasetFacts(DIGEST, "/d", arguments.samples, (500, 400))}
        self.broker = Broker("i", "/a", facts, 0, patience_s=3600.0)
        self.now = 0.0
        self.num_messages = 0
        self.broker_s = 0.0
        self.rows_done = 0
        self.num_batches = 0
        self.first_batch_s = 0.0
        self._order = count()
        self._due: list[tuple[float, int, str, Any]] = []
        self._queues: dict[int, deque[msg.Lease]] = {}  # of each producer
        self._trainers: dict[bytes, dict[str, int]] = {}
        self._joined: list[msg.Joined] = []
        for _ in range(arguments.producers):
            self.join()
        spec = msg.Spec("d", RECIPE, msg.Layout(arguments.batch_size), prefetch=arguments.prefetch)
        for trainer in range(arguments.trainers):
            peer = b"%d" % trainer
            self._trainers[peer] = {"credit": arguments.prefetch + 1}
            self.feed(ev.FromPeer(peer, msg.Hello("n", transport="frames")))
            session, token = self._trainers[peer]["session"], str(self._trainers[peer]["token"])
            self.feed(ev.PeerAttached(session, token, is_framed=True))
            request = msg.Open(session, 1, spec, credit=arguments.prefetch + 1)
            self.feed(ev.FromPeer(peer, request))

    def join(self) -> None:
        """Have one producer more."""
        self.feed(ev.FromPeer(b"j", msg.Join("node", 1, {"d": DIGEST}, {"opencv": "5"})))
        joined = self._joined.pop()
        self._queues[joined.producer] = deque()
        self.feed(ev.RemoteProducerAttached(joined.producer, joined.token))

    def lose(self, share: float) -> int:
        """Lose these producers in one moment; returns how many they are."""
        lost = self._rng.sample(sorted(self._queues), int(len(self._queues) * share))
        for number in lost:
            del self._queues[number]
            self.feed(ev.RemoteProducerGone(number, "its rack is dark"))
        return len(lost)

    def feed(self, event: ev.Event) -> None:
        """Give the broker an event, and do what it wants; its own time is counted."""
        started = time.thread_time()
        actions = self.broker.handle(event, self.now)
        self.broker_s += time.thread_time() - started
        self.num_messages += 1
        for action in actions:
            self._act(action)

    def _act(self, action: ev.Action) -> None:
        match action:
            case ev.SendToProducer(number, msg.Lease() as lease) if number in self._queues:
                started = time.thread_time()
                codec.decode_to_relay(codec.encode(lease))
                self.broker_s += (time.thread_time() - started) / 2  # one half is the relay's
                queue = self._queues[number]
                queue.append(lease)
                if len(queue) == 1:
                    self._begin(number)
            case ev.MakeArena(stream):
                self._at(0.0, "arena", stream)
            case ev.SendToClient(peer, message):
                self._hear(peer, message)

    def _hear(self, peer: bytes, message: msg.ToClient) -> None:
        match message:
            case msg.Joined():
                self._joined.append(message)
            case msg.Welcome():
                self._trainers[peer].update(session=message.session, token=message.token)  # type: ignore[call-overload]
            case msg.BatchMessage():
                self.num_batches += 1
                self.first_batch_s = self.first_batch_s or self.now
                self._at(LINK_S, "release", (peer, message))
            case msg.Error():
                raise RuntimeError(message.text)

    def _begin(self, number: int) -> None:
        lease = self._queues[number][0]
        jitter = 1 + JITTER * (2 * self._rng.random() - 1)
        self._at(lease.rows * self._ms_per_image / 1000 * jitter + LINK_S, "done", (number, lease))

    def _at(self, delay_s: float, kind: str, what: Any) -> None:
        heapq.heappush(self._due, (self.now + delay_s, next(self._order), kind, what))

    def step(self) -> None:
        """Let the next thing happen."""
        self.now, _, kind, what = heapq.heappop(self._due)
        if kind == "arena":
            self.feed(ev.ArenaMade(what))
        elif kind == "release":
            peer, batch = what
            self._trainers[peer]["credit"] += 1
            self.feed(ev.FromPeer(peer, msg.Release(batch.session, batch.slot, batch.generation)))
            flow = msg.Flow(batch.session, 1, self._trainers[peer]["credit"])
            self.feed(ev.FromPeer(peer, flow))
        elif what[0] in self._queues:
            self._done(*what)

    def _done(self, number: int, lease: msg.Lease) -> None:
        frame = codec.encode(msg.Done(lease.lease, digest=b"\1" * 16, ids_digest=b"\1" * 8))
        started = time.thread_time()
        message = codec.decode_from_relay(frame)
        found = self.broker.target(number, lease.lease)
        self.broker_s += time.thread_time() - started
        if found is None:
            raise RuntimeError(f"{lease} is nobody's")
        self._queues[number].popleft()
        self.feed(ev.FromRemoteProducer(number, message))
        self.rows_done += lease.rows
        if self._queues[number]:
            self._begin(number)

    def run(self, until_s: float) -> None:
        """Let the clock of the simulation run."""
        while self._due and self._due[0][0] < until_s:
            self.step()


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Run it; returns the figures."""
    gc.collect()
    before = anonymous_bytes(os.getpid())
    site = Site(arguments)
    opened_s = site.broker_s
    site.run(arguments.seconds / 2)
    if not site.num_batches:
        raise RuntimeError("no batch came: run for longer, --seconds")
    memory = anonymous_bytes(os.getpid()) - before
    at, messages, broker_s, rows = site.now, site.num_messages, site.broker_s, site.rows_done
    site.run(site.now + arguments.seconds / 2)
    span_s = site.now - at
    messages, broker_s = site.num_messages - messages, site.broker_s - broker_s
    rows = site.rows_done - rows
    lost_s, started, rows_before = site.broker_s, site.now, site.rows_done
    num_lost = site.lose(0.1)
    lost_s = site.broker_s - lost_s
    site.run(started + 1.0)
    return {
        "joining_and_opening_ms_of_broker": opened_s * 1000,
        "time_to_first_batch_s": site.first_batch_s,
        "messages_per_s_of_one_core": messages / broker_s,
        "images_per_s_of_one_core": rows / broker_s,
        "images_per_s_of_the_producers": rows / span_s,
        "core_share_at_that": broker_s / span_s,
        "broker_memory_mb": memory / 1e6,
        "lost_producers": num_lost,
        "losing_them_ms_of_broker": lost_s * 1000,
        "images_in_the_second_after": float(site.rows_done - rows_before),
        "planning_us_per_sample": _planning_us(arguments.samples),
    }


def _planning_us(num_samples: int) -> float:
    """Draw chunks of ids out of the order of so many samples: no array of them exists."""
    draw = Draw(num_samples, 0, True)
    best = float("inf")
    for epoch in range(5):
        positions = np.arange(epoch * 7919, epoch * 7919 + 256)
        started = time.thread_time()
        draw.rows(epoch, positions)
        best = min(best, time.thread_time() - started)
    return best / 256 * 1e6


def main() -> None:
    """Read the options, print a line per figure, and all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10**9)
    parser.add_argument("--producers", type=int, default=1000)
    parser.add_argument("--trainers", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--prefetch", type=int, default=8)
    parser.add_argument("--ms-per-image", type=float, default=1.3, help="of one producer")
    parser.add_argument("--seconds", type=float, default=2.0, help="of the simulated clock")
    arguments = parser.parse_args()
    figures = measure(arguments)
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):40} {value:>14,.2f}")
    print(json.dumps({**vars(arguments), **figures}))


if __name__ == "__main__":
    main()
