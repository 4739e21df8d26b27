"""What routing counts. Labels come from fixed lists, never from users' input."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from runtime.telemetry import REGISTRY

LEADS: Final = Gauge("logfeed_routes_leader", "1 while this process fills derived topics", registry=REGISTRY)
LOGS: Final = Counter("logfeed_routes_logs_total", "Logs that routes were held against", registry=REGISTRY)
RECORDS: Final = Counter("logfeed_routes_records_total", "Records in derived topics", registry=REGISTRY)
BEHIND: Final = Gauge("logfeed_routes_behind_seconds", "Age of what was read last, when it was read", registry=REGISTRY)
GAPS: Final = Counter(
    "logfeed_routes_gaps_total", "Times that records were gone before they were read", registry=REGISTRY
)
UNROUTED: Final = Counter(
    "logfeed_routes_unrouted_total", "Logs whose service got no topic: there are too many", registry=REGISTRY
)
FAILURES: Final = Counter("logfeed_routes_failures_total", "Sessions that failed and begin again", registry=REGISTRY)
