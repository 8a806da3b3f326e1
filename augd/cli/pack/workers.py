"""The worker processes of `augd pack`: started, read from, and replaced when an image kills one.

Worker w of n makes those of the shards w, w + n, ... that do not exist yet. It reports each sample
before it reads it. Workers read and write bytes; a separate, sandboxed process decodes and
transcodes. An image keeps its bytes when that process dies of it twice, or two workers do.

Invariants: every wait has a deadline. A worker ends within one sample after the command ends, since
its reports then have no reader.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from augd.cli.pack.shard_writer import ShardOptions, is_done, plan_shards, write_shard
from augd.cli.pack.transcode_process import Packer
from augd.dataset.index_arrays import IndexArrays
from augd.dataset.index_file import IndexFile
from augd.dataset.readers.open_source import open_source
from augd.diagnostics.check_workers import answer, begin_work
from augd.errors import AugdError
from augd.process import interpreter
from augd.process.awake_clock import Awake
from augd.process.child_environment import ENVIRONMENT
from augd.process.exit_status import reap

_SILENCE_S: Final = 300.0  # far more than 64 megapixels take to be packed and compared
_STRIKES: Final = 2


class PackTask(msgspec.Struct):
    """A worker's task: target, options, its share of the shards, and samples that kill."""

    folder: str
    options: ShardOptions
    worker: int
    num_workers: int
    feared: list[int] = []


class _Said(msgspec.Struct, omit_defaults=True):
    """A worker's report: the sample that it reads next, or why it cannot continue."""

    sample: int = -1
    error: str = ""


def pack_all(
    index: IndexFile, folder: str, options: ShardOptions, num_workers: int
) -> Iterator[int]:
    """Write all missing shards; yields each sample before it is read.

    Raises:
        AugdError: a sample is missing or changed, the disk is full, or a worker is silent or failed
            for another reason than a photo.
    """
    strikes: Counter[int] = Counter()
    clock = Awake()
    with selectors.DefaultSelector() as selector:
        workers = [
            _PackWorker(index, PackTask(folder, options, w, num_workers))
            for w in range(num_workers)
        ]
        try:
            for worker in workers:
                selector.register(worker.output, selectors.EVENT_READ, worker)
            while selector.get_map():
                ready = clock.wait(selector.select, _SILENCE_S)
                if not ready:
                    raise AugdError(f"no packer said anything for {_SILENCE_S:g} s: {workers}")
                for key, _ in ready:
                    worker = key.data
                    said = worker.read()
                    yield from said
                    if said:
                        continue
                    selector.unregister(worker.output)
                    if worker.died():
                        strikes[worker.sample] += 1
                        feared = [one for one, count in strikes.items() if count >= _STRIKES]
                        if strikes[worker.sample] > _STRIKES:
                            raise AugdError(f"packers go on dying at sample {worker.sample}")
                        worker.start(feared)
                        selector.register(worker.output, selectors.EVENT_READ, worker)
        finally:
            for worker in workers:
                worker.end()


class _PackWorker:
    """A worker process and its reports so far."""

    def __init__(self, index: IndexFile, task: PackTask) -> None:
        self._index = index
        self._task = task
        self.sample = -1
        self.start([])

    def __repr__(self) -> str:
        return f"packer {self._task.worker} at sample {self.sample}"

    def start(self, feared: list[int]) -> None:
        self._task.feared = feared
        self._rest = b""
        fds = self._index.fd, self._index.dims_fd
        task = msgspec.json.encode(self._task).decode()
        self._process = interpreter.start(
            *("augd.cli.pack.workers", *map(str, fds), task),
            stdout=subprocess.PIPE,
            pass_fds=fds,
            env={**os.environ, **ENVIRONMENT},
        )
        assert self._process.stdout is not None
        self.output = self._process.stdout

    def read(self) -> list[int]:
        """Read the samples of its new reports; none when its output has ended."""
        content = os.read(self.output.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + content).split(b"\n")
        samples = []
        for line in lines:
            said = msgspec.json.decode(line, type=_Said)
            if said.error:
                raise AugdError(said.error)
            samples.append(said.sample)
            self.sample = said.sample
        return samples

    def died(self) -> bool:
        """Return whether a signal ended it."""
        status = self._process.wait(_SILENCE_S)
        self.output.close()
        if status > 0:
            raise AugdError(
                f"{self!r} ended with status {status}; what it said before is the cause"
            )
        return status < 0

    def end(self) -> None:
        self._process.kill()
        reap(self._process)
        self.output.close()


def _work(index_fd: int, dims_fd: int, task: PackTask) -> None:
    index = IndexArrays(index_fd, dims_fd)
    jobs = plan_shards(index, task.options.shard_bytes)
    feared = frozenset(task.feared)
    with open_source(index.root, index) as source, Packer(task.options.shrink) as packer:
        for number in range(task.worker, len(jobs), task.num_workers):
            job = jobs[number]
            if is_done(task.folder, job):
                continue
            arguments = task.folder, number, job, index, source, packer
            for sample in write_shard(*arguments, feared.__contains__):
                answer(_Said(sample))


def main() -> None:
    """Run a worker."""
    begin_work()
    index_fd, dims_fd, task = sys.argv[1:]
    try:
        _work(int(index_fd), int(dims_fd), msgspec.json.decode(task, type=PackTask))
    except AugdError as error:
        answer(_Said(error=str(error)))
    except OSError as error:
        answer(_Said(error=f"cannot be packed: {error}. Run the same command again to go on."))


if __name__ == "__main__":
    main()
