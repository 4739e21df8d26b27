"""What ingest measures. Labels come from configuration or fixed lists, never from producers' input."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from runtime.telemetry import REGISTRY

LOGS_RECEIVED: Final = Counter("logfeed_ingest_logs_received", "Logs in readable requests.", registry=REGISTRY)
LOGS_ACCEPTED: Final = Counter("logfeed_ingest_logs_accepted", "Logs acknowledged by the broker.", registry=REGISTRY)
LOGS_FILTERED: Final = Counter(
    "logfeed_ingest_logs_filtered", "Logs dropped by a filter.", ["filter"], registry=REGISTRY
)
LOGS_REJECTED: Final = Counter(
    "logfeed_ingest_logs_rejected", "Logs that were not valid.", ["reason"], registry=REGISTRY
)
REFUSALS: Final = Counter("logfeed_ingest_refusals", "Requests refused as a whole.", ["reason"], registry=REGISTRY)
RATE_LIMITED: Final = Counter(
    "logfeed_ingest_rate_limited",
    "Requests refused by a limit: key_logs, key_bytes, service_rates, or a filter's name.",
    ["limit"],
    registry=REGISTRY,
)
IN_FLIGHT_REFUSALS: Final = Counter(
    "logfeed_ingest_in_flight_refusals", "Requests refused for want of room for their bytes.", registry=REGISTRY
)
REQUEST_SECONDS: Final = Histogram(
    "logfeed_ingest_request_seconds",
    "Time from the request's head to its answer.",
    ["route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
PUBLISH_SECONDS: Final = Histogram(
    "logfeed_ingest_publish_seconds",
    "Time from handing a frame to the broker to its acknowledgement.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
BYTES_IN_FLIGHT: Final = Gauge(
    "logfeed_ingest_bytes_in_flight", "Decompressed bytes of requests under way.", registry=REGISTRY
)
FRAME_BYTES: Final = Counter("logfeed_ingest_frame_bytes", "Bytes of frames acknowledged.", registry=REGISTRY)
RETENTION_RISK: Final = Gauge(
    "logfeed_ingest_retention_risk_ratio",
    "Share of the broker's retention used up by unstored logs.",
    registry=REGISTRY,
)
KEYS_RETRIED: Final = Counter(
    "logfeed_ingest_keys_retried", "Requests with a key that was reserved before.", registry=REGISTRY
)
RESERVATIONS_SKIPPED: Final = Counter(
    "logfeed_ingest_reservations_skipped", "Keyed requests published without reservation.", registry=REGISTRY
)
