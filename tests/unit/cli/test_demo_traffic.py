"""Sample traffic: the same seed makes the same logs, requests cross services, the server's rules are kept."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import orjson

from cli.demo_traffic import Entry, Traffic, encode, rate_at
from ingest.parse import Window, decode_batch, to_log
from schemas.levels import LEVELS
from schemas.record import Log, is_service_name

START_US = 1_795_000_200_000_000
HALF_HOUR_US = 30 * 60 * 1_000_000


def half_hour(seed: int) -> list[Entry]:
    return Traffic(seed).between(START_US, START_US + HALF_HOUR_US, 3.0)


def test_same_seed_makes_the_same_logs() -> None:
    assert half_hour(7) == half_hour(7)
    assert half_hour(7) != half_hour(8)


def test_rate_is_about_the_one_asked_for() -> None:
    assert abs(len(half_hour(1)) - 5_400) < 540


def test_requests_cross_services_under_one_correlation_id() -> None:
    stories: dict[str, list[Entry]] = defaultdict(list)
    for entry in half_hour(2):
        if "correlation_id" in entry:
            stories[entry["correlation_id"]].append(entry)
    assert all(re.fullmatch(r"[0-9a-f]{32}", correlation_id) for correlation_id in stories)
    assert all(story[0]["service_name"] == "gateway" for story in stories.values())
    crossed = [len({entry["service_name"] for entry in story}) for story in stories.values()]
    assert max(crossed) >= 6
    assert sum(count >= 2 for count in crossed) > len(crossed) * 0.9


def test_levels_and_services_are_mixed_and_errors_cascade() -> None:
    entries = half_hour(3)
    levels = Counter(entry["level"] for entry in entries)
    services = Counter(entry["service_name"] for entry in entries)
    assert len(services) == 8
    assert all(is_service_name(name) for name in services)
    assert set(levels) <= set(LEVELS)
    assert levels["DEBUG"] > levels["WARN"] > 0
    assert 0.001 < levels["ERROR"] / len(entries) < 0.05
    failed = {entry["correlation_id"] for entry in entries if "attempts: timeout" in entry["message"]}
    assert failed
    for correlation_id in failed:
        story = [entry for entry in entries if entry.get("correlation_id") == correlation_id]
        assert {"payments", "orders", "gateway"} <= {
            entry["service_name"] for entry in story if entry["level"] == "ERROR"
        }


def test_messages_are_varied() -> None:
    messages = [entry["message"] for entry in half_hour(4)]
    assert len(set(messages)) > len(messages) * 0.6


def test_body_is_what_the_api_takes() -> None:
    entries = half_hour(5)
    lines = encode(entries).splitlines()
    assert len(lines) == len(entries)
    first = orjson.loads(lines[0])
    assert set(first) <= {"timestamp", "level", "service_name", "message", "correlation_id", "metadata"}
    assert re.fullmatch(r"2026-11-18T11:\d\d:\d\d(\.\d+)?Z", first["timestamp"])


def test_every_log_is_one_that_ingest_takes() -> None:
    window = Window.at(START_US // 1000, retention_days=400)
    items = decode_batch(encode(Traffic(6).between(START_US - HALF_HOUR_US, START_US, 3.0)), logs_max=10_000)
    assert all(isinstance(to_log(item, 1, window, may_hold_nul=True), Log) for item in items)


def test_rate_swings_around_the_one_asked_for() -> None:
    rates = [rate_at(second, 30.0) for second in range(240)]
    assert abs(sum(rates) / 240 - 30.0) < 0.1
    assert min(rates) < 15 < 45 < max(rates)
