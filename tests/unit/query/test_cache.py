"""Answers are kept for who may read the same, for a time, within bytes."""

from __future__ import annotations

import pytest

from query.cache import Kept, ResultCache
from query.settings import QuerySettings
from runtime.clock import ManualClock
from schemas.scope import ALL_SERVICES, NO_SERVICES, ServiceScope


def kept(body: bytes) -> Kept:
    return Kept(body, 1, 1)


def test_an_answer_is_given_only_to_the_same_right() -> None:
    cache = ResultCache(bytes_max=10_000, clock=ManualClock(0))
    shop = ServiceScope(names=frozenset({"shop"}))
    cache.put(("log", "1"), kept(b"secret"), allowed=shop, ttl_s=60)
    assert cache.get(("log", "1"), allowed=ServiceScope(names=frozenset({"shop"}))) == kept(b"secret")
    others = (ALL_SERVICES, NO_SERVICES, ServiceScope(prefixes=frozenset({"shop"})), ServiceScope(names=frozenset("s")))
    for other in others:
        assert cache.get(("log", "1"), allowed=other) is None


def test_an_answer_ends_with_its_time() -> None:
    clock = ManualClock(0)
    cache = ResultCache(bytes_max=10_000, clock=clock)
    cache.put(("a",), kept(b"1"), allowed=ALL_SERVICES, ttl_s=300)
    clock.advance(299)
    assert cache.get(("a",), allowed=ALL_SERVICES) == kept(b"1")
    clock.advance(1)
    assert cache.get(("a",), allowed=ALL_SERVICES) is None
    assert cache.size_bytes == 0


def test_bytes_are_bounded_and_the_least_used_goes_first() -> None:
    cache = ResultCache(bytes_max=5_000, clock=ManualClock(0))
    for name in "abc":
        cache.put((name,), kept(b"x" * 1_000), allowed=ALL_SERVICES, ttl_s=60)
    cache.get(("a",), allowed=ALL_SERVICES)
    cache.put(("d",), kept(b"x" * 1_000), allowed=ALL_SERVICES, ttl_s=60)
    assert [name for name in "abcd" if cache.get((name,), allowed=ALL_SERVICES)] == ["a", "c", "d"]
    cache.put(("e",), kept(b"x" * 5_000), allowed=ALL_SERVICES, ttl_s=60)
    assert cache.get(("e",), allowed=ALL_SERVICES) is None
    assert cache.size_bytes <= 5_000


def test_a_cache_of_no_bytes_keeps_nothing() -> None:
    cache = ResultCache(bytes_max=0, clock=ManualClock(0))
    cache.put(("a",), kept(b""), allowed=ALL_SERVICES, ttl_s=60)
    assert cache.get(("a",), allowed=ALL_SERVICES) is None


def test_replacing_an_answer_counts_its_bytes_once() -> None:
    cache = ResultCache(bytes_max=10_000, clock=ManualClock(0))
    for _ in range(50):
        cache.put(("a",), kept(b"x" * 1_000), allowed=ALL_SERVICES, ttl_s=60)
    assert cache.size_bytes < 2_000


def test_a_cache_smaller_than_a_page_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="cache_bytes_max"):
        QuerySettings(cache_bytes_max=1024, page_bytes_max=2048)
