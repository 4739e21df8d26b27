"""A trace goes on, or a new one begins."""

from __future__ import annotations

import re

import pytest

from runtime.traceparent import traceparent_of

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("header", [GOOD, "cc" + GOOD[2:], "cc" + GOOD[2:] + "-what-comes-later"])
def test_a_trace_is_passed_on(header: str) -> None:
    assert traceparent_of(header) == header


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", GOOD.upper(), "ff" + GOOD[2:], GOOD + "-more", GOOD[:-1], f" {GOOD}", GOOD + "\n"),
        *("00-" + "0" * 32 + "-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01"),
        *("cc" + GOOD[2:] + "-" + "x" * 500, "cc" + GOOD[2:] + "-ä", GOOD.replace("-", "_")),
    ],
)
def test_what_is_no_trace_starts_a_new_one(header: str | None) -> None:
    made = {traceparent_of(header) for _ in range(3)}
    assert len(made) == 3
    assert all(re.fullmatch(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-00", each) for each in made)
