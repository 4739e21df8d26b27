"""What a canary that runs on and on tells Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from cli.canary.oracle import Verdict
from runtime.telemetry import REGISTRY

SENT: Final = Counter("logfeed_canary_sent_total", "Logs sent", registry=REGISTRY)
ACKNOWLEDGED: Final = Counter("logfeed_canary_acknowledged_total", "Logs acknowledged", registry=REGISTRY)
UNACKNOWLEDGED: Final = Counter(
    "logfeed_canary_unacknowledged_total", "Logs whose acknowledgement was waited for in vain", registry=REGISTRY
)
SEEN: Final = Counter("logfeed_canary_seen_total", "Logs read back", ["way"], registry=REGISTRY)
LOST: Final = Gauge(
    "logfeed_canary_lost_logs",
    "Acknowledged logs of this run that were not read back in time",
    ["way"],
    registry=REGISTRY,
)
LATE: Final = Counter("logfeed_canary_late_total", "Logs that were read back after all", registry=REGISTRY)
WRONG: Final = Gauge(
    "logfeed_canary_wrong_logs",
    "Logs of this run that are there more than once (repeated), shown again by the tail (tail_repeated), were never sent"
    " (unsent), are not what was sent (altered), or were out of order in pages (out_of_order)",
    ["what"],
    registry=REGISTRY,
)
WAITING: Final = Gauge("logfeed_canary_waiting_logs", "Logs not read back yet", registry=REGISTRY)
OLDEST: Final = Gauge(
    "logfeed_canary_oldest_waiting_seconds", "Age of the oldest log not read back yet", registry=REGISTRY
)
DELAY: Final = Histogram(
    "logfeed_canary_delay_seconds",
    "From sending a log to its acknowledgement (ack) or to reading it back (pages, tail)",
    ["way"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    registry=REGISTRY,
)


class Shown:
    """Brings the metrics to a verdict."""

    def __init__(self) -> None:
        self._last: Verdict | None = None

    def update(self, now: Verdict) -> None:
        """Verdicts of one run, each later than the one before."""
        last = self._last
        self._last = now
        SENT.inc(now.sent - (last.sent if last else 0))
        ACKNOWLEDGED.inc(now.acknowledged - (last.acknowledged if last else 0))
        UNACKNOWLEDGED.inc(now.unacknowledged - (last.unacknowledged if last else 0))
        LATE.inc(now.late - (last.late if last else 0))
        for way, count in now.seen.items():
            SEEN.labels(way).inc(count - (last.seen[way] if last else 0))
        for way, count in now.lost.items():
            LOST.labels(way).set(count)
        wrong = {
            "repeated": now.repeated.get("pages", 0),
            "tail_repeated": now.repeated.get("tail", 0),
            "unsent": now.unsent,
            "altered": now.altered,
            "out_of_order": now.out_of_order,
        }
        for what, count in wrong.items():
            WRONG.labels(what).set(count)
        WAITING.set(now.waiting)
        OLDEST.set(now.oldest_waiting_s)
