"""A trainer of the checker: reads as its chance says, compares every row, and tells what it saw.

A process of its own, which may be killed at any moment. A line of JSON on its standard output at
least once a second: rows, bytes, epochs and reconnections since the line before, the longest wait
for a batch, and, of what went wrong, all that is needed to do it again.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import augd
from tests.fault.row_comparison import Chain, Layout, Reference, Tally

TIMEOUT_S = 60.0
TELL_S = 0.5
EPOCHS = 3
SEEDS = (0, 11)


@dataclass(frozen=True)
class Task:
    """What a reader does. `datasets` are names at the daemon and their references' files."""

    name: str
    kind: str  # a method of `Reader`
    address: str
    datasets: dict[str, str]
    recipe: dict[str, Any]
    chance: int
    stop: str  # the file that tells everybody to end
    state: str = ""  # where its checkpoint is kept
    keys: str | None = None
    transport: str = "auto"


@dataclass
class Seen:
    """What was seen since it was last told."""

    counts: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    longest_at: float = 0.0
    failures: list[dict[str, Any]] = field(default_factory=list)


class Stopped(Exception):
    """Everybody is to end."""


class Reader:
    """One reader. `run` ends when the file that says so is there."""

    def __init__(self, task: Task) -> None:
        self._task = task
        # Anew for each process, so that one that was killed does not do the same again.
        self._chance = random.Random(f"{task.chance} {time.time_ns() if task.state else ''}")
        self._references = {
            name: Reference.load(Path(path)) for name, path in task.datasets.items()
        }
        self._lock = threading.Lock()
        self._seen = Seen()
        self._told_at = time.monotonic()

    def run(self) -> None:
        rounds: dict[str, Callable[[dict[str, Any]], None]] = {
            "plain": self._read_plain,
            "sharing": self._read_together,
            "elastic": self._read_elastic,
        }
        deed = rounds[self._task.kind]
        while not self._is_told_to_stop():
            told: dict[str, Any] = {}
            try:
                deed(told)
            except Stopped:
                break
            except Exception:
                self._note_failure(told)
                time.sleep(0.5)
        self._tell(is_last=True)

    # what is told

    def _is_told_to_stop(self) -> bool:
        return Path(self._task.stop).exists()

    def _note_failure(self, told: dict[str, Any]) -> None:
        with self._lock:
            text = traceback.format_exc(limit=-6)
            self._seen.failures.append({"at": time.monotonic(), "round": told, "text": text})
        self._tell(is_last=True)

    def _count(self, rows: int, size_bytes: int, waited_s: float) -> None:
        with self._lock:
            seen = self._seen
            seen.counts.update(rows=rows, bytes=size_bytes, batches=1)
            if waited_s > seen.longest_s:
                seen.longest_s, seen.longest_at = waited_s, time.monotonic()
        self._tell()

    def _tell(self, *, is_last: bool = False) -> None:
        with self._lock:
            if not is_last and time.monotonic() < self._told_at + TELL_S:
                return
            seen, self._seen = self._seen, Seen()
            self._told_at = time.monotonic()
            line = json.dumps(vars(seen)) + "\n"
        sys.stdout.write(line)
        sys.stdout.flush()

    # streams

    def _connect(self, deadline: float | None = None, **options: Any) -> augd.Stream:
        """Connect; a daemon that is being started is waited for."""
        deadline = deadline or time.monotonic() + TIMEOUT_S
        task = self._task
        while True:
            try:
                return augd.connect(
                    task.address,
                    recipe=task.recipe,
                    transport=task.transport,  # type: ignore[arg-type]
                    timeout_s=TIMEOUT_S,
                    keys=task.keys,
                    max_bad_fraction=1.0,
                    **options,
                )
            except augd.ConnectError:
                if self._is_told_to_stop():
                    raise Stopped from None
                if time.monotonic() > deadline:
                    raise
                self._count_event("connects tried again")
                time.sleep(0.1)
                if options.get("shared"):
                    # The other one may be in already: it is joined, and not waited for.
                    options["shared"] = True

    def _count_event(self, name: str) -> None:
        with self._lock:
            self._seen.counts[name] += 1

    def _options(self) -> dict[str, Any]:
        chance = self._chance
        return {
            "dataset": chance.choice(sorted(self._references)),
            "seed": chance.choice(SEEDS),
            "batch_size": chance.choice((1, 4, 16, 50)),
            "prefetch": chance.choice((1, 2, 4)),
            "verify": chance.random() < 0.3,
        }

    def _take(self, passing: Iterator[augd.Batch], chain: Chain) -> bool:
        """Take the next batch of a pass, and compare it; say whether there was one."""
        before = time.monotonic()
        batch = next(passing, None)
        waited_s = time.monotonic() - before
        if batch is None:
            return False
        size_bytes = batch.images.nbytes
        rows = chain.take(batch)
        batch.release()
        self._count(rows, size_bytes, waited_s)
        return True

    def _read_epoch(self, stream: augd.Stream, chain: Chain) -> bool:
        """Read an epoch to its end; say False if it was broken off."""
        passing = stream.epoch(chain.epoch)
        while self._take(passing, chain):
            if self._is_told_to_stop():
                return False
        chain.end(stream.receipt(chain.epoch))
        self._count_event("epochs")
        return True

    def _note_end(self, stream: augd.Stream) -> None:
        with self._lock:
            stats = stream.stats()
            for name in ("lost", "detached", "quarantined"):
                self._seen.counts[name] += int(stats[name])

    # kinds

    def _read_plain(self, told: dict[str, Any]) -> None:
        """Some epochs of one dataset, in any order."""
        options = self._options()
        epochs = self._chance.sample(range(EPOCHS), self._chance.randrange(1, EPOCHS + 1))
        told.update(options, epochs=epochs)
        reference = self._references[options["dataset"]]
        with self._connect(**options) as stream:
            for epoch in epochs:
                rows = reference.rows(options["seed"], epoch)
                if not self._read_epoch(stream, Chain(rows, epoch, Layout(options["batch_size"]))):
                    return
            self._note_end(stream)

    def _read_together(self, told: dict[str, Any]) -> None:
        """Three streams on one production: two from its start, one that joins it."""
        options = self._options()
        told.update(options, max_lag=self._chance.choice((None, 0, 1)))
        options["max_lag"] = told["max_lag"]
        if options["max_lag"] is not None:
            options["prefetch"] = max(options["prefetch"], options["max_lag"])
        delay_s = self._chance.uniform(0.0, 0.5)
        threads = [
            threading.Thread(target=self._share, args=(told, {**options, "shared": 2}, 0.0)),
            threading.Thread(target=self._share, args=(told, {**options, "shared": 2}, 0.0)),
            threading.Thread(target=self._share, args=(told, {**options, "shared": True}, delay_s)),
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()

    def _share(self, told: dict[str, Any], options: dict[str, Any], delay_s: float) -> None:
        try:
            time.sleep(delay_s)
            with self._connect(**options) as stream:
                begin = stream.state_dict()
                position = begin["position"]
                for epoch in range(begin["epoch"], EPOCHS):
                    rows = self._references[options["dataset"]].rows(options["seed"], epoch)
                    chain = Chain(rows, epoch, Layout(options["batch_size"]), position)
                    if not self._read_epoch(stream, chain):
                        return
                    position = 0
                self._note_end(stream)
        except Stopped:
            pass
        except Exception:
            self._note_failure({**told, "shared": options["shared"]})

    def _read_elastic(self, told: dict[str, Any]) -> None:
        """One epoch in pieces, each with a batch size and a world of its own; all ranks are read.

        What was read is in its file, so that the next process goes on when this one is killed.
        """
        path = Path(self._task.state)
        kept = json.loads(path.read_text()) if path.exists() else self._begin_elastic()
        world = self._chance.choice((1, 1, 2, 3))
        batch_size = self._chance.choice((3, 8, 17))
        told.update(kept, state=None, saved_in=kept["world"], world=world, batch_size=batch_size)
        path.unlink(missing_ok=True)  # kept again below: what fails must not fail for ever
        rows = self._references[kept["dataset"]].rows(kept["seed"], kept["epoch"])
        chains = [self._chain(kept, rows, Layout(batch_size, world, rank)) for rank in range(world)]
        with ExitStack() as stack:
            streams = [
                stack.enter_context(
                    self._connect(
                        dataset=kept["dataset"],
                        seed=kept["seed"],
                        batch_size=batch_size,
                        world=world,
                        rank=rank,
                    )
                )
                for rank in range(world)
            ]
            for stream in streams:
                if kept["state"] is not None:
                    stream.load_state_dict(kept["state"])
            self._save(kept)
            if not self._read_piece(streams, chains, kept):
                return
            for stream, chain in zip(streams, chains, strict=True):
                chain.end(stream.receipt(chain.epoch))
                self._note_end(stream)
        self._count_event("epochs")
        path.unlink()

    def _begin_elastic(self) -> dict[str, Any]:
        kept = {name: self._options()[name] for name in ("dataset", "seed")}
        start = {"state": None, "position": 0, "world": 0, "tally": Tally().as_data()}
        return {**kept, "epoch": self._chance.randrange(EPOCHS), **start}

    def _chain(self, kept: dict[str, Any], rows: list[Any], layout: Layout) -> Chain:
        """Rank 0 saves: for another rank, or in another world, nothing is known of before."""
        position, tally = kept["position"], Tally(**kept["tally"])
        is_known = not position or (kept["world"] == layout.world and layout.rank == 0)
        return Chain(rows, kept["epoch"], layout, position, tally if is_known else None)

    def _read_piece(
        self, streams: list[augd.Stream], chains: list[Chain], kept: dict[str, Any]
    ) -> bool:
        """Read all ranks in step, and save now and then; say whether the epoch is over."""
        passes = [stream.epoch(chains[0].epoch) for stream in streams]
        left = self._chance.randrange(1, 20)
        while True:
            found = [self._take(one, chain) for one, chain in zip(passes, chains, strict=True)]
            if len(set(found)) != 1:
                raise AssertionError(f"ranks ended at different batches: {found}")
            if not found[0]:
                return True
            left -= 1
            is_end = left <= 0 or self._is_told_to_stop()
            if is_end or self._chance.random() < 0.3:
                state = streams[0].state_dict()
                place = chains[0].epoch, chains[0].position
                if chains[0].is_over():
                    place = place[0] + 1, 0
                if (state["epoch"], state["position"]) != place:
                    raise AssertionError(f"a state of {place} says {state}")
                if not chains[0].is_over():
                    self._keep(kept, state, chains[0], len(streams))
            if is_end and not chains[0].is_over():
                self._count_event("resumes")
                return False

    def _keep(self, kept: dict[str, Any], state: Any, chain: Chain, world: int) -> None:
        tally = chain.tally.as_data()
        kept.update(state=state, position=chain.position, world=world, tally=tally)
        self._save(kept)

    def _save(self, kept: dict[str, Any]) -> None:
        beside = Path(self._task.state + ".new")
        beside.write_text(json.dumps(kept))
        os.replace(beside, self._task.state)  # noqa: PTH105


if __name__ == "__main__":
    Reader(Task(**json.loads(sys.argv[1]))).run()
