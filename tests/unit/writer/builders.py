"""Frames for tests, made by the real encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from broker.port import Delivered
from schemas.frames import FrameHeader, ServiceCounts, encode_headers, encode_lines
from schemas.record import Log

NOON_MS = 1_767_268_800_000  # 2026-01-01T12:00:00Z


def log(number: int, *, service: str = "shop", level: int = 9, timestamp_us: int = NOON_MS * 1000) -> Log:
    """One log; `number` is its id and in its message."""
    return Log(
        id=number,
        timestamp=timestamp_us,
        level=level,
        service_name=service,
        message=f"message {number}",
        correlation_id=None,
        metadata={"n": number},
    )


def header(
    logs: Sequence[Log], *, frame_id: int = 1, key: str | None = None, body: str = "", received_ms: int = NOON_MS
) -> FrameHeader:
    """A frame's header whose counts say that every log was kept."""
    counts: dict[str, ServiceCounts] = {}
    for one in logs:
        counts.setdefault(one.service_name, ServiceCounts()).received += 1
    return FrameHeader(
        frame_id=frame_id.to_bytes(16, "big"),
        received_ms=received_ms,
        counts=counts,
        key_hash=hashlib.sha256(key.encode()).digest() if key is not None else None,
        body_sha256=hashlib.sha256(body.encode()).digest() if key is not None else None,
    )


def delivered(
    head: FrameHeader, value: bytes, *, partition: int = 0, offset: int = 0, append_ms: int = NOON_MS
) -> Delivered:
    """The record as a reader would return it."""
    return Delivered(partition=partition, offset=offset, append_ms=append_ms, headers=encode_headers(head), value=value)


def frame(
    logs: list[Log],
    *,
    partition: int = 0,
    offset: int = 0,
    frame_id: int | None = None,
    key: str | None = None,
    body: str = "",
) -> Delivered:
    """A delivered frame of logs that were all kept."""
    head = header(logs, frame_id=offset + 1 if frame_id is None else frame_id, key=key, body=body)
    return delivered(head, encode_lines(logs), partition=partition, offset=offset)
