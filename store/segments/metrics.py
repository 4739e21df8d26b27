"""What segments measure. Labels come from fixed lists, never from users' input."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from runtime.telemetry import REGISTRY

FILTERS_UNREADABLE: Final = Counter(
    "logfeed_segment_filters_unreadable",
    "Questions to a correlation filter that was missing or damaged: its segment was asked.",
    registry=REGISTRY,
)
READERS_STARTED: Final = Counter("logfeed_segment_readers_started", "Reader processes started.", registry=REGISTRY)
READERS_KILLED: Final = Counter(
    "logfeed_segment_readers_killed", "Reader processes that did not answer in time.", registry=REGISTRY
)
READERS_STUCK: Final = Gauge(
    "logfeed_segment_readers_stuck",
    "Reader processes that were killed and do not end: a disk hangs. None is started in their place.",
    registry=REGISTRY,
)
SCANS_WAITING: Final = Gauge("logfeed_segment_scans_waiting", "Scans that wait for a reader.", registry=REGISTRY)
SCANS_REFUSED: Final = Counter(
    "logfeed_segment_scans_refused", "Scans refused for want of a reader.", registry=REGISTRY
)
SCAN_SECONDS: Final = Histogram(
    "logfeed_segment_scan_seconds",
    "Time of a scan, or of one turn of a scan that gives way to others, from being handed to a reader to its answer.",
    ["outcome"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
"""outcome: done, failed, cancelled."""
