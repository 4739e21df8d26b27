"""A server that answers batches as it is told, over real connections: what proxies, outages and limits say."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import zstandard


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    key: str
    authorization: str | None
    encoding: str
    lines: list[dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What is said to a request."""

    status: int = 201
    body: bytes | None = None
    """None: the answer of a server that has taken everything."""
    headers: dict[str, str] = field(default_factory=dict)


Script = Callable[[Request], Answer]


def problem(status: int, slug: str, **members: Any) -> Answer:
    """As Logfeed writes them."""
    document = {"type": f"urn:logfeed:problem:{slug}", "title": slug, "status": status, "detail": "why", **members}
    return Answer(status, json.dumps(document).encode())


class ScriptedServer:
    """Remembers what came; `stored` has what was taken, once for each key."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.stored: dict[str, list[dict[str, Any]]] = {}
        self.url = ""

    @property
    def messages(self) -> list[str]:
        """Of what is stored, in order."""
        return [line["message"] for lines in self.stored.values() for line in lines]

    def answer(self, request: Request) -> Answer:
        """Taken where the script says 200 or 201 without a body of its own."""
        self.requests.append(request)
        answer = self.script(request)
        if answer.body is not None:
            return answer
        self.stored.setdefault(request.key, request.lines)
        taken = {"accepted": len(request.lines), "filtered": {}, "rejected_count": 0, "rejected": []}
        return Answer(201, json.dumps(taken).encode())


def take_all(_: Request) -> Answer:
    """A server without trouble."""
    return Answer()


@contextmanager
def scripted(script: Script = take_all) -> Iterator[ScriptedServer]:
    """It listens."""
    found = ScriptedServer(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            encoding = self.headers.get("Content-Encoding", "identity")
            if encoding == "gzip":
                body = gzip.decompress(body)
            elif encoding == "zstd":
                body = zstandard.decompress(body)
            lines = [json.loads(line) for line in body.splitlines()]
            key = self.headers["Idempotency-Key"]
            answer = found.answer(Request(key, self.headers.get("Authorization"), encoding, lines))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body or b"")))
            self.end_headers()
            self.wfile.write(answer.body or b"")

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
