"""What alerting counts."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from runtime.telemetry import REGISTRY

LEADS: Final = Gauge("logfeed_alerts_leader", "1 while this process evaluates rules", registry=REGISTRY)
RULES: Final = Gauge("logfeed_alerts_rules", "Rules in force", registry=REGISTRY)
FIRING: Final = Gauge("logfeed_alerts_firing", "Alerts that fire", registry=REGISTRY)
LOGS: Final = Counter("logfeed_alerts_logs_total", "Logs that rules were held against", registry=REGISTRY)
BEHIND: Final = Gauge("logfeed_alerts_behind_seconds", "Age of what was read last", registry=REGISTRY)
LATE: Final = Gauge(
    "logfeed_alerts_late_logs", "Logs that came too late for their rule's look", ["rule"], registry=REGISTRY
)
GAPS: Final = Counter(
    "logfeed_alerts_gaps_total", "Times that records were gone before they were read", registry=REGISTRY
)
DECISIONS: Final = Counter("logfeed_alerts_decisions_total", "Alerts that began or ended", ["state"], registry=REGISTRY)
NOTIFICATIONS: Final = Counter(
    "logfeed_alerts_notifications_total",
    "Attempts to send, by what came of them",
    ["channel", "outcome"],
    registry=REGISTRY,
)
WAITING: Final = Gauge("logfeed_alerts_waiting_notifications", "Notifications not yet sent", registry=REGISTRY)
BREAKERS_OPEN: Final = Gauge("logfeed_alerts_breakers_open", "Breakers that hold notifications back", registry=REGISTRY)
FAILURES: Final = Counter("logfeed_alerts_failures_total", "Steps that failed and are repeated", registry=REGISTRY)
