"""What all formats share: a request is authenticated, limited, read, judged and stored as one of ours, and answered as its
protocol says.

A format reads bodies and words answers: pure. Query parameters that we do not know are passed over, as these clients expect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fastapi import Request, Response

from access.principal import Principal
from ingest.api import TakesLogs, answered, read_held
from ingest.problems import Refusal, refusal_of
from ingest.receive import Answer, Received
from ingest.records import Records
from runtime.direct import DirectRouter


class Format(Protocol):
    """One format of requests, as one request has it (type of body and answer)."""

    def read(self, body: bytes, principal: Principal) -> Records:
        """The records of a decompressed body. Raises MalformedBody, BodyTooLarge, UnsupportedBody: for all of it; an item that
        is not as it should be is `Malformed`."""

    def answer(self, received: Received) -> Answer:
        """To what became of the records, also of none of them."""

    def respond(self, answer: Answer) -> Response:
        """The answer with its headers."""

    def refuse(self, refusal: Refusal) -> Response:
        """An error in the protocol's own shape."""


class FormatOf(Protocol):
    """Chooses a request's format by its head."""

    def __call__(self, request: Request) -> Format:
        """Raises nothing: of a type that it does not know, `Format.read` complains."""


def add_format(
    router: DirectRouter,
    service: TakesLogs,
    *,
    paths: Sequence[str],
    methods: Sequence[str] = ("POST",),
    format_of: FormatOf,
    encoding_of: Callable[[Request], str] | None = None,
    **documentation: Any,  # FastAPI's arguments are of many types
) -> None:
    """Routes for one format. All of `paths` are the same to a key; the first names them in metrics.

    encoding_of: the Content-Encoding of a request, for protocols that pack bodies without saying so; None: as its head says.
    """
    route = paths[0].strip("/")

    async def answer(request: Request) -> Response:
        spoken = format_of(request)

        async def handle(request: Request, principal: Principal) -> Response:
            service.check(principal)
            body, hold = await read_held(
                service, request, principal, content_encoding=encoding_of and encoding_of(request)
            )
            taken = await service.take_records(
                body,
                hold,
                principal,
                request.headers.get("idempotency-key"),
                route=route,
                read=spoken.read,
                answer=spoken.answer,
            )
            return spoken.respond(taken)

        return await answered(paths[0], handle, service, request, lambda error: spoken.refuse(refusal_of(error)))

    for path in paths:
        for method in methods:
            router.add_direct(method, path, answer, name=_operation(method, path), **documentation)


def _operation(method: str, path: str) -> str:
    return f"{method.lower()}_{path.strip('/').replace('/', '_').replace('{', '').replace('}', '')}"
