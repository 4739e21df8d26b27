"""A small HTTP server that takes batches as Logfeed does and remembers each body by its key.

It holds senders to the contract: the same Idempotency-Key with another body is counted in `reused` and refused with 422.
What it does with a request is decided by `script`, called with the number of the request (from 1).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import orjson
import zstandard

BODY_BYTES_MAX: Final = 8 * 1024 * 1024


class Deed(Enum):
    """What happens to a request."""

    TAKE = "take"
    UNAVAILABLE = "unavailable"
    TAKE_AND_CUT = "take and cut"
    """Stored, but the connection ends before the answer."""
    HOLD = "hold"
    """Stored; the answer waits for `released`."""


class RecordingServer:
    """Use as a context manager."""

    def __init__(self, script: Callable[[int], Deed] = lambda _number: Deed.TAKE) -> None:
        self.script = script
        self.bodies: dict[str, bytes] = {}
        self.requests = 0
        self.reused = 0
        self.questions: list[list[tuple[str, str]]] = []
        self.pages: list[tuple[int, Any]] = []
        self.reject: Callable[[Any], str | None] = lambda _log: None
        self.lock = threading.Lock()
        self.held, self.released = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> RecordingServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def logs(self) -> list[dict[str, Any]]:
        """Every log stored, once for each key."""
        return [orjson.loads(line) for body in self.bodies.values() for line in body.splitlines()]

    def take(self, key: str, body: bytes) -> tuple[int, Any]:
        """The answer to a batch."""
        if self.bodies.setdefault(key, body) != body:
            self.reused += 1
            return 422, {"title": "The Idempotency-Key was used with another body", "detail": key}
        rejected = []
        logs = [orjson.loads(line) for line in body.splitlines()]
        for index, log in enumerate(logs):
            if (error := self.reject(log)) is not None:
                rejected.append({"index": index, "code": "x", "error": error})
        answer = {"rejected_count": len(rejected), "rejected": rejected[:100]}
        if len(rejected) == len(logs):
            return 422, {"title": "No log of the batch is valid", "detail": "none", **answer}
        return 201, {"accepted": len(logs) - len(rejected), "filtered": {}, **answer}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/api/v1/logs/batch"
                body = zstandard.ZstdDecompressor().decompress(raw, max_output_size=BODY_BYTES_MAX)
                with server.lock:
                    server.requests += 1
                    deed = server.script(server.requests)
                    if deed is Deed.UNAVAILABLE:
                        answer: tuple[int, Any] = (503, {"title": "busy", "detail": "later"})
                    else:
                        answer = server.take(self.headers["Idempotency-Key"], body)
                if deed is Deed.TAKE_AND_CUT:
                    self.close_connection = True
                    return
                if deed is Deed.HOLD:
                    server.held.set()
                    server.released.wait(60)
                self._answer(*answer)

            def do_GET(self) -> None:
                with server.lock:
                    server.questions.append(parse_qsl(urlsplit(self.path).query))
                    answer = server.pages.pop(0)
                self._answer(*answer)

            def _answer(self, status: int, document: Any) -> None:
                body = orjson.dumps(document)
                self.send_response(status)
                if status == 503:
                    self.send_header("Retry-After", "0")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        return Handler
