"""Runs producers on the nodes of a Ray cluster: `--producers ray:N`.

This is a program of its own (`augd.server.supervision.ray_producers`) that the daemon starts, so
the daemon does not load Ray. It makes one actor per producer, spread over the nodes. Each actor
runs `augd produce` and restarts it if it crashes. Ray carries no pixels: producers send rows to the
daemon.

Invariants: when the daemon ends, its pipe to this process closes, and this process ends the actors.
When an actor ends, its `augd produce` notices by a pidfd and drains. So no process outlives its
parent.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import msgspec

from augd.dataset.access import opening_words
from augd.errors import OptionError, install_extra
from augd.process import interpreter
from augd.process.options import to_words
from augd.server.supervision.produce_options import ProduceOptions
from augd.transport.address import Address, TcpAddress

_END_S = 15.0
_LOOK_S = 1.0
_PAUSE_S = 5.0  # between two starts of `augd produce` on a node where it fails
_ANY_HOST = ("0.0.0.0", "[::]", "*")


class RayOptions(msgspec.Struct):
    """The producers to place, with paths that are valid on every node."""

    num_producers: int
    ray_address: str
    paths: dict[str, str]
    keys: str | None = None
    plugins: Sequence[str] = ()
    shard_cache: str | None = None
    daemon: str = ""  # if it listens on all interfaces, its node's address replaces the host


def check_ray(
    addresses: Sequence[Address | TcpAddress], keys: str | None, *, needs_key: bool
) -> None:
    """Reject options that cannot work, before anything is started.

    Raises:
        OptionError: Ray is not installed, nodes could not reach the daemon, or have no key for it.
    """
    if find_spec("ray") is None:
        raise OptionError(f"--producers ray:N needs Ray: {install_extra('ray')}, on every node")
    if not any(isinstance(address, TcpAddress) for address in addresses):
        raise OptionError(
            "--producers ray:N: other nodes need a port, expected --listen tcp://HOST:PORT"
        )
    if needs_key and keys is None:
        raise OptionError(
            "--producers ray:N with --keys: expected --ray-keys FILE, made by `augd keys new NAME "
            "--produce` and copied to this path on every node"
        )


@contextmanager
def running_ray(options: RayOptions, addresses: Sequence[Address | TcpAddress]) -> Iterator[None]:
    """Run the producers while the block runs."""
    port = next(address for address in addresses if isinstance(address, TcpAddress))
    options.daemon = str(port)
    process = interpreter.start(
        *("augd.server.supervision.ray_producers", msgspec.json.encode(options).decode()),
        cwd="/",  # Ray's workers import from the current directory of this process
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the daemon, which ends this process
    )
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(text: str) -> int:
    """Run producers until standard input ends; returns the exit status."""
    ray: Any = import_module("ray")  # types differ between versions, and may be missing
    options = msgspec.json.decode(text, type=RayOptions)
    try:
        ray.init(address=options.ray_address, log_to_driver=True, configure_logging=False)
    except Exception as error:  # of many kinds, none of them Ray's own base
        print(
            f"augd: error: no Ray cluster can be used at {options.ray_address!r}: {error} Start "
            "one with `ray start --head`, or name one by --ray-address; no producer was started",
            file=sys.stderr,
        )
        return 1
    try:
        actor_class = ray.remote(RelayActor).options(
            num_cpus=1, max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD"
        )
        command = _command(options, ray.util.get_node_ip_address())
        actors = [actor_class.remote(command, number) for number in range(options.num_producers)]
        left = [actor.run.remote() for actor in actors]
        while left and not select.select([sys.stdin], [], [], 0.0)[0]:
            _, left = ray.wait(left, timeout=_LOOK_S)
        for actor in actors:
            ray.kill(actor, no_restart=True)
    finally:
        ray.shutdown()
    return 0


def _command(options: RayOptions, here: str) -> list[str]:
    """Return the command for all nodes; this node's address replaces one of all interfaces."""
    host, _, port = options.daemon.removeprefix("tcp://").rpartition(":")
    connect = f"tcp://{here if host in _ANY_HOST else host}:{port}"
    produce = ProduceOptions(
        named=json.dumps(options.paths),
        connect=connect,
        producers=1,
        keys=options.keys,
        plugins=tuple(options.plugins),
        shard_cache=options.shard_cache,
    )
    return ["produce", *to_words(produce), *opening_words()]


class RelayActor:
    """The actor: it runs one `augd produce` and restarts it if it crashes."""

    def __init__(self, command: list[str], number: int) -> None:
        """Start nothing yet; after a restart of the actor Ray calls `run` again."""
        self._command = command
        self._number = number

    def run(self) -> int:
        """Run `augd produce` until the daemon is asked to end; returns the actor's number."""
        while True:
            lifeline = os.pidfd_open(os.getpid())
            try:
                process = interpreter.start(
                    *("augd", *self._command, "--lifeline-fd", str(lifeline)),
                    pass_fds=(lifeline,),
                    start_new_session=True,
                )
            finally:
                os.close(lifeline)
            if process.wait() == 0:
                return self._number
            time.sleep(_PAUSE_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
