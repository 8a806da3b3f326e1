"""Authenticates requests: by the token if one is set, otherwise by the Host header.

This is an ASGI layer around all routes. Without a token the port is open to this machine only. A
foreign web page whose name was made to resolve to this machine (DNS rebinding) is then rejected by
its Host header. Every rejection says what to do. The token is compared in constant time. It is in
no cookie: the cookie has a digest of it.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from augd.protocol.dashboard_messages import Begin

COOKIE = "augd"
OPEN_PATHS = frozenset(("/healthz", "/readyz", "/login", "/page.css", "/icon.svg"))
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; img-src 'self' blob:; style-src 'self'; script-src 'self'; "
        b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class AuthMiddleware:
    """Passes authenticated requests on, and sets the headers of every response.

    Attributes:
        cookie: the value of the cookie after a login; empty without a token.
    """

    def __init__(self, app: ASGIApp, begin: Begin) -> None:
        self._app = app
        self._token = begin.token.encode()
        self._hosts = begin.hosts
        self.cookie = hmac.digest(self._token, b"augd page", "sha256").hex() if begin.token else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        rejection = self._check(Request(scope))
        await (rejection or self._app)(scope, receive, _with_headers(send))

    def _check(self, request: Request) -> Response | None:
        host = request.headers.get("host", "").lower()
        if self._hosts and host.rpartition(":")[0] not in self._hosts and host not in self._hosts:
            text = (
                f"This page answers to {', '.join(self._hosts)}, not to {host!r}. Open it by one "
                "of those names, or start the daemon with --http-token FILE."
            )
            return PlainTextResponse(text, 421)
        if request.method not in ("GET", "HEAD") and request.url.path != "/login":
            return PlainTextResponse("This page only shows; expected GET.", 405)
        if not self._token or request.url.path in OPEN_PATHS or self._is_known(request):
            return None
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        text = "expected the header 'Authorization: Bearer TOKEN' with the token of --http-token"
        return PlainTextResponse(text, 401, {"WWW-Authenticate": "Bearer"})

    def _is_known(self, request: Request) -> bool:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.is_token(token)
        cookie = request.cookies.get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), self.cookie.encode())

    def is_token(self, text: str) -> bool:
        """Compare with the token in constant time."""
        return bool(self._token) and hmac.compare_digest(text.strip().encode(), self._token)


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return send_more
