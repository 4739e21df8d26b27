"""Answers in OTLP's words, in the request's type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from ingest.errors import FieldError, ItemError
from ingest.problems import Refusal
from ingest.receive import NOT_PERMITTED, Received
from ingest.wire.otlp.answers import JSON, PROTOBUF, answer, refuse, respond
from schemas.record import Log

KEPT: Any = Log(1, 2, 9, "shop", "paid", None, {})
TOO_OLD = ItemError("timestamp", (FieldError("timestamp", "is too old"),))
FORBIDDEN = ItemError(NOT_PERMITTED, (FieldError("service_name", "not yours"),))
TYPES = pytest.mark.parametrize("media_type", [JSON, PROTOBUF])


def status(body: bytes, media_type: str) -> tuple[int, str]:
    if media_type == JSON:
        document = json.loads(body)
        return document["code"], document["message"]
    read = Status.FromString(body)
    return read.code, read.message


@TYPES
def test_all_taken_is_an_empty_response(media_type: str) -> None:
    for received in (Received(kept=[KEPT]), Received(dropped=[(KEPT, "no-debug")]), Received()):
        made = answer(received, media_type)
        assert (made.status, made.body) == (200, b"{}" if media_type == JSON else b"")
        assert made.accepted == len(received.kept)
        assert respond(made, media_type).headers["content-type"] == media_type


@TYPES
@pytest.mark.parametrize("others", [{"kept": [KEPT]}, {"dropped": [(KEPT, "no-debug")]}])
def test_some_rejected_is_a_partial_success(media_type: str, others: dict[str, Any]) -> None:
    made = answer(Received(rejected=[(index, TOO_OLD) for index in range(3, 8)], **others), media_type)
    assert made.status == 200
    if media_type == JSON:
        partial = json.loads(made.body)["partialSuccess"]
        rejected, text = partial["rejectedLogRecords"], partial["errorMessage"]
        assert rejected == "5"
    else:
        response = ExportLogsServiceResponse.FromString(made.body).partial_success
        rejected, text = response.rejected_log_records, response.error_message
        assert rejected == 5
    assert text.startswith("record 3: timestamp: is too old; record 4:")
    assert text.endswith("; and 2 more")


@TYPES
@pytest.mark.parametrize(("error", "http", "code"), [(TOO_OLD, 400, 3), (FORBIDDEN, 403, 7)])
def test_nothing_valid_is_an_error(media_type: str, error: ItemError, http: int, code: int) -> None:
    made = answer(Received(rejected=[(0, error)]), media_type)
    assert made.status == http
    assert status(made.body, media_type) == (code, f"record 0: {error.text}")


@TYPES
@pytest.mark.parametrize(
    ("of", "http", "code"),
    [
        *((400, 400, 3), (401, 401, 16), (403, 403, 7), (413, 413, 3), (415, 415, 3)),
        *((408, 503, 14), (422, 400, 3), (429, 429, 8), (500, 500, 13), (503, 503, 14), (418, 418, 2)),
    ],
)
def test_errors_are_statuses(media_type: str, of: int, http: int, code: int) -> None:
    made = refuse(Refusal(of, "slug", "title", "what happened", {"X-Kept": "1"}), media_type)
    assert made.status_code == http
    assert status(bytes(made.body), media_type) == (code, "what happened")
    assert made.headers["content-type"] == media_type
    assert made.headers["x-kept"] == "1"
    assert ("retry-after" in made.headers) == (http in (429, 503))


@pytest.mark.parametrize(("said", "answered"), [("1", "1"), ("2", "2"), ("30", "2")])
def test_retries_come_before_a_client_gives_up(said: str, answered: str) -> None:
    made = refuse(Refusal(503, "slug", "title", "detail", {"Retry-After": said}), JSON)
    assert made.headers["retry-after"] == answered
