"""Where the page may stand, and who may look at it: judged before anything is started."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from augd.client.serve_options import ServeOptions
from augd.errors import AddressInUse, OptionError
from augd.protocol.dashboard_messages import Begin
from augd.server.daemon.http_listener import TOKEN_VARIABLE, open_listener
from augd.server.daemon.startup import serve_forever

TOKEN = "0123456789abcdef"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def test_a_free_port_of_this_machine() -> None:
    opened = open_listener("127.0.0.1:0", None)
    with opened.listener:
        assert opened.url == f"http://127.0.0.1:{opened.listener.getsockname()[1]}"
        assert (opened.token, opened.hosts) == ("", ("127.0.0.1", "localhost", "[::1]"))


def test_with_a_token_any_name_will_do(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_listener("0.0.0.0:0", str(token_file)).listener as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    opened = open_listener("127.0.0.1:0", None)
    opened.listener.close()
    assert (opened.token, opened.hosts) == (TOKEN, ())
    assert TOKEN_VARIABLE not in os.environ, "producers don't inherit it"


@pytest.mark.parametrize("text", ["8600", "localhost", ":8600", "127.0.0.1:", "h:x", "h:70000"])
def test_no_address(text: str) -> None:
    with pytest.raises(OptionError, match=r"--http: expected HOST:PORT, as 127\.0\.0\.1:8600, got"):
        open_listener(text, None)


def test_strangers_need_a_token() -> None:
    with pytest.raises(OptionError, match=r"could see the images; use 127\.0\.0\.1:8600 .*set a t"):
        open_listener("0.0.0.0:8600", None)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressInUse, match=f"--http {where}: cannot listen there .*choose an"):
            open_listener(where, None)


def test_a_token_that_can_be_guessed_or_read(token_file: Path) -> None:
    token_file.write_text("short")
    with pytest.raises(OptionError, match=r"token of 16\.\.256 ASCII characters .* got one of 5"):
        open_listener("127.0.0.1:0", str(token_file))
    token_file.chmod(0o644)
    with pytest.raises(OptionError, match="has mode 0644, so that others can read the secret"):
        open_listener("127.0.0.1:0", str(token_file))


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--http-token: expected --http HOST:PORT with it"):
        serve_forever(ServeOptions(paths=(str(tmp_path),), http_token="token"))
    with pytest.raises(OptionError, match="--log-format: expected text or json, got 'xml'"):
        serve_forever(ServeOptions(paths=(str(tmp_path),), log_format="xml"))


# who may look


@pytest.fixture
def guard() -> Any:
    pytest.importorskip("starlette", reason="the extra http is not installed")
    from augd.server.dashboard.auth import AuthMiddleware

    return AuthMiddleware


def answer(guard: Any, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, str]:
    """Call the guard as a server would; returns the status and the text of its answer."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    named = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": named, "query_string": b""}
    asyncio.run(guard(scope, None, send))
    assert (b"x-content-type-options", b"nosniff") in sent[0]["headers"]
    return sent[0]["status"], sent[1]["body"].decode()


async def let_in(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


@pytest.mark.parametrize("host", ["127.0.0.1:8600", "localhost:9000", "localhost", "[::1]:8600"])
def test_without_a_token_this_machine_looks_by_its_own_names(guard: Any, host: str) -> None:
    local = guard(let_in, Begin("", ("127.0.0.1", "localhost", "[::1]"), ()))
    assert answer(local, host=host) == (200, "in")


def test_a_name_that_was_made_to_mean_this_machine_is_refused(guard: Any) -> None:
    local = guard(let_in, Begin("", ("127.0.0.1", "localhost", "[::1]"), ()))
    status, text = answer(local, host="evil.example:8600")
    assert status == 421
    assert "answers to 127.0.0.1, localhost, [::1], not to 'evil.example:8600'" in text


def test_nothing_is_changed_from_outside(guard: Any) -> None:
    local = guard(let_in, Begin("", ("localhost",), ()))
    assert answer(local, method="POST", host="localhost") == (
        405,
        "This page only shows; expected GET.",
    )


def test_with_a_token_only_who_knows_it_looks(guard: Any) -> None:
    closed = guard(let_in, Begin(TOKEN, (), ()))
    wrong = answer(closed, authorization=f"Bearer {TOKEN[:-1]}x")
    assert wrong == (401, "expected the header 'Authorization: Bearer TOKEN' with the token of "
                     "--http-token")  # fmt: skip
    assert answer(closed, cookie=f"augd={TOKEN}")[0] == 401, "the cookie is no token"
    assert answer(closed, accept="text/html")[0] == 303
    assert answer(closed, authorization=f"Bearer {TOKEN}") == (200, "in")
    assert answer(closed, cookie=f"augd={closed.cookie}") == (200, "in")
    assert answer(closed, "/healthz") == (200, "in")
