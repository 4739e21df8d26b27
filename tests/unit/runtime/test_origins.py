"""Which pages may act here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from runtime.origins import Origins, origin_of

OWN = Origins()
NAMED = Origins(["https://logs.example", "http://other.example:8000"])


def connection(*headers: tuple[str, str], scheme: str = "http", kind: str = "http") -> HTTPConnection:
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return HTTPConnection({"type": kind, "scheme": scheme, "headers": raw, "path": "/"})


HOST = ("Host", "logs.example:8080")


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        ([HOST], "http"),
        ([HOST, ("Sec-Fetch-Site", "none")], "http"),
        ([HOST, ("Origin", "http://logs.example:8080")], "http"),
        ([HOST, ("Origin", "http://logs.example:8080"), ("Sec-Fetch-Site", "same-origin")], "http"),
        ([HOST, ("Origin", "HTTP://LOGS.example:8080")], "http"),
        ([HOST, ("Origin", "https://logs.example:8080")], "http"),  # a proxy speaks TLS for us
        ([("Host", "logs.example"), ("Origin", "https://logs.example")], "http"),
        ([("Host", "logs.example"), ("Origin", "https://logs.example")], "https"),
        ([("Host", "logs.example"), ("Origin", "https://logs.example")], "wss"),
        ([("Host", "logs.example:443"), ("Origin", "https://logs.example")], "wss"),
        ([("Host", "[::1]:8080"), ("Origin", "http://[::1]:8080")], "ws"),
        ([("Host", "inner:1"), ("Origin", "https://logs.example"), ("Sec-Fetch-Site", "same-origin")], "http"),
    ],
)
def test_own_pages_and_programs_are_let_through(headers: list[tuple[str, str]], scheme: str) -> None:
    assert OWN.admit(connection(*headers, scheme=scheme))


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        ([HOST, ("Origin", "https://evil.example")], "http"),
        ([HOST, ("Origin", "http://logs.example")], "http"),  # another port
        ([HOST, ("Origin", "http://logs.example:8080.evil.example")], "http"),
        ([HOST, ("Origin", "http://logs.example:8080@evil.example")], "http"),
        ([HOST, ("Origin", "http://sub.logs.example:8080")], "http"),
        ([HOST, ("Origin", "null")], "http"),
        ([HOST, ("Origin", "")], "http"),
        ([HOST, ("Origin", "file://")], "http"),
        ([HOST, ("Origin", "http://logs.example:8080"), ("Origin", "https://evil.example")], "http"),
        ([HOST, ("Origin", "http://logs.example:8080"), ("Sec-Fetch-Site", "cross-site")], "http"),
        ([HOST, ("Sec-Fetch-Site", "cross-site")], "http"),
        ([HOST, ("Sec-Fetch-Site", "same-site")], "http"),
        ([HOST, ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")], "http"),
        (
            [("Host", "logs.example"), ("Origin", "http://logs.example")],
            "https",
        ),  # whoever sits on the wire made that page
        ([("Origin", "http://logs.example:8080")], "http"),
        ([("Host", "a b"), ("Origin", "http://a b")], "http"),
    ],
)
def test_pages_of_others_are_not(headers: list[tuple[str, str]], scheme: str) -> None:
    assert not OWN.admit(connection(*headers, scheme=scheme))


def test_named_origins_are_let_through_whatever_the_host() -> None:
    inner = ("Host", "inner:8080")
    for origin, admitted in (
        ("https://logs.example", True),
        ("https://logs.example:443", True),
        ("http://other.example:8000", True),
        ("http://logs.example", False),
        ("https://logs.example:8443", False),
    ):
        found = NAMED.admit(connection(inner, ("Origin", origin), ("Sec-Fetch-Site", "cross-site"), scheme="ws"))
        assert found is admitted, origin


@pytest.mark.parametrize(
    "text",
    ["", "null", "*", "logs.example", "https://", "https://a/b", "https://a?", "ftp://a", "https://a:0", "https://a:x"],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        origin_of(text)


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=20))
def test_no_header_is_an_error_and_none_but_its_own_host_is_let_through(origin: str, host: str, site: str) -> None:
    raw = [
        (name, text.encode("utf-8", "surrogatepass"))
        for name, text in ((b"origin", "https://evil.example/" + origin), (b"host", host), (b"sec-fetch-site", site))
    ]
    assert not OWN.admit(HTTPConnection({"type": "http", "scheme": "http", "headers": raw, "path": "/"}))
