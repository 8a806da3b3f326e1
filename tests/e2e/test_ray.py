"""Producers placed by Ray: three nodes on one machine; an actor, a node and the daemon are lost."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import augd
from augd.client.serve_options import ServeOptions
from augd.server.daemon.startup import serve_forever
from tests.support.processes import await_true, children_of, command_of, is_alive
from tests.support.relays import at, remotes
from tests.support.scenes import digest_epoch, make_folder
from tests.support.stores import Bucket, s3, use

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: the extra `ray`"),
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
UP_S = 90.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=150)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """A store whose credentials are in the environment of all nodes."""
    with s3() as found, pytest.MonkeyPatch.context() as patch:
        use(patch, found.endpoint)
        yield found


CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("removed", flush=True)
cluster.shutdown()
"""


class Nodes:
    """A cluster of three nodes of one core each, in a process of its own."""

    def __init__(self) -> None:
        environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None
        self.address = self._next_line()

    def _next_line(self) -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("removed") or ":" in line.split()[0]:
                return line.strip()
        raise AssertionError("the cluster did not start")

    def remove_one(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._next_line() == "removed"

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


@pytest.fixture(scope="module")
def nodes(bucket: Bucket) -> Iterator[Nodes]:
    made = Nodes()
    yield made
    made.close()


def lenders(source: Path | str) -> list[int]:
    """Pids of the actors' `augd produce` of this set, by their command."""
    words = b"\0produce\0small=%s\0" % os.fsencode(source)
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if words in command_of(pid)]


@contextmanager
def served(
    source: Path | str, path: str, nodes: Nodes, *options: str, count: int = 3
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "augd", "serve", f"small={source}", "--listen", path, *options]
    more = ["--listen", "tcp://127.0.0.1:0", "--producers", f"ray:{count}"]
    process = subprocess.Popen(
        [*command, *more, "--ray-address", nodes.address], stdout=subprocess.DEVNULL
    )
    try:
        await_true(lambda: is_up(path, count), UP_S, "all joined")
        yield process
    finally:
        process.kill()
        process.wait()


def is_up(path: str, count: int) -> bool:
    try:
        return [one["state"] for one in remotes(path)].count("ready") >= count
    except augd.AugdError:
        return False


def test_the_stream_is_exact_whatever_is_lost_and_nothing_is_left(
    folder: Path, nodes: Nodes, tmp_path: Path
) -> None:
    with augd.serve({"small": folder}, producers=1) as daemon:
        local = digest_epoch(daemon.address, epochs=3)
    path = f"ipc://{tmp_path}/d"
    with served(folder, path, nodes) as process:
        relays = lenders(folder)
        assert len(relays) == 3

        def kill_actor() -> None:
            actor = int(Path(f"/proc/{relays[0]}/stat").read_text().rpartition(")")[2].split()[1])
            assert b"ray::" in command_of(actor)
            family = [relays[0], *children_of(relays[0])]
            os.kill(actor, signal.SIGKILL)
            await_true(lambda: not any(map(is_alive, family)), 10, "it leaves no process")

        def on_batch(batch: augd.Batch) -> None:
            at(0, 3, kill_actor)(batch)
            at(1, 3, nodes.remove_one)(batch)

        assert digest_epoch(path, epochs=3, on_batch=on_batch, timeout_s=120) == local
        await_true(lambda: is_up(path, 2), UP_S, "Ray started the killed one again")
        process.kill()
        await_true(lambda: not lenders(folder), 30, "the daemon's end is theirs")


def test_nodes_read_a_store_and_keep_what_came(
    folder: Path, nodes: Nodes, bucket: Bucket, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "small.tar", "w") as shard:
        for photo in sorted(folder.rglob("*.jpg")):
            shard.add(photo, f"{photo.parent.name}/{photo.name}")
            label = tarfile.TarInfo(f"{photo.parent.name}/{photo.stem}.cls")
            label.size = len(photo.parent.name)
            shard.addfile(label, io.BytesIO(photo.parent.name.encode()))
    with augd.serve({"small": shards}, producers=1) as daemon:
        local = digest_epoch(daemon.address, epochs=2)
    source, cache, path = (
        bucket.upload(shards, "sets/small"),
        tmp_path / "kept",
        f"ipc://{tmp_path}/d",
    )
    with served(source, path, nodes, "--shard-cache", f"{cache}:1GB", count=2) as process:
        assert len(lenders(source)) == 2
        assert digest_epoch(path, epochs=2, timeout_s=120) == local
        assert [one for one in cache.rglob("*") if one.is_file()], "blocks of shards"
        process.kill()
        await_true(lambda: not lenders(source), 30, "the daemon's end is theirs")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, r"--producers ray:N: other nodes need a port, expected --listen tcp://HOST:PORT"),
        ({"listen": ("tcp://0.0.0.0:0",), "keys": "k"}, r"expected --ray-keys FILE"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(
    folder: Path, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(augd.OptionError, match=text):
        serve_forever(ServeOptions(paths=(str(folder),), producers="ray:2", **options))
