"""A receiver of webhooks on this machine: keeps what it got, and answers, hangs or refuses as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """Its JSON."""
        return orjson.loads(self.body)


class WebhookServer:
    """Runs in threads of its own."""

    def __init__(self, *, status: int = 204, on_request: Callable[[int], None] | None = None) -> None:
        """status: of answers; may be changed. on_request: called with the number of the request, from 1, before it is
        answered."""
        self.status = status
        self.requests: list[Received] = []
        self.hangs = threading.Event()
        """While set, no answer is given."""
        self._on_request = on_request
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> WebhookServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def documents(self) -> list[Any]:
        """JSON of every request, in order."""
        with self._lock:
            return [each.document for each in self.requests]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with server._lock:
                    server.requests.append(Received(self.path, dict(self.headers), body))
                    number = len(server.requests)
                if server._on_request is not None:
                    server._on_request(number)
                while server.hangs.is_set() and not server._over.wait(0.05):
                    pass
                self.send_response(server.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        return Handler
