"""A collector of traces for tests: takes OTLP/HTTP as protobuf and keeps every span."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from infra.fleet import until

PATH: Final = "/v1/traces"


@dataclass(frozen=True)
class Received:
    """One span, and who sent it."""

    service: str
    span: Span

    @property
    def name(self) -> str:
        """Of the span."""
        return self.span.name

    @property
    def trace_id(self) -> str:
        """Hexadecimal."""
        return self.span.trace_id.hex()

    @property
    def span_id(self) -> str:
        """Hexadecimal."""
        return self.span.span_id.hex()

    @property
    def above(self) -> str:
        """Id of the span above; empty at the top."""
        return self.span.parent_span_id.hex()

    @property
    def links(self) -> set[tuple[str, str]]:
        """(trace id, span id) of what it links to."""
        return {(link.trace_id.hex(), link.span_id.hex()) for link in self.span.links}

    def value(self, name: str) -> str | int | bool | None:
        """An attribute."""
        for attribute in self.span.attributes:
            if attribute.key == name:
                found: str | int | bool = getattr(
                    attribute.value, attribute.value.WhichOneof("value") or "string_value"
                )
                return found
        return None


@dataclass
class SpanReceiver:
    """What came."""

    port: int = 0
    spans: list[Received] = field(default_factory=list)
    credentials: set[str] = field(default_factory=set)
    """Authorization of the requests."""

    @property
    def endpoint(self) -> str:
        """URL that exporters send to."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    def of_trace(self, trace_id: str) -> dict[str, Received]:
        """Spans of one trace by name; of equal names the first."""
        return {each.name: each for each in reversed(self.spans) if each.trace_id == trace_id}

    async def has(self, trace_id: str, *names: str) -> dict[str, Received]:
        """Waits until a trace has spans of these names."""

        async def are_there() -> bool:
            return self.of_trace(trace_id).keys() >= set(names)

        await until(are_there, what=f"spans {names} of {trace_id}", timeout_s=60)
        return self.of_trace(trace_id)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                request, *lines = head.decode().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                assert request.startswith(f"POST {PATH} "), request
                self.credentials.add(headers.get("authorization", ""))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    about = {each.key: each.value.string_value for each in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        self.spans += [Received(about["service.name"], span) for span in scope.spans]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def span_receiver() -> AsyncIterator[SpanReceiver]:
    """Listening on a free port of its own."""
    receiver = SpanReceiver()
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
