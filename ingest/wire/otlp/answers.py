"""Answers in OTLP's words: ExportLogsServiceResponse, and google.rpc.Status for errors, in the request's type: pure.

A client sends again what was answered 429, 502, 503 or 504, and drops what was answered anything else: so a body that came
too slowly is 503 here. It waits as long as Retry-After says, and some give up ten seconds after they began: so that is two
seconds at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson
from fastapi import Response

from ingest.problems import Refusal
from ingest.receive import NOT_PERMITTED, Answer, Received
from ingest.wire.otlp import messages

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
RETRY_AFTER_S_MAX: Final = 2
_ERRORS_SHOWN_MAX: Final = 3
_STATUSES: Final = {408: 503, 422: 400}
"""Statuses that OTLP's clients do not know -> those that say the same to them."""
_CODES: Final = {400: 3, 401: 16, 403: 7, 413: 3, 415: 3, 429: 8, 500: 13, 503: 14}
"""HTTP status -> google.rpc.Code."""
_UNKNOWN: Final = 2


def answer(received: Received, media_type: str) -> Answer:
    """What became of the records. None of them valid: an error, since nothing is partial about it."""
    accepted = len(received.kept)
    if not received.rejected:
        return Answer(200, b"{}" if media_type == JSON else b"", accepted)
    text = _why(received)
    if not received.kept and not received.dropped:
        is_forbidden = all(error.code == NOT_PERMITTED for _, error in received.rejected)
        status = 403 if is_forbidden else 400
        return Answer(status, _status(status, text, media_type), 0)
    rejected = len(received.rejected)
    if media_type == JSON:
        partial = {"rejectedLogRecords": str(rejected), "errorMessage": text}
        return Answer(200, orjson.dumps({"partialSuccess": partial}), accepted)
    response = messages.Response()
    response.partial_success.rejected_log_records = rejected
    response.partial_success.error_message = text
    return Answer(200, response.SerializeToString(), accepted)


def respond(answer: Answer, media_type: str) -> Response:
    """With its headers."""
    return _response(answer.status, answer.body, media_type)


def refuse(refusal: Refusal, media_type: str) -> Response:
    """An error."""
    status = _STATUSES.get(refusal.status, refusal.status)
    headers = dict(refusal.headers)
    if status in (429, 503):
        headers["Retry-After"] = str(min(int(headers.get("Retry-After", 1)), RETRY_AFTER_S_MAX))
    return _response(status, _status(status, refusal.detail, media_type), media_type, headers)


def _response(status: int, body: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status_code=status, media_type=media_type, headers=headers)


def _status(status: int, text: str, media_type: str) -> bytes:
    code = _CODES.get(status, _UNKNOWN)
    if media_type == JSON:
        return orjson.dumps({"code": code, "message": text})
    serialised: bytes = messages.Status(code=code, message=text).SerializeToString()
    return serialised


def _why(received: Received) -> str:
    """The first errors; a place counts the request's records from 0."""
    shown = [f"record {index}: {error.text}" for index, error in received.rejected[:_ERRORS_SHOWN_MAX]]
    further = len(received.rejected) - len(shown)
    return "; ".join([*shown, *([f"and {further} more"] if further else [])])
