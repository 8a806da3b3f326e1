"""The routes of the dashboard, and the server that answers them.

Answers are made from the latest report. Images are copied and encoded on request only, so an open
page costs two small messages a second.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import resources
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from augd.server.dashboard import metrics
from augd.server.dashboard.auth import COOKIE, AuthMiddleware
from augd.server.dashboard.batch_images import ROWS_MAX, BatchImages
from augd.server.dashboard.daemon_link import DaemonGone, DaemonLink
from augd.server.dashboard.history import History
from augd.server.dashboard.sample_viewer import SampleViewer, ViewRequest

_WATCHERS_MAX = 32
_CONNECTIONS_MAX = 128
_LOGIN_BYTES_MAX = 4096
_ROWS = 24
_RETRY_MS = 1000  # browsers wait for three seconds by themselves; a daemon is back in one
_STATIC = {
    "index.html": "text/html",
    "login.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


class DashboardApp:
    """The routes and what they share. `auth` is the ASGI application."""

    def __init__(self, daemon_link: DaemonLink, plugins: Sequence[str]) -> None:
        self._daemon_link = daemon_link
        self._history = History(daemon_link)
        self._images = BatchImages(daemon_link)
        self._viewer = SampleViewer(daemon_link.datasets, plugins)
        self._files = {name: _read_static(name) for name in _STATIC}
        routes = {
            "/": self.index,
            **{f"/{name}": self.static for name in ("page.css", "page.js", "icon.svg")},
            "/events": self.events,
            "/status.json": self.status,
            "/streams/{stream:int}/batch.json": self.batch,
            "/batches/{key:int}/{row:int}.jpg": self.row_image,
            "/batches/{key:int}/{row:int}.json": self.row_params,
            "/samples/{dataset}/{sample:int}.jpg": self.sample_image,
            "/metrics": self.metrics,
            "/healthz": self.healthy,
            "/readyz": self.ready,
        }
        app = Starlette(
            routes=[
                *(Route(path, answer) for path, answer in routes.items()),
                Route("/login", self.login, methods=["GET", "POST"]),
            ],
            exception_handlers={DaemonGone: _gone},
        )
        self.auth = AuthMiddleware(app, daemon_link.begin)

    async def watch(self) -> None:
        """Request snapshots until the daemon ends."""
        await self._history.run()

    def close(self) -> None:
        """End the process that decodes files."""
        self._viewer.close()

    # pages

    async def index(self, _: Request) -> Response:
        return HTMLResponse(self._files["index.html"])

    async def static(self, request: Request) -> Response:
        name = request.url.path.removeprefix("/")
        return Response(self._files[name], media_type=_STATIC[name])

    async def login(self, request: Request) -> Response:
        """Check the token of the form, and set a cookie."""
        page = self._files["login.html"]
        if request.method == "GET":
            return HTMLResponse(page.replace("{problem}", ""))
        length = request.headers.get("content-length", "")
        if not length.isdigit() or len(length) > 4 or int(length) > _LOGIN_BYTES_MAX:
            return PlainTextResponse("expected a token", 413)
        # starlette needs one more library to read forms.
        form = parse_qs((await request.body()).decode("ascii", "replace"))
        if not self.auth.is_token(form.get("token", [""])[0]):
            problem = "That is not the token. It is in the file given with --http-token."
            return HTMLResponse(page.replace("{problem}", problem), 403)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, self.auth.cookie, httponly=True, samesite="strict")
        return answer

    # reports

    async def events(self, _: Request) -> Response:
        """Send the latest report, and each new one."""
        if self._history.num_watchers >= _WATCHERS_MAX:
            return PlainTextResponse(f"{_WATCHERS_MAX} pages are open already; close one", 503)

        async def lines() -> AsyncIterator[str]:
            yield f"retry: {_RETRY_MS}\n\n"
            async for report in self._history.reports():
                yield f"data: {json.dumps(report, separators=(',', ':'))}\n\n"
            yield f"event: end\ndata: {json.dumps({'why': self._history.why_ended})}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def status(self, _: Request) -> Response:
        return JSONResponse(await self._history.fresh())

    async def metrics(self, _: Request) -> Response:
        snapshot = await asyncio.to_thread(self._daemon_link.snapshot)
        return Response(metrics.render(snapshot), media_type=metrics.CONTENT_TYPE)

    async def healthy(self, _: Request) -> Response:
        """Answer 200 if the daemon answers; if it does not, restart it."""
        await asyncio.to_thread(self._daemon_link.snapshot)
        return PlainTextResponse("ok\n")

    async def ready(self, _: Request) -> Response:
        """Answer 200 if a client that connects now would be served."""
        snapshot = (await asyncio.to_thread(self._daemon_link.snapshot)).snapshot
        why = _why_not_ready(snapshot)
        return PlainTextResponse(f"{why or 'ok'}\n", 503 if why else 200)

    # images

    async def batch(self, request: Request) -> Response:
        """Copy rows of a client's current batch, and describe them."""
        first = _number(request, "first", 0)
        count = min(_number(request, "count", _ROWS), ROWS_MAX)
        stream = request.path_params["stream"]
        taken = await asyncio.to_thread(self._images.take, stream, first, count)
        if taken is None:
            text = "no batch is with a trainer at this moment; try again while it trains"
            return JSONResponse({"problem": text})
        return JSONResponse(self._images.describe(*taken))

    async def row_image(self, request: Request) -> Response:
        copied = self._images.kept(request.path_params["key"])
        at = request.path_params["row"] - (copied.first if copied else 0)
        if copied is None or not 0 <= at < len(copied.ids):
            text = "that batch is no longer kept; look at the current one"
            return PlainTextResponse(text, 404)
        made = await asyncio.to_thread(copied.image, at)
        return Response(made, media_type="image/jpeg")

    async def row_params(self, request: Request) -> Response:
        """Describe the parameters that were drawn for a row."""
        copied = self._images.kept(request.path_params["key"])
        at = request.path_params["row"] - (copied.first if copied else 0)
        if copied is None or not 0 <= at < len(copied.ids):
            return JSONResponse({"problem": "that batch is no longer kept"}, 404)
        seen, sample = copied.seen, int(copied.ids[at])
        if sample < 0 or seen.is_balanced:
            which = "padding" if sample < 0 else "balanced streams draw by position, not by sample"
            return JSONResponse({"problem": f"no parameters: {which}"})
        asked = ViewRequest(seen.dataset, sample, seen.epoch, seen.recipe, seen.seed)
        answer = await asyncio.to_thread(self._viewer.ask, asked)
        return JSONResponse({"words": answer.words, "problem": answer.why})

    async def sample_image(self, request: Request) -> Response:
        """Show the file of a bad or quarantined sample, or the reason why it cannot be shown."""
        dataset, sample = request.path_params["dataset"], request.path_params["sample"]
        snapshot = (await asyncio.to_thread(self._daemon_link.snapshot)).snapshot
        if sample not in _blamed(snapshot, dataset):
            return PlainTextResponse("expected a sample that is bad or quarantined", 404)
        answer = await asyncio.to_thread(self._viewer.ask, ViewRequest(dataset, sample))
        if answer.why:
            return PlainTextResponse(answer.why)
        return Response(answer.jpeg, media_type="image/jpeg")


def _read_static(name: str) -> str:
    return resources.files("augd.server.dashboard").joinpath("static", name).read_text("utf-8")


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default


def _why_not_ready(snapshot: Mapping[str, Any]) -> str:
    if snapshot["is_draining"]:
        return "the daemon is draining"
    if snapshot["unhealthy"]:
        return f"producers keep dying: {snapshot['unhealthy']}"
    if not any(one["state"] == "ready" for one in snapshot["producers"]):
        return "no producer is ready yet"
    return ""


def _blamed(snapshot: Mapping[str, Any], dataset: str) -> set[int]:
    """Return the samples of a dataset that the snapshot names as bad or quarantined."""
    named = set(snapshot["datasets"].get(dataset, {}).get("quarantined", ()))
    for stream in snapshot["streams"]:
        if stream["dataset"] == dataset:
            named |= {sample for sample, _, _ in stream["last_bad"]}
            named |= {sample for sample, *_ in stream["quarantined"]}
    return named


async def _gone(_: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", 503)


def run(daemon_link: DaemonLink, listener: socket.socket, plugins: Sequence[str]) -> None:
    """Serve until the daemon ends."""
    dashboard = DashboardApp(daemon_link, plugins)
    config = uvicorn.Config(
        dashboard.auth,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        limit_concurrency=_CONNECTIONS_MAX,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=1,
        ws="none",
    )
    server = uvicorn.Server(config)

    async def serve() -> None:
        async def until_the_end() -> None:
            try:
                await dashboard.watch()
            finally:
                server.should_exit = True

        watching = asyncio.create_task(until_the_end())
        await server.serve(sockets=[listener])
        watching.cancel()

    try:
        asyncio.run(serve())
    finally:
        dashboard.close()
