"""Rates as they are typed and shown."""

from __future__ import annotations

import math

import pytest

from cli.rates import burst_seconds, bytes_rate, logs_rate, rate_text
from schemas.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "per_s"), [("5000/s", 5_000), ("5k/s", 5_000), ("300/min", 5), ("1.5/s", 1.5), ("none", math.inf)]
)
def test_rates_of_logs(text: str, per_s: float) -> None:
    assert logs_rate(text) == per_s
    assert logs_rate(rate_text(per_s, is_bytes=False)) == per_s


@pytest.mark.parametrize(
    ("text", "per_s", "shown"),
    [
        ("5MB/s", 5e6, "5MB/s"),
        ("5M/s", 5e6, "5MB/s"),
        ("512KiB/s", 524_288, "524288B/s"),
        ("1 GiB/min", 2**30 / 60, "17895697.0667B/s"),
        ("1500kB/s", 1.5e6, "1500kB/s"),
        ("none", math.inf, "none"),
    ],
)
def test_rates_of_bytes(text: str, per_s: float, shown: str) -> None:
    assert bytes_rate(text) == pytest.approx(per_s)
    assert rate_text(per_s, is_bytes=True) == shown
    assert bytes_rate(shown) == pytest.approx(per_s)


@pytest.mark.parametrize("text", ["", "5000", "0/s", "-1/s", "5MB/s", "x/s", "1e9/s", "5/day", "inf/s", "nan/s"])
def test_what_is_no_rate_of_logs_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInput, match="5000/s"):
        logs_rate(text)


@pytest.mark.parametrize("text", ["", "0s", "10", "10h", "7200s", "none"])
def test_a_burst_is_seconds(text: str) -> None:
    assert burst_seconds("10s") == 10
    assert burst_seconds("2min") == 120
    with pytest.raises(InvalidInput, match="--burst"):
        burst_seconds(text)
