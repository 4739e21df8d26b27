"""What client commands show and how patient they are."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.http_client import Problem, Refused, Unreachable, check_url
from cli.importing.sending import Rejection, read_outcome
from cli.log_view import LineView
from cli.pages import explain
from cli.terminal import harmless, harmless_json
from runtime.patience import pause_before, retry_after_s
from schemas.errors import InvalidInput
from schemas.export_lines import PageLog, csv_records

NOW_US = 1_795_000_000_000_000
"""Wed, 18 Nov 2026 11:06:40 GMT"""


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("Wed, 18 Nov 2026 11:06:45 GMT", 5.0),
        ("Wed, 18 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("²", None),
        ("9" * 400, None),
        ("Wed, 18 Nov 99999 11:00:00 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW_US) == seconds


def test_pause_grows_to_a_bound_and_obeys_the_server() -> None:
    grown = [pause_before(attempt, None, 1.0) for attempt in range(20)]
    assert grown == sorted(grown)
    assert (grown[0], grown[-1]) == (0.25, 15.0)
    assert pause_before(1000, None, 0.0) == 7.5
    assert pause_before(0, 3.0, 0.5) == pytest.approx(3.05)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "", "http://", "http://[bad"])
def test_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="--url"):
        check_url(url)


def test_url_may_end_with_a_slash() -> None:
    assert check_url("http://logs.example:8080/") == "http://logs.example:8080"


def response(status: int, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return httpx.Response(status, content=content, request=httpx.Request("POST", "http://x"))


def test_outcome_counts_and_names() -> None:
    body = {
        "accepted": 3,
        "filtered": {"level": 2, "sample": 1},
        "rejected": [{"index": 4, "code": "timestamp", "error": "too old"}],
        "rejected_count": 9,
    }
    outcome = read_outcome(response(201, body), logs=15)
    assert outcome == (3, 3, 9, [Rejection(4, "too old")])


def test_batch_without_a_valid_log_is_rejected_line_by_line() -> None:
    problem = {
        "title": "No log is valid",
        "detail": "…",
        "rejected": [{"index": 0, "error": "bad"}],
        "rejected_count": 2,
    }
    assert read_outcome(response(422, problem), logs=2) == (0, 0, 2, [Rejection(0, "bad")])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422])
def test_refusal_as_a_whole_keeps_what_the_server_said(status: int) -> None:
    with pytest.raises(Refused, match="Title: the detail"):
        read_outcome(response(status, {"title": "Title", "detail": "the detail"}), logs=2)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"accepted": 1}', b'{"accepted":"x","filtered":{}}'])
def test_answer_of_something_else_is_not_taken_for_success(body: bytes) -> None:
    with pytest.raises(Unreachable, match="not as a Logfeed server does"):
        read_outcome(response(200, body), logs=1)


def test_problem_marks_the_column() -> None:
    members = {"errors": [{"field": "query", "message": "expected a level", "column": 9}]}
    problem = Problem(422, "Unprocessable", "expected a level", members)
    assert explain(problem, {"query": "a level:x\x1b b"}) == "expected a level\n  a level:x\\x1b b\n          ^"
    assert explain(problem, {}) == "expected a level"
    far = {"errors": [{"field": "query", "column": 501}]}
    long = explain(Problem(422, "", "d", far), {"query": "a" * 500 + "!" + "b" * 500})
    shown, mark = long.splitlines()[1:]
    assert len(shown) < 130
    assert shown[mark.index("^")] == "!"


HOSTILE = "\x1b[31mred\x07 \x9b2J \u202eright \u2066x\u2069 \x00 \x7f\r\nsecond\ttab"


@pytest.mark.parametrize("keep_newlines", [False, True])
def test_text_of_others_cannot_command_the_terminal(keep_newlines: bool) -> None:
    shown = harmless(HOSTILE, keep_newlines=keep_newlines)
    allowed = {"\t", "\n"} if keep_newlines else {"\t"}
    assert all(character.isprintable() or character in allowed for character in shown)
    assert "\\x1b[31mred" in shown


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_harmless_json_means_the_same(text: str) -> None:
    encoded = orjson.dumps({"message": text}).decode()
    shown = harmless_json(encoded)
    assert orjson.loads(shown) == {"message": text}
    assert not any(0x7F <= ord(character) < 0xA0 or ord(character) < 0x20 for character in shown)


@pytest.fixture
def zone() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Etc/GMT-2"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


LOG = {
    "id": "1",
    "timestamp": "2026-11-22T12:34:56.123456Z",
    "level": "ERROR",
    "service_name": "shop",
    "message": "boom\n2026-11-22 12:00:00.000 INFO  shop forged",
    "correlation_id": "c1",
    "metadata": {"user": "ada", "note": "two words", "n": 3},
}


@pytest.mark.usefixtures("zone")
def test_line_shows_the_log_and_forges_none() -> None:
    local = LineView(colour=False, utc=False).line(LOG)
    assert local == (
        "2026-11-22 14:34:56.123 ERROR shop     boom\n    2026-11-22 12:00:00.000 INFO  shop forged"
        ' correlation_id=c1 user=ada note="two words" n=3'
    )
    assert LineView(colour=False, utc=True).line(LOG).startswith("2026-11-22 12:34:56.123Z ERROR")


def test_half_of_a_surrogate_pair_is_shown_as_an_escape() -> None:
    line = LineView(colour=False, utc=True).line(
        {**LOG, "metadata": {"a": "two \ud800", "b": "\udc00", "c": ["\ud800"]}}
    )
    assert line.endswith('a="two \\ud800" b=\\udc00 c=["\\ud800"]')
    line.encode()


def test_colours_only_where_asked_for() -> None:
    assert "\x1b[" in LineView(colour=True, utc=True).line(LOG)
    hostile = {**LOG, "message": HOSTILE, "service_name": "\x1b[2J", "metadata": {"\x1b]0;t": "\x1b[1m"}}
    assert "\x1b" not in LineView(colour=False, utc=True).line(hostile)


def test_no_field_of_a_csv_is_a_formula() -> None:
    def log(**fields: Any) -> PageLog:
        values = {"service_name": "shop", "message": "m", "correlation_id": None, **fields}
        return PageLog(
            "1", "2026-11-22T00:00:00Z", "2026-11-22T00:00:00Z", "INFO", 9, metadata=msgspec.Raw(b"{}"), **values
        )

    formulas = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"]
    logs = [log(message=text, correlation_id=text) for text in formulas] + [log(service_name="-a")]
    rows = list(csv.reader(io.StringIO(csv_records(logs).decode(), newline="")))
    assert [row[6] for row in rows[:-1]] == [row[7] for row in rows[:-1]] == [f"'{text}" for text in formulas]
    assert rows[-1][5:8] == ["'-a", "m", ""]
    assert not [cell for row in rows for cell in row if cell[:1] in set("=+-@\t\r\n＝")]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<a href='javascript:x'>",
        "=1+1",
        "\x1b]8;;http://x\x07link\x1b]8;;\x07",
        "\u202etxt.exe",
    ],
)
def test_whatever_a_log_says_is_text_in_the_terminal(text: str) -> None:
    shown = LineView(colour=False, utc=True).line({**LOG, "message": text, "metadata": {text: text}})
    assert harmless(text) in shown
    assert all(character.isprintable() or character == "\t" for character in shown)
