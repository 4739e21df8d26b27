"""Rates of keys: what is taken, refused, given back, and bounded."""

from __future__ import annotations

import math

import pytest

from access.principal import Principal, RateLimits
from ingest.errors import RateLimited
from ingest.key_rates import KeyRates
from runtime.clock import ManualClock
from runtime.telemetry import REGISTRY
from schemas.scope import ALL_SERVICES


def who(subject: str = "key:a", rates: RateLimits | None = None) -> Principal:
    return Principal(subject, ALL_SERVICES, ALL_SERVICES, rates=rates)


def refused(limit: str) -> float:
    return REGISTRY.get_sample_value("logfeed_ingest_rate_limited_total", {"limit": limit}) or 0.0


def test_without_any_rate_nothing_is_held_or_refused() -> None:
    rates = KeyRates(RateLimits(), ManualClock(0))
    for number in range(100):
        rates.check(who(f"key:{number}"))
        assert rates.take(who(f"key:{number}"), "logs", 10**9) is None


def test_a_key_is_held_to_its_own_rate_and_others_to_the_one_that_is_set() -> None:
    clock = ManualClock(0)
    rates = KeyRates(RateLimits(logs_per_s=10.0), clock)
    own = who("key:own", RateLimits(logs_per_s=100.0, burst_s=2.0))
    for principal, burst in ((who(), 10), (own, 200), (who("key:b"), 10)):
        for _ in range(burst):
            rates.take(principal, "logs", 1)
        with pytest.raises(RateLimited):
            rates.check(principal)
    free = who("key:free", RateLimits(logs_per_s=math.inf))
    rates.take(free, "logs", 10**9)
    rates.check(free)


def test_what_is_larger_than_the_burst_passes_whole_and_is_paid_off() -> None:
    clock = ManualClock(0)
    rates = KeyRates(RateLimits(), clock)
    principal = who(rates=RateLimits(bytes_per_s=1_000.0))
    before = refused("key_bytes")
    rates.take(principal, "bytes", 10_000)
    with pytest.raises(RateLimited, match="1000 bytes/s") as error:
        rates.take(principal, "bytes", 1)
    assert error.value.retry_after_s == 10, "9,000 owed, and a byte"
    assert refused("key_bytes") == before + 1
    clock.advance(error.value.retry_after_s)
    rates.take(principal, "bytes", 1)


def test_logs_and_bytes_are_limits_of_their_own() -> None:
    rates = KeyRates(RateLimits(bytes_per_s=1_000.0), ManualClock(0))
    principal = who(rates=RateLimits(logs_per_s=10.0))
    rates.take(principal, "logs", 10)
    rates.take(principal, "bytes", 500)
    with pytest.raises(RateLimited, match="10 logs/s"):
        rates.check(principal)
    rates.take(principal, "bytes", 500)
    with pytest.raises(RateLimited, match="1000 bytes/s"):
        rates.take(principal, "bytes", 1)


def test_a_rate_that_was_changed_holds_at_once_and_forgives_nothing() -> None:
    clock = ManualClock(0)
    rates = KeyRates(RateLimits(), clock)
    rates.take(who(rates=RateLimits(logs_per_s=10.0)), "logs", 110)
    slower = who(rates=RateLimits(logs_per_s=1.0))
    with pytest.raises(RateLimited) as error:
        rates.check(slower)
    assert error.value.retry_after_s == 101
    rates.take(who(rates=RateLimits(logs_per_s=math.inf)), "logs", 1_000)
    faster = who(rates=RateLimits(logs_per_s=1_000.0))
    with pytest.raises(RateLimited) as error:
        rates.check(faster)
    assert error.value.retry_after_s == 1


def test_subjects_are_bounded_and_the_one_used_longest_ago_goes() -> None:
    rates = KeyRates(RateLimits(logs_per_s=1.0), ManualClock(0), subjects_max=10)
    for number in range(100):
        rates.take(who(f"key:{number}"), "logs", 1)
    with pytest.raises(RateLimited):
        rates.check(who("key:99"))
    rates.check(who("key:0"))
    assert {kind: len(buckets) for kind, buckets in rates._buckets.items()} == {"logs": 10, "bytes": 0}
