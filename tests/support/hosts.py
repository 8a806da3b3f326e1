"""Hosts on one machine: network namespaces joined by cables (veth), made and gone with a process.

A namespace lives as long as the process that holds it, and nothing of it has a name elsewhere. The
hub's cables lead to all others, as a switch would; these reach nobody else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest


class Host:
    """A host by the process that holds its namespace; `address` is the hub's on its cable."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        command = ["unshare", "--net", "sh", "-c", "echo up; exec sleep 600"]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "up\n"
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        return self._holder.pid

    @property
    def inside(self) -> tuple[str, ...]:
        """What to put before a command that is to run on this host."""
        return ("nsenter", "-t", str(self.pid), "--net")

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [*self.inside, *command], capture_output=True, text=True, check=False, timeout=20
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def unplug(self) -> None:
        """Pull the cable: nothing gets through, and nobody is told."""
        self.run("ip", "link", "set", "up0", "down")

    def plug(self) -> None:
        self.run("ip", "link", "set", "up0", "up")

    def slow_down(self, rate: str, cable: str = "up0") -> None:
        """Have what this host sends take its time; what waits for longer than 2 s is dropped."""
        qdisc = ("tc", "qdisc", "add", "dev", cable, "root", "tbf")
        self.run(*qdisc, "rate", rate, "burst", "16kb", "latency", "2s")

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()


@contextmanager
def hosts(*names: str) -> Iterator[list[Host]]:
    """Make a hub and so many others, each on a cable of its own: 10.77.N.1 at the hub, .2 there."""
    _require_namespaces()
    with ExitStack() as stack:
        hub = Host("hub", "10.77.0.1")
        stack.callback(hub.close)
        made = [hub]
        for number, name in enumerate(names, 1):
            host = Host(name, f"10.77.{number}.1")
            stack.callback(host.close)
            cable = ("ip", "link", "add", f"to{number}", "type", "veth", "peer", "name", "up0")
            hub.run(*cable, "netns", str(host.pid))
            hub.run("ip", "address", "add", f"10.77.{number}.1/24", "dev", f"to{number}")
            hub.run("ip", "link", "set", f"to{number}", "up")
            host.run("ip", "address", "add", f"10.77.{number}.2/24", "dev", "up0")
            host.run("ip", "link", "set", "up0", "up")
            made.append(host)
        yield made


def _require_namespaces() -> None:
    for tool in ("unshare", "nsenter", "ip", "tc"):
        if shutil.which(tool) is None:
            pytest.skip(f"hosts as network namespaces need {tool} (iproute2, util-linux)")
    tried = ["unshare", "--net", "ip", "link", "add", "up0", "type", "veth"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        who = "root" if os.getuid() == 0 else f"user {os.getuid()}"
        pytest.skip(f"{who} may not make network namespaces here: {done.stderr.strip()}")
