"""The program: an HTTP server of ranges, in place of an object store.

Arguments: folder, and how long each answer waits, in seconds. Prints its port first.
"""

from __future__ import annotations

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of the folder's files, whole or by one range."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Answer without the content."""
        self._answer()

    def do_GET(self) -> None:
        """Answer."""
        self._answer()

    def _answer(self) -> None:
        time.sleep(DELAY_S)
        path = FOLDER / Path(self.path).name
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            first, end = 0, size
            asked = self.headers.get("Range", "").removeprefix("bytes=")
            if asked:
                start, _, last = asked.partition("-")
                first, end = int(start), min(size, int(last or size) + 1)
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
            self.send_header("Content-Length", str(end - first))
            self.send_header("ETag", f'"{size}"')
            self.end_headers()
            self.wfile.flush()
            while first < end and self.command == "GET":
                first += os.sendfile(self.connection.fileno(), file.fileno(), first, end - first)


class Server(ThreadingHTTPServer):
    """As many requests at once as come."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whoever asked has left, as everybody does after a benchmark."""


if __name__ == "__main__":
    FOLDER, DELAY_S = Path(sys.argv[1]), float(sys.argv[2])
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
