"""A checker that knows nothing of the tests: everything is killed by chance, every row is compared.

    python -m tests.fault.checker --seconds 600 --seed 1

Two daemons: one serves five datasets of unequal size, behind keys at a port, with a page, a cache
in memory and a relay; the other a packed set, from its folder and from a store on HTTP, with a
cache on disk. What they serve was read once by one producer of an undisturbed daemon; each row that
arrives later is compared with that, each epoch must be exactly once, and each receipt must say what
was counted (tests/fault/row_comparison.py). What is killed, stopped or broken, and when, hangs on
the seed; what it meets, on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import augd
from augd.cli.pack.command import pack
from augd.cli.pack.options import PackOptions
from tests.fault.checked_trainer import EPOCHS, SEEDS, Task
from tests.fault.deployments import Deployment
from tests.fault.disturbances import Disturbance, Disturbances, Due, wake
from tests.fault.row_comparison import Reference
from tests.fault.soak import left_behind, private_folder
from tests.support.keyring import Keyring
from tests.support.programs import free_port
from tests.support.scenes import make_folder
from tests.support.stores import Deeds, await_port

ROOT = Path(__file__).resolve().parents[2]
RECIPE: dict[str, Any] = {
    "ops": [
        {"op": "random_resized_crop", "size": 64},
        {"op": "mirror", "p": 0.5},
        {"op": "pca", "alpha_std": 0.1},
    ],
    "filter": "linear",
}
SIZES = {"one": 1, "few": 9, "some": 61, "many": 205, "most": 900}
PACKED = 150
PATIENCE_S = 3
EVERY_S = 0.5  # on average, between two faults
END_S = 90.0  # for a trainer that was told to end: it may wait for a batch
BEFORE_S = 20.0  # faults so long before a failure are shown with it


@dataclass
class Trainer:
    """A reader's process, and the thread that takes what it tells."""

    task: Task
    process: subprocess.Popen[str]
    listener: threading.Thread
    is_killed: bool = False


@dataclass
class Report:
    """What was done and seen."""

    seed: int
    done: list[tuple[float, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    longest: dict[str, tuple[float, float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def is_good(self) -> bool:
        return not self.failures and self.counts["rows"] > 0

    def fail(self, text: str) -> None:
        """Take what went wrong, and say it at once: a run is long."""
        self.failures.append(text)
        print(f"checker: FAILED: {text}", file=sys.stderr, flush=True)

    def lines(self) -> Iterator[str]:
        yield f"seed {self.seed}: {len(self.done):,} faults"
        for kind, count in sorted(Counter(one[1] for one in self.done).items()):
            yield f"    {kind:<34}{count:>8,}"
        yield "compared"
        for name, count in sorted(self.counts.items()):
            yield f"    {name:<34}{count:>16,}"
        yield "longest wait for a batch, in seconds"
        for name, (waited_s, at) in sorted(self.longest.items()):
            yield f"    {name:<34}{waited_s:>8.2f}  {self.before(at, waited_s + 1)}"
        yield f"failures {len(self.failures)}"
        yield from (text.partition("\n")[0] for text in self.failures)

    def before(self, at: float, seconds: float) -> str:
        """Name the last faults before a moment."""
        found = [f"{kind} {at - when:.1f} s" for when, kind in self.done if 0 < at - when < seconds]
        return "after " + ", ".join(found[-12:]) if found else ""


class Checker:
    """The daemons, the store, the trainers, and what is done to them."""

    def __init__(self, folder: Path, seed: int, *, is_short: bool = False) -> None:
        self._folder = folder
        self._chance = random.Random(seed)
        self._is_short = is_short
        self._stack = ExitStack()
        self._due = Due()
        self._trainers: dict[str, Trainer] = {}
        self._not_before: dict[str, float] = {}
        self._disturbances: dict[str, Disturbances] = {}
        self._deployments: dict[str, Deployment] = {}
        self._store: subprocess.Popen[bytes] | None = None
        self._store_port = free_port()
        self.report = Report(seed)

    # what there is

    def begin(self) -> None:
        """Make the datasets, read them once undisturbed, and start everybody."""
        sets = self._make_sets()
        references = self._read_references(sets)
        self._deployments["sets"] = self._start_sets({k: v for k, v in sets.items() if k in SIZES})
        if not self._is_short:
            self._start_store()
            self._deployments["shards"] = self._start_shards()
            references["store"] = references["packed"] = references.pop("photos")
        ring = self._ring
        near, far = self._deployments["sets"].address, f"tcp://127.0.0.1:{self._port}"
        several = {name: references[name] for name in SIZES if name in references}
        alice = str(ring.let_in("alice"))
        self._add("mapped", "plain", near, several)
        self._add("by port", "plain", far, several, keys=alice)
        self._add("elastic", "elastic", near, several)
        if self._is_short:
            return
        shards = {name: references[name] for name in ("packed", "store")}
        self._add("sharing", "sharing", near, several)
        self._add("elastic by port", "elastic", far, several, keys=alice)
        self._add("shards", "plain", self._deployments["shards"].address, shards)
        self._add(
            "shards in frames", "elastic", self._deployments["shards"].address, shards, "frames"
        )

    def _make_sets(self) -> dict[str, Path]:
        sizes = dict(list(SIZES.items())[:4]) if self._is_short else SIZES
        sets = {
            name: make_folder(
                self._folder / name, num_classes=min(size, 3), per_class=-(-size // 3)
            )
            for name, size in sizes.items()
        }
        cut_short(next(iter(sorted(sets["some"].rglob("*.jpg")))))
        if not self._is_short:
            size_px = (361, 242)
            photos = make_folder(
                self._folder / "photos", num_classes=2, per_class=PACKED // 2, size_px=size_px
            )
            pack(str(photos), str(self._folder / "packed"), PackOptions(shard_mb=1))
            sets["photos"] = photos
        return sets

    def _read_references(self, sets: dict[str, Path]) -> dict[str, str]:
        """Read by one producer of a daemon that nothing happens to; returns files by name."""
        below = self._folder / "references"
        below.mkdir()
        found = {}
        with augd.serve(sets, producers=1) as daemon:
            for name in sets:
                reference = Reference()
                for seed in SEEDS:
                    with augd.connect(
                        daemon.address,
                        dataset=name,
                        recipe=RECIPE,
                        batch_size=32,
                        seed=seed,
                        max_bad_fraction=1.0,
                    ) as stream:
                        for epoch in range(EPOCHS):
                            reference.add(seed, epoch, stream.epoch(epoch))
                reference.save(below / name)
                found[name] = str(below / name)
        return found

    def _start_sets(self, sets: dict[str, Path]) -> Deployment:
        self._ring = ring = Keyring(self._folder)
        ring.let_in("alice")
        farm = ring.let_in("farm", may_produce=True, max_streams=0)
        self._port = free_port()
        port = f"tcp://127.0.0.1:{self._port}"
        named = [f"{name}={path}" for name, path in sets.items()]
        words = ["--listen", f"ipc://{self._folder}/run/sets", "--listen", port]
        words += ["--keys", str(ring.folder), "--producers", "2", "--patience", str(PATIENCE_S)]
        words += ["--cache", "ram:4MB", "--http", f"127.0.0.1:{free_port()}", *named]
        relay = ["--connect", port, "--keys", str(farm), "--producers", "1", *named]
        return self._keep(Deployment("sets", self._folder / "sets.log", words, relay))

    def _start_shards(self) -> Deployment:
        words = ["--listen", f"ipc://{self._folder}/run/shards", "--producers", "2"]
        words += ["--patience", str(PATIENCE_S), "--cache", f"disk:{self._folder}/kept:8MB"]
        words += ["--shard-cache", f"{self._folder}/blocks:64MiB"]
        named = [f"packed={self._folder}/packed", f"store=http://127.0.0.1:{self._store_port}"]
        return self._keep(Deployment("shards", self._folder / "shards.log", [*words, *named], None))

    def _keep(self, deployment: Deployment) -> Deployment:
        self._stack.callback(lambda: [self.report.fail(one) for one in deployment.close()])
        self._disturbances[deployment.name] = Disturbances(
            deployment, self._chance, self._due, self._try
        )
        return deployment

    def _start_store(self) -> None:
        program = str(ROOT / "tests" / "support" / "ranges.py")
        command = [sys.executable, program, str(self._store_port), str(self._folder / "packed")]
        self._store = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        await_port(self._store_port, self._store)

    def _add(
        self,
        name: str,
        kind: str,
        address: str,
        datasets: dict[str, str],
        transport: str = "auto",
        keys: str | None = None,
    ) -> None:
        state = str(self._folder / f"{name}.state") if kind == "elastic" else ""
        chance, stop = self._chance.randrange(10**6), str(self._folder / "stop")
        self._start_trainer(
            Task(name, kind, address, datasets, RECIPE, chance, stop, state, keys, transport)
        )

    def _start_trainer(self, task: Task) -> None:
        with (self._folder / "trainers.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.fault.checked_trainer", json.dumps(asdict(task))],
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                text=True,
            )
        listener = threading.Thread(target=self._listen, args=(task, process))
        listener.start()
        self._trainers[task.name] = Trainer(task, process, listener)

    def _listen(self, task: Task, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break  # it was killed while it wrote
                told = json.loads(line)
                self.report.counts.update(told["counts"])
                before_s = self.report.longest.get(task.name, (0.0, 0.0))[0]
                if told["longest_s"] > before_s:
                    self.report.longest[task.name] = told["longest_s"], told["longest_at"]
                for one in told["failures"]:
                    done = self.report.before(one["at"], BEFORE_S)
                    text = f"trainer {task.name}, {one['round']}, {done}:\n{one['text']}"
                    self.report.fail(text)

    # what is done to it

    def go_on(self, seconds: float) -> None:
        """Do something bad about every so often."""
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at and len(self.report.failures) < 10:
            pause_s = self._chance.expovariate(1 / EVERY_S)
            next_at = time.monotonic() + min(pause_s, 4 * EVERY_S)
            while time.monotonic() < next_at:
                time.sleep(0.02)
                self._due.run()
            name, gap_s, deed = self._choose()
            began = time.monotonic()
            if deed():
                self.report.done.append((began, name))
                self._not_before[name] = time.monotonic() + gap_s
            self._look_after()

    def _choose(self) -> Disturbance:
        now = time.monotonic()
        deeds = [one for one in self._deeds() if self._not_before.get(one[0], 0.0) <= now]
        return self._chance.choice(deeds)

    def _deeds(self) -> list[Disturbance]:
        """All that may be done: its name, how long it is not done again, and the deed."""
        found: list[Disturbance] = []
        for name in self._deployments:
            found += self._disturbances[name].choices()
        for trainer in self._trainers.values():
            found.append(("trainer SIGKILL", 3, lambda one=trainer: self._kill_trainer(one)))
            found.append(("trainer SIGSTOP", 3, lambda one=trainer: self._stop_trainer(one)))
        if self._store is not None:
            bad = ({"status": 503}, {"status": 500}, {"cut": 1000}, {"delay_s": 0.5})
            deed = {**self._chance.choice(bad), "path": ".tar"}
            found.append(("store errors", 8, lambda: self._misbehave(deed)))
            found.append(("store SIGKILL", 15, self._restart_store))
        return found

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            done = self.report.before(time.monotonic(), BEFORE_S)
            self.report.fail(f"{type(error).__name__}: {error}, {done}")

    def _kill_trainer(self, trainer: Trainer) -> bool:
        trainer.is_killed = True
        trainer.process.kill()
        trainer.process.wait()
        trainer.listener.join()
        self._start_trainer(trainer.task)
        return True

    def _stop_trainer(self, trainer: Trainer) -> bool:
        pid = trainer.process.pid
        trainer.process.send_signal(signal.SIGSTOP)
        self._due.after(self._chance.uniform(0.5, 4.0), lambda: wake(pid))
        return True

    def _misbehave(self, deed: dict[str, Any]) -> bool:
        server = Deeds(self._store_port)
        try:
            server.do(**deed)
        except OSError:
            return False
        self._due.after(self._chance.uniform(0.5, 3.0), lambda: _heal(server))
        return True

    def _restart_store(self) -> bool:
        assert self._store is not None
        self._store.kill()
        self._store.wait()
        self._due.after(self._chance.uniform(0.1, 2.0), self._start_store)
        self._not_before["store errors"] = time.monotonic() + 3
        return True

    def _look_after(self) -> None:
        """Nobody may have ended by himself."""
        now = time.monotonic()
        for deployment in self._deployments.values():
            for text in deployment.faults():
                self.report.fail(f"{text}, {self.report.before(now, BEFORE_S)}")
        for trainer in list(self._trainers.values()):
            if (code := trainer.process.poll()) is not None:
                self.report.fail(f"trainer {trainer.task.name} ended with {code}")
                self._start_trainer(trainer.task)

    # the end

    def end(self) -> None:
        """Stop everybody, and see what is left."""
        self._due.run(everything=True)
        (self._folder / "stop").touch()
        for trainer in self._trainers.values():
            name = trainer.task.name
            try:
                if (code := trainer.process.wait(END_S)) != 0:
                    self.report.fail(f"trainer {name} ended with {code}")
            except subprocess.TimeoutExpired:
                self.report.fail(f"trainer {name} did not end within {END_S:g} s")
                trainer.process.kill()
                trainer.process.wait()
            trainer.listener.join()
        for deployment in self._deployments.values():
            self._try(deployment.await_calm)
        self._stack.close()
        if self._store is not None:
            self._store.kill()
            self._store.wait()
        left = left_behind(self._folder)
        for one in left:
            self.report.fail(f"left behind: {one}")
        if not self.report.is_good():
            self._show_logs()

    def _show_logs(self) -> None:
        for path in sorted(self._folder.glob("*.log")):
            text = path.read_text(errors="replace")[-4000:]
            print(f"---- {path.name}\n{text}", file=sys.stderr)


def _heal(server: Deeds) -> None:
    with suppress(OSError):  # it was killed meanwhile, and the next one is well
        server.do()


def cut_short(photo: Path) -> None:
    """Make a bad sample of a photo: its rows are masked, in every run alike."""
    content = photo.read_bytes()
    photo.write_bytes(content[: len(content) // 2])


def check(seconds: float, seed: int, *, is_short: bool = False) -> Report:
    """Run everything once."""
    with private_folder() as folder, mock.patch.dict(os.environ, AUGD_STORE_PATIENCE="40"):
        one = Checker(folder, seed, is_short=is_short)
        try:
            one.begin()
            one.go_on(seconds)
        finally:
            one.end()
        return one.report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fault.checker")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="one daemon, three trainers")
    options = parser.parse_args()
    # Told to end early, it ends everybody and says what it saw.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"checker: everything is killed for {options.seconds:g} s, seed {options.seed}")
    sys.stdout.flush()
    report = check(options.seconds, options.seed, is_short=options.short)
    print(*report.lines(), sep="\n")
    return 0 if report.is_good() else 1


if __name__ == "__main__":
    sys.exit(main())
