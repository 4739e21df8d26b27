"""Which settings of a topic and its brokers are wrong."""

from __future__ import annotations

import pytest

from broker.kafka_topic import BATCH_BYTES_MAX, topic_settings, wrong_broker_settings, wrong_topic_settings


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_a_topic_made_by_us_is_right(factor: int) -> None:
    assert wrong_topic_settings(topic_settings(factor), replicas=factor) == []


@pytest.mark.parametrize(
    "name,value",
    [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("retention.bytes", "1073741824"),
        ("message.timestamp.type", "CreateTime"),
        ("unclean.leader.election.enable", "true"),
        ("max.message.bytes", str(BATCH_BYTES_MAX - 1)),
        ("min.insync.replicas", "1"),
    ],
)
def test_each_wrong_setting_is_named_with_its_value(name: str, value: str) -> None:
    problems = wrong_topic_settings(topic_settings(3) | {name: value}, replicas=3)
    assert len(problems) == 1
    assert problems[0].startswith(f"topic setting {name} is {value}, expected ")


def test_a_setting_that_the_broker_does_not_tell_is_wrong() -> None:
    assert len(wrong_topic_settings({}, replicas=3)) == 6


def test_one_replica_needs_no_second_in_sync() -> None:
    assert wrong_topic_settings(topic_settings(1) | {"min.insync.replicas": "1"}, replicas=1) == []


def test_a_request_may_hold_all_that_is_in_flight() -> None:
    found = {"socket.request.max.bytes": "104857600"}
    assert wrong_broker_settings(found, in_flight_bytes_max=64 * 1024 * 1024) == []
    assert wrong_broker_settings(found, in_flight_bytes_max=100 * 1024 * 1024) != []
