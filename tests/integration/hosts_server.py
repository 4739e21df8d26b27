"""A small server that takes heartbeats and logs as Logfeed does, and remembers where hosts are."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import zstandard


class HostsServer:
    """Use as a context manager."""

    def __init__(self) -> None:
        self.hosts: dict[str, dict[str, Any]] = {}
        self.authorizations: set[str | None] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HostsServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                assert self.path.startswith("/api/v1/hosts/")
                name = self.path.rpartition("/")[2]
                server.hosts[name] = orjson.loads(self._body())
                self._answer({"host": name, "heartbeat_s": 1, "server_time": "2026-11-18T11:06:40Z"})

            def do_POST(self) -> None:
                lines = zstandard.ZstdDecompressor().decompress(self._body(), max_output_size=1 << 26).count(b"\n")
                self._answer({"accepted": lines, "filtered": {}})

            def _body(self) -> bytes:
                server.authorizations.add(self.headers["Authorization"])
                return self.rfile.read(int(self.headers["Content-Length"]))

            def _answer(self, document: dict[str, Any]) -> None:
                body = orjson.dumps(document)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        return Handler
