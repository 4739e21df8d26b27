"""Answers are taken apart whatever the pieces they come in."""

from __future__ import annotations

import pytest

from bench.wire import Answer, Target, parse_answer

WHOLE = b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nCONTENT-LENGTH: 15\r\n\r\n{"accepted": 7}'


def test_an_answer_is_complete_with_its_last_byte() -> None:
    for end in range(len(WHOLE)):
        assert parse_answer(WHOLE[:end]) is None
    assert parse_answer(WHOLE) == Answer(201, None, b'{"accepted": 7}')


def test_retry_after_is_read() -> None:
    answer = parse_answer(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n")
    assert answer == Answer(503, 2.0, b"")


def test_an_answer_without_a_body_is_complete_with_its_head() -> None:
    assert parse_answer(b"HTTP/1.1 204 No Content\r\nVary: *\r\n\r\n") == Answer(204, None, b"")


@pytest.mark.parametrize("url", ["127.0.0.1:80", "https://127.0.0.1:80", "http://127.0.0.1"])
def test_only_plain_http_with_a_port_is_a_target(url: str) -> None:
    with pytest.raises(ValueError, match="expected http"):
        Target.of(url)


def test_a_head_names_where_it_goes() -> None:
    target = Target.of("http://127.0.0.1:8080", "/api/v1/logs")
    assert target.post_head("application/json").startswith(b"POST /api/v1/logs HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n")
    assert target.get_head("/x?y=1").startswith(b"GET /x?y=1 HTTP/1.1\r\n")
    assert target.get_head("/x").endswith(b"\r\n\r\n")


def test_a_key_in_the_url_is_sent_with_every_request() -> None:
    target = Target.of("http://lf_word@127.0.0.1:8080", "/api/v1/logs")
    for head in (target.post_head("application/json"), target.get_head("/api/v1/logs/1")):
        assert b"\r\nAuthorization: Bearer lf_word\r\n" in head
        assert b"@" not in head
