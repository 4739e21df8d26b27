"""What the topic and its brokers must be set to, and what is wrong with what was found. Pure: no client, no await.

Kafka would otherwise break promises silently: compaction and retention.bytes delete what nobody has stored, CreateTime
lets producers' clocks decide how old a record is, an unclean leader forgets what was acknowledged.

`max.message.bytes` of the topic is what counts for a record: its effective value includes the broker's `message.max.bytes`
where the topic sets none, and overrides it where it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from schemas.frames import FRAME_BYTES_MAX

BATCH_BYTES_MAX: Final = FRAME_BYTES_MAX + 1024 * 1024
"""The largest record batch: one frame of the greatest size with the batch's and the headers' framing (17 MiB)."""
REQUEST_OVERHEAD_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: str
    expected: str
    fits: Callable[[str], bool]


def topic_settings(replication_factor: int) -> dict[str, str]:
    """Settings to make the topic with."""
    settings = {
        "cleanup.policy": "delete",
        "retention.bytes": "-1",
        "message.timestamp.type": "LogAppendTime",
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(BATCH_BYTES_MAX),
    }
    if replication_factor >= 3:
        settings["min.insync.replicas"] = "2"
    return settings


def wrong_topic_settings(found: Mapping[str, str | None], *, replicas: int) -> list[str]:
    """One text per wrong setting of the topic: name, value, value expected. replicas: copies of each partition."""
    wanted = [
        _Wanted("cleanup.policy", "delete", lambda value: value == "delete"),
        _Wanted("retention.bytes", "-1", lambda value: value == "-1"),
        _Wanted("message.timestamp.type", "LogAppendTime", lambda value: value == "LogAppendTime"),
        _Wanted("unclean.leader.election.enable", "false", lambda value: value == "false"),
        _Wanted("max.message.bytes", f"at least {BATCH_BYTES_MAX}", lambda value: int(value) >= BATCH_BYTES_MAX),
    ]
    if replicas >= 3:
        wanted.append(_Wanted("min.insync.replicas", "at least 2", lambda value: int(value) >= 2))
    return _wrong(wanted, found, "topic")


def wrong_broker_settings(found: Mapping[str, str | None], *, in_flight_bytes_max: int) -> list[str]:
    """One text per wrong setting of a broker. A produce request may hold all that one producer has in flight."""
    request_bytes = in_flight_bytes_max + REQUEST_OVERHEAD_BYTES
    return _wrong(
        [
            _Wanted(
                "socket.request.max.bytes",
                f"at least {request_bytes} (in_flight_bytes_max and overhead)",
                lambda value: int(value) >= request_bytes,
            )
        ],
        found,
        "broker",
    )


RECORD_BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""The largest batch of a derived topic: one log of the greatest size, each character of its message escaped, takes 2 MiB."""


def derived_topic_settings(replication_factor: int, *, retention_h: float) -> dict[str, str]:
    """Settings to make a derived topic with. Its age counts from the broker's clock: producers' may be wrong by days."""
    settings = {
        "cleanup.policy": "delete",
        "retention.ms": str(int(retention_h * 3_600_000)),
        "message.timestamp.type": "LogAppendTime",
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(RECORD_BATCH_BYTES_MAX),
    }
    if replication_factor >= 3:
        settings["min.insync.replicas"] = "2"
    return settings


def wrong_derived_settings(found: Mapping[str, str | None]) -> list[str]:
    """One text per setting of a derived topic that would keep logs out of it."""
    wanted = [
        _Wanted("cleanup.policy", "delete", lambda value: value == "delete"),
        _Wanted(
            "max.message.bytes",
            f"at least {RECORD_BATCH_BYTES_MAX}",
            lambda value: int(value) >= RECORD_BATCH_BYTES_MAX,
        ),
    ]
    return _wrong(wanted, found, "topic")


def _wrong(wanted: list[_Wanted], found: Mapping[str, str | None], where: str) -> list[str]:
    problems = []
    for setting in wanted:
        value = found.get(setting.name)
        if value is None or not setting.fits(value):
            problems.append(f"{where} setting {setting.name} is {value}, expected {setting.expected}")
    return problems
