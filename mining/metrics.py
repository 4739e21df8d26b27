"""What mining counts."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from runtime.telemetry import REGISTRY

LEADS: Final = Gauge("logfeed_patterns_leader", "1 while this process counts patterns", registry=REGISTRY)
LOGS: Final = Counter("logfeed_patterns_logs_total", "Logs whose patterns were counted", registry=REGISTRY)
BEHIND: Final = Gauge("logfeed_patterns_behind_seconds", "Age of what was counted last", registry=REGISTRY)
GAPS: Final = Counter(
    "logfeed_patterns_gaps_total", "Times that records were gone before they were counted", registry=REGISTRY
)
KNOWN: Final = Gauge("logfeed_patterns_known", "Patterns that the miner knows", registry=REGISTRY)
EVICTED: Final = Gauge("logfeed_patterns_evicted", "Patterns that the miner has let go, ever", registry=REGISTRY)
FAILURES: Final = Counter("logfeed_patterns_failures_total", "Steps that failed and are repeated", registry=REGISTRY)
