"""What access control counts."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from runtime.telemetry import REGISTRY

REFUSALS: Final = Counter(
    "logfeed_access_refusals_total", "Requests refused by access control", ["reason"], registry=REGISTRY
)
LOGINS: Final = Counter("logfeed_access_logins_total", "Attempts to log in", ["outcome"], registry=REGISTRY)
CONFIRMED: Final = Gauge(
    "logfeed_access_confirmed_timestamp_seconds",
    "When the database last confirmed who may what",
    registry=REGISTRY,
)
AUDIT_WAITING: Final = Gauge("logfeed_audit_waiting_entries", "Audit entries not yet published", registry=REGISTRY)
AUDIT_ENTRIES: Final = Counter(
    "logfeed_audit_entries_total", "Audit entries by what became of them", ["outcome"], registry=REGISTRY
)
