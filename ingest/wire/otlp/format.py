"""OTLP's two types of bodies as formats, and what the OpenAPI document says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from fastapi import Request, Response

from access.principal import Principal
from ingest.api import TakesLogs
from ingest.errors import UnsupportedBody
from ingest.problems import Refusal
from ingest.receive import Answer, Received
from ingest.records import Records
from ingest.wire.edge import add_format
from ingest.wire.otlp import answers
from ingest.wire.otlp.answers import JSON, PROTOBUF
from ingest.wire.otlp.documentation import DESCRIPTION, REQUEST, RESPONSES
from ingest.wire.otlp.json_body import read_json
from ingest.wire.otlp.protobuf import read_protobuf
from ingest.wire.otlp.records import UNKNOWN_SERVICE, Made
from runtime.direct import DirectRouter

PATHS: Final = ("/v1/logs", "/otlp/v1/logs")
_PROTOBUF_TYPES: Final = (PROTOBUF, "application/protobuf")


class _Read(Protocol):
    def __call__(self, body: bytes, *, default_service: str | None, logs_max: int) -> Made: ...


@dataclass(slots=True)
class Otlp:
    """Requests of one type. See ingest.wire.edge.Format."""

    media_type: str
    """Of requests and answers."""
    read_body: _Read
    logs_max: int

    def read(self, body: bytes, principal: Principal) -> Records:
        default_service = UNKNOWN_SERVICE if principal.may_write.only_name is None else None
        made = self.read_body(body, default_service=default_service, logs_max=self.logs_max)
        return Records(made.logs, made.have_own_times, max(0, made.metadata_bytes - len(body)))

    def answer(self, received: Received) -> Answer:
        return answers.answer(received, self.media_type)

    def respond(self, answer: Answer) -> Response:
        return answers.respond(answer, self.media_type)

    def refuse(self, refusal: Refusal) -> Response:
        return answers.refuse(refusal, self.media_type)


def _of_no_type(body: bytes, *, default_service: str | None, logs_max: int) -> Made:
    raise UnsupportedBody(f"this Content-Type is not supported: send {PROTOBUF} or {JSON}")


def add_otlp(router: DirectRouter, service: TakesLogs) -> None:
    """`POST /v1/logs` and `POST /otlp/v1/logs`."""
    logs_max = service.settings.logs_max
    protobuf = Otlp(PROTOBUF, read_protobuf, logs_max)
    json = Otlp(JSON, read_json, logs_max)
    unknown = Otlp(JSON, _of_no_type, logs_max)

    def format_of(request: Request) -> Otlp:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        return protobuf if kind in _PROTOBUF_TYPES else json if kind == JSON else unknown

    documentation: dict[str, Any] = {  # FastAPI's arguments are of many types
        "summary": "Send logs by OTLP/HTTP",
        "description": DESCRIPTION,
        "responses": RESPONSES,
        "openapi_extra": REQUEST,
    }
    add_format(router, service, paths=PATHS, format_of=format_of, **documentation)
