"""Whose pages may open WebSockets here."""

from __future__ import annotations

import pytest

from runtime.origins import is_allowed_origin


@pytest.mark.parametrize(
    ("origin", "host", "is_allowed"),
    [
        (None, "logs.example", True),
        ("https://logs.example", "logs.example", True),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("HTTPS://Logs.Example", "logs.example", True),
        ("https://ui.example", "logs.example", True),
        ("https://ui.example:444", "logs.example", False),
        ("https://evil.example", "logs.example", False),
        ("https://logs.example.evil.example", "logs.example", False),
        ("https://logs.example:8443", "logs.example", False),
        ("null", "logs.example", False),
        ("null", "null", False),
        ("file://logs.example", "logs.example", False),
        ("", "", False),
        ("", "logs.example", False),
        ("https://", "", False),
        ("https://logs.example", None, False),
        ("https://user@logs.example", "logs.example", False),
    ],
)
def test_our_own_and_those_that_are_named(origin: str | None, host: str | None, is_allowed: bool) -> None:
    assert is_allowed_origin(origin, host, {"https://ui.example/"}) is is_allowed
