"""Correlation ids in headers: W3C Trace Context, what else brings one, and what goes on to other services."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logfeed_client.headers import incoming, new_correlation_id, outgoing, parse_id, parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"00-{TRACE}-{PARENT}-01", (TRACE, "01")),
        (f" 00-{TRACE}-{PARENT}-00\t", (TRACE, "00")),
        (f"cc-{TRACE}-{PARENT}-01-what-comes", (TRACE, "01")),
        (f"cc-{TRACE}-{PARENT}-01", (TRACE, "01")),
        (f"00-{TRACE}-{PARENT}-01-more", None),
        (f"cc-{TRACE}-{PARENT}-01.more", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{PARENT}", None),
        (f"00-{TRACE[1:]}-{PARENT}-01", None),
        ("٠٠-" + TRACE, None),
        ("", None),
        (None, None),
    ],
)
def test_traceparent_is_read_as_the_standard_has_it(text: str | None, found: tuple[str, str] | None) -> None:
    assert parse_traceparent(text) == found


def get(**headers: str) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def test_the_first_header_that_is_valid_counts() -> None:
    every = get(
        traceparent=f"00-{TRACE}-{PARENT}-00", tracestate="a=b", x_correlation_id="order-1", x_request_id="request-1"
    )
    found = incoming(every.get)
    assert (found.correlation_id, found.flags, found.state) == (TRACE, "00", "a=b")
    every["traceparent"] = "no"
    assert incoming(every.get).correlation_id == "order-1"
    every["x-correlation-id"] = "two words"
    assert incoming(every.get).correlation_id == "request-1"
    every["x-request-id"] = "a\r\nSet-Cookie: b"
    assert parse_traceparent(f"00-{incoming(every.get).correlation_id}-{PARENT}-01") is not None, "a new one"


@given(st.text(max_size=200))
@settings(max_examples=50, deadline=None)
def test_no_header_puts_anything_but_visible_characters_into_answers(text: str) -> None:
    found = parse_id(text)
    assert found is None or (0 < len(found) <= 128 and found.isascii() and found.isprintable() and " " not in found)
    assert all(value.isascii() and value.isprintable() for value in outgoing(text).values())


def test_a_trace_goes_on_with_a_parent_of_its_own() -> None:
    headers = outgoing(TRACE, flags="00", state="a=b")
    assert headers["X-Correlation-ID"] == TRACE
    assert headers["tracestate"] == "a=b"
    assert parse_traceparent(headers["traceparent"]) == (TRACE, "00")
    assert headers["traceparent"] != outgoing(TRACE, flags="00")["traceparent"]
    assert outgoing("order-1") == {"X-Correlation-ID": "order-1"}
    assert outgoing("0" * 32) == {"X-Correlation-ID": "0" * 32}, "no valid trace"
    assert set(outgoing(new_correlation_id())) == {"X-Correlation-ID", "traceparent"}
