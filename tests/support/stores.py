"""Object stores on loopback: moto's S3 and a server of ranges, as processes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

START_S = 30.0
BUCKET = "photos"
# moto checks no signature, but whether there is one: the public may not change what somebody put.
ANYBODY = (
    "AWS4-HMAC-SHA256 Credential=AKIATESTTESTTEST/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=00"
)


def await_port(port: int, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, f"no server at port {port} within {START_S:g} s"
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_port(port, process)
        yield
    finally:
        process.kill()
        process.wait()


def ask(url: str, method: str = "GET", body: bytes | None = None) -> bytes:
    # By urllib's own type of content moto would take the body for a form.
    headers = {"Content-Type": "application/octet-stream", "Authorization": ANYBODY}
    request = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: bytes = answer.read()
        return found


class Bucket:
    """A bucket of an S3 server, filled and changed without augd; moto checks no signatures."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def upload(self, folder: Path, prefix: str) -> str:
        """Copy a folder's files; returns the address of the copy."""
        for path in sorted(folder.iterdir()):
            self.put(f"{prefix}/{path.name}", path.read_bytes())
        return f"s3://{BUCKET}/{prefix}"

    def put(self, key: str, content: bytes) -> None:
        ask(f"{self.endpoint}/{BUCKET}/{key}", "PUT", content)

    def remove(self, key: str) -> None:
        ask(f"{self.endpoint}/{BUCKET}/{key}", "DELETE")

    def get(self, key: str) -> bytes:
        return ask(f"{self.endpoint}/{BUCKET}/{key}")


@contextmanager
def s3() -> Iterator[Bucket]:
    """Run moto's server with an empty bucket."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    port = free_port()
    with running([sys.executable, "-m", "moto.server", "-p", str(port)], port):
        bucket = Bucket(f"http://127.0.0.1:{port}")
        ask(f"{bucket.endpoint}/{BUCKET}", "PUT")
        yield bucket


def use(patch: pytest.MonkeyPatch, endpoint: str, *, patience_s: float = 20.0) -> None:
    """Have daemons that are started from now on read this store."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            patch.delenv(name)
    patch.setenv("AWS_ENDPOINT_URL", endpoint)
    patch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTEST")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "tests-own-secret")
    patch.setenv("AWS_REGION", "us-east-1")
    patch.setenv("AUGD_STORE_PATIENCE", str(patience_s))


class Deeds:
    """A server of ranges in front of a folder or of another server, told what to do meanwhile."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def do(self, **deed: Any) -> None:
        """Have it behave so from now on; see `ranges.py`."""
        ask(f"{self.url}/__deed__", "POST", json.dumps(deed).encode())

    def asked(self) -> list[dict[str, Any]]:
        """Return what was asked since this was last called: method, path, range."""
        found: list[dict[str, Any]] = json.loads(ask(f"{self.url}/__asked__"))
        return found


@contextmanager
def ranges(folder: Path | None = None, behind: str = "") -> Iterator[Deeds]:
    """Serve a folder by ranges, or stand before another server."""
    port = free_port()
    program = str(Path(__file__).with_name("ranges.py"))
    with running([sys.executable, program, str(port), str(folder or "-"), behind], port):
        yield Deeds(port)
