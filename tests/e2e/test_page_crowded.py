"""The page under callers that say nothing, too little or too much: others are answered."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import augd
from tests.fault.processes import await_true
from tests.fault.programs import finish, start_by_hand
from tests.scenes import make_folder

uvicorn = pytest.importorskip("uvicorn", reason="the extra http is not installed")
pytest.importorskip("starlette", reason="the extra http is not installed")

from augd.views.page import callers  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=1, per_class=4)


@pytest.fixture(scope="module")
def place(folder: Path) -> Iterator[tuple[str, int]]:
    with augd.serve(folder, producers=1, http="127.0.0.1:0") as daemon:
        url = urlsplit(daemon.http)
        assert url.hostname is not None and url.port is not None
        at = url.hostname, url.port
        await_true(lambda: get(at, "/readyz")[0] == 200, 20, "the page answers")
        yield at


def get(place: tuple[str, int], path: str, body: bytes | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*place, timeout=20)
    try:
        connection.request("GET", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    except OSError:
        return 0, ""
    finally:
        connection.close()


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nHost: localh"])
def test_connections_that_say_nothing_or_half_keep_nobody_out(
    place: tuple[str, int], said: bytes
) -> None:
    with ExitStack() as open_ones:
        for _ in range(callers.CONNECTIONS_MAX + 40):
            one = open_ones.enter_context(socket.create_connection(place, timeout=20))
            one.sendall(said)
        assert get(place, "/healthz") == (200, "ok\n")
        status, page = get(place, "/")
        assert status == 200 and "<html" in page
        assert get(place, "/status.json")[0] == 200


def test_connections_that_were_kept_make_room_too(place: tuple[str, int]) -> None:
    with ExitStack() as open_ones:
        for _ in range(callers.CONNECTIONS_MAX):
            one = open_ones.enter_context(socket.create_connection(place, timeout=20))
            one.sendall(b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert one.recv(16) == b"HTTP/1.1 200 OK\r"
        assert get(place, "/healthz") == (200, "ok\n")


@pytest.mark.parametrize(
    "path",
    [
        "/streams/{}/batch.json",
        "/batches/{}/0.jpg",
        "/batches/0/{}.jpg",
        "/batches/{}/0.json",
        "/batches/0/{}.json",
        "/samples/set/{}.jpg",
        "/samples/{}/0.jpg",
        "/streams/1/batch.json?first={}&count={}",
    ],
)
@pytest.mark.parametrize("number", ["9" * 18, "9" * 20, "9" * 5000, str(2**63), str(2**64)])
def test_a_number_that_nothing_has_is_not_found(
    place: tuple[str, int], path: str, number: str
) -> None:
    status, text = get(place, path.replace("{}", number))
    assert status in (200, 404), text
    if status == 200:
        assert "problem" in text, "no batch is with a trainer"


# The server alone, with deadlines that are short.


async def _answer(scope: dict, receive: Callable, send: Callable[[dict], Awaitable[None]]) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(callers, "HEADER_S", 0.2)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            _answer,
            http=callers.Caller,
            log_level="critical",
            lifespan="off",
            ws="none",
            timeout_keep_alive=30,
        )
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    yield listener.getsockname()
    server.should_exit = True
    thread.join(20)
    listener.close()


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_header_has_a_deadline_however_it_trickles(hasty: tuple[str, int]) -> None:
    with socket.create_connection(hasty, timeout=20) as one:
        began = time.monotonic()
        with pytest.raises(OSError):
            for piece in [*REQUEST[:-4]] * 1000:
                one.sendall(bytes((piece,)))
                one.settimeout(0.01)
                try:
                    if not one.recv(1):
                        raise ConnectionResetError
                except TimeoutError:
                    continue
        assert time.monotonic() - began >= 0.2


def test_it_holds_for_the_next_request_of_a_connection(hasty: tuple[str, int]) -> None:
    with socket.create_connection(hasty, timeout=20) as one:
        for _ in range(2):
            one.sendall(REQUEST)
            answer = b""
            while not answer.endswith(b"ok"):
                answer += one.recv(4096)
        one.sendall(REQUEST[:9])
        with pytest.raises(ConnectionResetError):
            if not one.recv(1):
                raise ConnectionResetError


def test_a_port_says_who_else_can_get_in(folder: Path, tmp_path: Path) -> None:
    process = start_by_hand(
        folder, "tcp://127.0.0.1:0", "--producers", "1", "--http", "127.0.0.1:0"
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(3)]
    process.terminate()
    finish(process)
    assert "every user of this machine can connect at this port" in said[1]
    assert "--keys DIR shuts it" in said[1]
    assert "every user of this machine can look at that page; --http-token FILE" in said[2]


def test_a_path_has_no_need_to(folder: Path, tmp_path: Path) -> None:
    process = start_by_hand(folder, f"ipc://{tmp_path}/d", "--producers", "1")
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert "every user" not in out
