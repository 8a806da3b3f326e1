"""Something is killed, stopped or cut every second, and no byte differs: `make soak`.

    python -m tests.fault.soak --seconds 600

A daemon with two producers, and trainers of every kind: by mapped memory, by frames through a
network that breaks, two on one production, a slow one, and one that is killed and goes on from its
checkpoint. Each compares every batch with the undisturbed run, by place and by bytes, and each
epoch's receipt. Afterwards nothing may be left: processes, sockets, files, descriptors.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import augd
from augd.client.status import status as ask_status
from tests.support.processes import await_true, daemon_of, num_fds
from tests.support.programs import free_port
from tests.support.proxy import Proxy
from tests.support.scenes import SMALL, make_folder

ROOT = Path(__file__).resolve().parents[2]
BATCH_SIZE = 16
EPOCHS = 4
PATIENCE_S = 3
TIMEOUT_S = 40.0
EVERY_S = 1.0


@dataclass(frozen=True)
class Spec:
    """What a trainer does. It writes a byte per batch: `.` if it is right, `x` if it isn't."""

    name: str
    address: str
    table: str  # file of the undisturbed run
    stop: str  # file that tells everybody to end
    step_s: float = 0.05
    shared: int = 0
    state: str = ""  # file of its checkpoint


# the undisturbed run


def digest_of(batch: augd.Batch) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in (batch.images, batch.labels, batch.ids, batch.valid):
        digest.update(array.tobytes())
    return digest.hexdigest()


def read_table(address: str) -> dict[str, object]:
    """Digest every batch, by its place, and keep the receipts."""
    batches, receipts = {}, []
    with augd.connect(address, recipe=SMALL, batch_size=BATCH_SIZE) as stream:
        for epoch in range(EPOCHS):
            for batch in stream.epoch(epoch):
                batches[f"{batch.epoch} {batch.position}"] = digest_of(batch)
            receipts.append(stream.receipt(epoch))
    return {"batches": batches, "receipts": receipts}


# a trainer


class Trainer:
    """Reads all epochs again and again, on a new stream each time, until told to stop."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        table = json.loads(Path(spec.table).read_text())
        self._batches: dict[str, str] = table["batches"]
        self._receipts: list[dict[str, object]] = table["receipts"]

    def run(self) -> None:
        while not self._is_told_to_stop():
            with self._connect() as stream:
                self._read(stream)
                os.write(1, b"r" * int(stream.stats()["lost"]))

    def _is_told_to_stop(self) -> bool:
        return Path(self._spec.stop).exists()

    def _connect(self) -> augd.Stream:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                return augd.connect(
                    self._spec.address,
                    recipe=SMALL,
                    batch_size=BATCH_SIZE,
                    shared=self._spec.shared or False,
                    timeout_s=TIMEOUT_S,
                )
            except augd.ConnectError:  # a daemon that is being started
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _read(self, stream: augd.Stream) -> None:
        epoch, position = 0, 0
        if self._spec.state and Path(self._spec.state).exists():
            state = json.loads(Path(self._spec.state).read_text())
            stream.load_state_dict(state)
            epoch, position = state["epoch"], state["position"]
        while epoch < EPOCHS:
            if not self._read_epoch(stream, epoch, position):
                return
            epoch, position = epoch + 1, 0
        if self._spec.state:
            Path(self._spec.state).unlink(missing_ok=True)

    def _read_epoch(self, stream: augd.Stream, epoch: int, position: int) -> bool:
        for batch in stream.epoch(epoch):
            is_right = (batch.epoch, batch.position) == (epoch, position)
            is_right &= self._batches[f"{epoch} {position}"] == digest_of(batch)
            os.write(1, b"." if is_right else b"x")
            position += BATCH_SIZE
            if self._spec.state and batch.number % 3 == 0:
                self._save(stream)
            if self._is_told_to_stop():
                return False
            time.sleep(self._spec.step_s)
        is_whole = f"{epoch} {position}" not in self._batches
        if not is_whole or stream.receipt(epoch) != self._receipts[epoch]:
            os.write(1, b"x")
        return True

    def _save(self, stream: augd.Stream) -> None:
        beside = Path(self._spec.state + ".new")
        beside.write_text(json.dumps(stream.state_dict()))
        beside.replace(self._spec.state)


# the one who kills


@dataclass
class Running:
    """A trainer's process, and the thread that counts what it writes."""

    spec: Spec
    process: subprocess.Popen[bytes]
    counter: threading.Thread
    is_killed: bool = False


@dataclass
class Report:
    """What was seen."""

    said: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def is_good(self) -> bool:
        return not (self.said["x"] or self.left or self.failures) and self.said["."] > 0

    def lines(self) -> Iterator[str]:
        yield f"batches delivered       {self.said['.'] + self.said['x']:>9,}"
        yield f"faults survived         {sum(self.faults.values()):>9,}"
        for kind, count in sorted(self.faults.items()):
            yield f"    {kind:<20}{count:>9,}"
        yield f"connections made again  {self.said['r']:>9,}"
        yield f"batches differing       {self.said['x']:>9,}"
        yield f"things left behind      {len(self.left):>9,}"
        yield from (f"    {one}" for one in self.left)
        yield from (f"FAILED: {one}" for one in self.failures)


class Soak:
    """A daemon, its trainers, and their misfortunes."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._chance = random.Random(seed)
        self._port = free_port()
        self._path = f"ipc://{folder}/run/d"
        self._log = (folder / "log").open("ab")
        self.report = Report()
        self._photos = make_folder(folder / "set", num_classes=3, per_class=100)
        self._daemon = self._start_daemon()
        self._proxy: Proxy | None = None
        self._trainers: dict[str, Running] = {}
        self._not_before: dict[str, float] = {}

    # processes

    def _start_daemon(self) -> subprocess.Popen[str]:
        listen = ("--listen", self._path, "--listen", f"tcp://127.0.0.1:{self._port}")
        options = ("--producers", "2", "--patience", str(PATIENCE_S))
        daemon = subprocess.Popen(
            [sys.executable, "-m", "augd", "serve", str(self._photos), *listen, *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert daemon.stdout is not None
        assert "serving" in daemon.stdout.readline(), (self._folder / "log").read_text()
        return daemon

    def _start_trainer(self, spec: Spec) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fault.soak", "--train", json.dumps(asdict(spec))],
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
        )
        counter = threading.Thread(target=self._count, args=(process,))
        counter.start()
        self._trainers[spec.name] = Running(spec, process, counter)

    def _count(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as said:
            while piece := said.read1(4096):
                self.report.said.update(piece.decode())

    def _reap(self, running: Running) -> None:
        status = running.process.wait(TIMEOUT_S)
        running.counter.join()
        if status != (-signal.SIGKILL if running.is_killed else 0):
            self.report.failures.append(f"trainer {running.spec.name} ended with {status}")

    def begin(self) -> None:
        """Read the undisturbed run, and start everybody."""
        table, stop = self._folder / "table", str(self._folder / "stop")
        table.write_text(json.dumps(read_table(self._path)))
        read_table(f"tcp://127.0.0.1:{self._port}")  # with the first frames ZeroMQ starts threads
        self._await_idle()
        self._num_fds = num_fds(daemon_of(self._daemon.pid))
        self._proxy = Proxy(self._port, daemon_of(self._daemon.pid))
        state = str(self._folder / "checkpoint")
        for spec in (
            Spec("mapped", self._path, str(table), stop),
            Spec("framed", self._proxy.address, str(table), stop),
            Spec("first sharer", self._path, str(table), stop, shared=2),
            Spec("second sharer", self._path, str(table), stop, shared=2),
            Spec("slow", self._path, str(table), stop, step_s=0.5),
            Spec("checkpointing", self._path, str(table), stop, state=state),
        ):
            self._start_trainer(spec)

    def _await_idle(self) -> None:
        def is_idle() -> bool:
            said = ask_status(self._path, 20)
            return not said["streams"] and all(p["state"] == "ready" for p in said["producers"])

        await_true(is_idle, 30, "no stream is left, and the producers are ready")

    # faults

    def go_on(self, seconds: float) -> None:
        """Do something bad every second."""
        ends_at = time.monotonic() + seconds
        next_at = time.monotonic()
        while time.monotonic() < ends_at and not self.report.failures:
            next_at = max(next_at + EVERY_S, time.monotonic())
            time.sleep(max(0.0, next_at - time.monotonic()))
            kind, deed, pause_s = self._choose()
            if deed():
                self.report.faults[kind] += 1
                self._not_before[kind] = time.monotonic() + pause_s
            self._look_after()

    def _choose(self) -> tuple[str, Callable[[], bool], float]:
        assert self._proxy is not None
        proxy, chance = self._proxy, self._chance
        now = time.monotonic()
        # A second SIGSEGV on the sample that the first one hit would condemn it: as it should.
        kinds: list[tuple[str, Callable[[], bool], float]] = [
            ("producer SIGKILL", lambda: self._signal_producer(signal.SIGKILL), 0),
            ("producer SIGSEGV", lambda: self._signal_producer(signal.SIGSEGV), 6),
            ("producer SIGSTOP", lambda: self._signal_producer(signal.SIGSTOP), 2 * PATIENCE_S),
            ("trainer SIGKILL", lambda: self._kill_trainer("checkpointing"), 0),
            ("trainer SIGKILL", lambda: self._kill_trainer("mapped"), 3),
            ("trainer SIGSTOP", self._stop_trainer, 5),
            ("daemon SIGKILL", lambda: self._end_daemon(signal.SIGKILL), 8),
            ("daemon SIGTERM", lambda: self._end_daemon(signal.SIGTERM), 20),
            ("TCP reset", lambda: _done(proxy.reset(chance.choice(("control", "bulk")))), 0),
            ("TCP reset", lambda: _done(proxy.cut("bulk", chance.randrange(1, 150_000))), 0),
            ("TCP reset", lambda: _done(proxy.cut("control", chance.randrange(1, 900))), 0),
            ("TCP partition", self._part, 5),
        ]
        return chance.choice([one for one in kinds if self._not_before.get(one[0], 0.0) <= now])

    def _signal_producer(self, number: int) -> bool:
        """Pick one that finished something: four deaths in a row without are another matter."""
        producers = ask_status(self._path, 20)["producers"]
        victims = [one["pid"] for one in producers if one["state"] == "ready" and one["chunks"]]
        if victims:
            os.kill(self._chance.choice(victims), number)
        return bool(victims)

    def _kill_trainer(self, name: str) -> bool:
        running = self._trainers[name]
        running.is_killed = running.process.poll() is None
        running.process.kill()
        self._reap(running)
        self._start_trainer(running.spec)
        return True

    def _stop_trainer(self) -> bool:
        process = self._trainers["slow"].process
        process.send_signal(signal.SIGSTOP)
        threading.Timer(3.0, process.send_signal, (signal.SIGCONT,)).start()
        return True

    def _part(self) -> bool:
        assert self._proxy is not None
        self._proxy.freeze("up", "down")
        threading.Timer(2.0, self._proxy.heal).start()
        return True

    def _end_daemon(self, number: int) -> bool:
        assert self._proxy is not None
        self._daemon.send_signal(number)
        status = self._daemon.wait(20)
        if status != (-number if number == signal.SIGKILL else 0):
            self.report.failures.append(f"the daemon ended with {status}")
        self._close_daemon()
        self._daemon = self._start_daemon()
        self._proxy.lead_to(daemon_of(self._daemon.pid))
        return True

    def _close_daemon(self) -> None:
        assert self._daemon.stdout is not None
        self._daemon.stdout.close()

    def _look_after(self) -> None:
        """Nobody may have ended by himself."""
        for running in self._trainers.values():
            if running.process.poll() is not None:
                text = f"trainer {running.spec.name} ended with {running.process.returncode}"
                self.report.failures.append(text)
        if self._daemon.poll() is not None:
            self.report.failures.append(f"the daemon ended with {self._daemon.returncode}")

    # the end

    def end(self) -> None:
        """Stop everybody and see what is left."""
        assert self._proxy is not None
        (self._folder / "stop").touch()
        for running in self._trainers.values():
            try:
                self._reap(running)
            except subprocess.TimeoutExpired:
                self.report.failures.append(f"trainer {running.spec.name} did not end")
                running.process.kill()
        self._proxy.close()
        for timer in [one for one in threading.enumerate() if isinstance(one, threading.Timer)]:
            timer.join()
        if self._daemon.poll() is None:
            self._await_idle()
            self._look_for_descriptors()
            self._daemon.terminate()
            if self._daemon.wait(20) != 0:
                self.report.failures.append(f"the daemon ended with {self._daemon.returncode}")
        self._close_daemon()
        self._log.close()
        self.report.left += left_behind(self._folder)
        if not self.report.is_good():
            print((self._folder / "log").read_text()[-6000:], file=sys.stderr)

    def _look_for_descriptors(self) -> None:
        """ZeroMQ's own threads close a connection a little after it ended."""
        deadline = time.monotonic() + 10
        while (grown := num_fds(daemon_of(self._daemon.pid)) - self._num_fds) > 0:
            if time.monotonic() > deadline:
                self.report.left.append(f"{grown} descriptors of the daemon")
                return
            time.sleep(0.1)


def _done(_: None) -> bool:
    return True


def left_behind(folder: Path) -> list[str]:
    """Name the processes that were started for this folder, and the files of daemons."""
    left = [str(path) for path in (folder / "run").iterdir()]
    left += [str(path) for path in (folder / "state").rglob("*") if path.is_file()]
    left += [str(path) for path in Path("/dev/shm").glob("*augd*")]
    mark = f"AUGD_RUNTIME_DIR={folder}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = mark in (entry / "environ").read_bytes() and int(entry.name) != os.getpid()
        except OSError:
            continue
        if is_ours:
            left.append(f"process {entry.name}")
    return left


@contextmanager
def private_folder() -> Iterator[Path]:
    """Keep daemons, indexes and quarantines of this run to themselves."""
    folder = Path(tempfile.mkdtemp(prefix="augd-soak-", dir="/tmp"))
    names = {"AUGD_RUNTIME_DIR": "run", "XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state"}
    before = {name: os.environ.get(name) for name in names}
    try:
        for name, part in names.items():
            (folder / part).mkdir(mode=0o700)
            os.environ[name] = str(folder / part)
        yield folder
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(folder)


def soak(seconds: float, seed: int) -> Report:
    """Run everything once."""
    with private_folder() as folder:
        one = Soak(folder, seed)
        one.begin()
        try:
            one.go_on(seconds)
        finally:
            one.end()
        return one.report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fault.soak")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        Trainer(Spec(**json.loads(options.train))).run()
        return 0
    print(f"soak: something is killed every second for {options.seconds:g} s, seed {options.seed}")
    sys.stdout.flush()
    report = soak(options.seconds, options.seed)
    print(*report.lines(), sep="\n")
    return 0 if report.is_good() else 1


if __name__ == "__main__":
    sys.exit(main())
