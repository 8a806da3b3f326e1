"""The program: a small HTTP server of ranges, or a proxy before another, that misbehaves when told.

`python tests/support/ranges.py PORT FOLDER [BEHIND]`. POST /__deed__ with a JSON object says how it
behaves from then on, for requests whose path contains `path`: `status` (answer so, with `code` in
the body), `count` (only so often), `delay_s` (wait before the answer), `cut` (close the connection
after so many bytes of the body), `no_etag`, `no_time`, `no_ranges`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, folder: str, behind: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.folder, self.behind = Path(folder), behind
        self.deed: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/__deed__":
            self.server.deed = json.loads(body)
            self.answer(200, b"")
        else:
            self.pass_on(body)

    def do_PUT(self) -> None:
        self.pass_on(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path == "/__asked__":
            with self.server.lock:
                asked, self.server.asked = self.server.asked, []
            self.answer(200, json.dumps(asked).encode())
            return
        with self.server.lock:
            self.server.asked.append(
                {"method": self.command, "path": self.path, "range": self.headers.get("Range")}
            )
            deed = self.server.deed if self.server.deed.get("path", "") in self.path else {}
            if deed.get("count") == 0:
                deed = {}
            elif "count" in deed:
                deed["count"] -= 1
        time.sleep(deed.get("delay_s", 0))
        if "status" in deed:
            code = deed.get("code", "")
            body = f"<Error><Code>{code}</Code><Key>AKIATESTTESTTEST</Key></Error>".encode()
            self.answer(deed["status"], body)
        elif self.server.behind:
            self.pass_on(None, deed)
        else:
            self.serve_file(deed)

    def serve_file(self, deed: dict[str, Any]) -> None:
        path = self.server.folder / self.path.lstrip("/").partition("?")[0]
        if not path.is_file():
            self.answer(404, b"")
            return
        content, headers = path.read_bytes(), {}
        etag = f'"{hashlib.blake2b(content, digest_size=8).hexdigest()}"'
        if not deed.get("no_etag"):
            headers["ETag"] = etag
            if self.headers.get("If-Match", etag) != etag:
                self.answer(412, b"")
                return
        if not deed.get("no_time"):
            headers["Last-Modified"] = formatdate(path.stat().st_mtime, usegmt=True)
        asked = self.headers.get("Range", "")
        if not asked.startswith("bytes=") or deed.get("no_ranges"):
            self.answer(200, content, headers)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(content)) + 1, len(content))
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self.answer(206, content[start:end], headers, deed.get("cut"))

    def pass_on(self, body: bytes | None, deed: dict[str, Any] | None = None) -> None:
        kept = {key: value for key, value in self.headers.items() if key != "Connection"}
        request = urllib.request.Request(
            f"{self.server.behind}{self.path}", body, kept, method=self.command
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, content, headers = answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                status, content, headers = error.code, error.read(), dict(error.headers)
        dropped = ("connection", "transfer-encoding", "server", "date")
        length = headers.get("Content-Length") or headers.get("content-length")
        kept = {k: v for k, v in headers.items() if k.lower() not in (*dropped, "content-length")}
        if self.command == "HEAD" and length is not None:
            kept["Content-Length"] = length
        self.answer(status, content, kept, (deed or {}).get("cut"))

    def answer(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            self.close_connection = True


if __name__ == "__main__":
    Server(int(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "").serve_forever()
