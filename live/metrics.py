"""What following the broker counts. Labels come from fixed lists, never from users' input."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from runtime.telemetry import REGISTRY

LOGS: Final = Counter("logfeed_live_logs_total", "Logs read at the broker's live end", registry=REGISTRY)
REPEATS: Final = Counter(
    "logfeed_live_repeats_total", "Frames left out: copies of a request, or reuses of its key", registry=REGISTRY
)
SKIPPED: Final = Counter(
    "logfeed_live_skipped_total",
    "Records and lines left out that the writers put aside",
    ["what"],
    registry=REGISTRY,
)
GAPS: Final = Counter(
    "logfeed_live_gaps_total", "Stretches of offsets that could not be read", ["reason"], registry=REGISTRY
)
CATCH_UPS: Final = Gauge("logfeed_live_catch_ups", "Subscribers that read older offsets now", registry=REGISTRY)
SUBSCRIBERS: Final = Gauge("logfeed_live_subscribers", "Who is given what comes in", registry=REGISTRY)
