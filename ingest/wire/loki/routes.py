"""The routes of Loki's push API, and of its readiness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request, Response

from access.principal import Principal
from ingest.api import TakesLogs
from ingest.problems import Refusal
from ingest.receive import Answer, Received
from ingest.records import Records
from ingest.wire.edge import add_format
from ingest.wire.loki import answers
from ingest.wire.loki.read import read_json, read_protobuf
from runtime.direct import DirectRouter
from schemas.access import SECURITY
from schemas.loki import DEFAULT_SERVICE

PATHS: Final = ("/loki/api/v1/push", "/api/prom/push")
_TEXT: Final[dict[str, Any]] = {"text/plain": {"schema": {"type": "string"}}}
_RETRY: Final[dict[str, Any]] = {"Retry-After": {"description": "Whole seconds.", "schema": {"type": "integer"}}}
_DESCRIPTION: Final = """As Grafana Loki takes it: JSON, plain, gzip or deflate; anything else is protobuf in a snappy block.

The service is the label `service_name`, `service`, `app`, `application`, `name`, `container`, `component` or `job`, the first
that there is. 204 means durable. A body is its own idempotency key, so that what a client sends again is stored once."""
_ERRORS: Final = {
    400: "The body cannot be read, or some entries were not taken: the others are stored. Sending it again helps nobody.",
    401: "No credentials came, or they are not valid (any more).",
    403: "The key may not send logs of these services.",
    413: "The body is too large, or holds too many entries or services: send several.",
    415: "The body's encoding is not supported.",
    422: "The Idempotency-Key was used with another body.",
    429: "A rate limit refuses the whole request: send it again.",
    503: "The request cannot be taken now, or its body did not arrive in time: send it again.",
}
_EXAMPLE: Final = {"streams": [{"stream": {"app": "shop"}, "values": [["1795000000000000000", "payment declined"]]}]}
_DOCUMENTATION: Final[dict[str, Any]] = {
    "status_code": 204,
    "summary": "Send logs as to Loki",
    "tags": ["loki"],
    "description": _DESCRIPTION,
    "response_class": Response,
    "response_model": None,
    "responses": {
        204: {"description": "Everything accepted is durable."},
        **{
            status: {
                "description": text,
                "content": _TEXT,
                **({"headers": _RETRY} if status in (429, 503) else {}),
            }
            for status, text in _ERRORS.items()
        },
    },
    "openapi_extra": {
        "security": SECURITY,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["streams"],
                        "properties": {
                            "streams": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "properties": {
                                        "stream": {"type": "object", "additionalProperties": {"type": "string"}},
                                        "values": {"type": "array", "items": {"type": "array"}},
                                    },
                                },
                            }
                        },
                    },
                    "example": _EXAMPLE,
                },
                "application/x-protobuf": {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
}


@dataclass(slots=True)
class LokiFormat:
    """See Format."""

    is_json: bool
    logs_max: int

    def read(self, body: bytes, principal: Principal) -> Records:
        """See Format."""
        default_service = None if principal.may_write.only_name is not None else DEFAULT_SERVICE
        read = read_json if self.is_json else read_protobuf
        return read(body, default_service=default_service, logs_max=self.logs_max)

    def answer(self, received: Received) -> Answer:
        """See Format."""
        return answers.answer(received)

    def respond(self, answer: Answer) -> Response:
        """See Format."""
        return answers.respond(answer)

    def refuse(self, refusal: Refusal) -> Response:
        """See Format."""
        return answers.refuse(refusal)


def add_loki(router: DirectRouter, service: TakesLogs) -> None:
    """Push, on its path of today and on the older one, and what clients wait for before they begin."""

    def format_of(request: Request) -> LokiFormat:
        return LokiFormat(_is_json(request), service.settings.logs_max)

    add_format(router, service, paths=PATHS, format_of=format_of, encoding_of=_encoding_of, **_DOCUMENTATION)

    @router.get(
        "/ready",
        summary="Can it take logs now?",
        description="As Loki answers it; `/readyz` says more.",
        response_class=Response,
        response_model=None,
        responses={
            200: {"description": "It can.", "content": _TEXT},
            503: {"description": "Not now; the text says why.", "content": _TEXT},
        },
    )
    async def loki_ready() -> Response:
        problems = service.ready()
        text = "ready\n" if not problems else "".join(f"{problem}\n" for problem in problems)
        return Response(text, 503 if problems else 200, media_type=answers.TEXT)


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json"


def _encoding_of(request: Request) -> str:
    """Protobuf comes in one snappy block, said or not; gzip or another encoding that is named is around that, and nobody sends
    it."""
    named = request.headers.get("content-encoding", "")
    if _is_json(request):
        return named
    return "snappy" if named.strip().lower() in ("", "identity", "snappy") else named
