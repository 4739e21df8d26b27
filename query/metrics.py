"""What query measures. Labels come from fixed lists, never from users' input."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from runtime.telemetry import REGISTRY

REQUEST_SECONDS: Final = Histogram(
    "logfeed_query_request_seconds",
    "Time from the request's head to its answer.",
    ["route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
LOGS_SHOWN: Final = Counter("logfeed_query_logs_shown", "Logs in answers.", registry=REGISTRY)
PAGES_UNFINISHED: Final = Counter("logfeed_query_pages_unfinished", "Pages ended by their budget.", registry=REGISTRY)
COUNTS_UNFINISHED: Final = Counter(
    "logfeed_query_counts_unfinished", "Histograms and facets ended by their budget.", registry=REGISTRY
)
EXPORTS_RUNNING: Final = Gauge(
    "logfeed_query_exports_running", "Exports over HTTP that are running.", registry=REGISTRY
)
EXPORTS_ENDED: Final = Counter(
    "logfeed_query_exports_ended",
    "Exports over HTTP that were completed (done) or not (cut).",
    ["outcome"],
    registry=REGISTRY,
)
SCANS_RUNNING: Final = Gauge("logfeed_query_scans_running", "Questions the database works on.", registry=REGISTRY)
SCANS_WAITING: Final = Gauge("logfeed_query_scans_waiting", "Questions that wait for a place.", registry=REGISTRY)
SCANS_REFUSED: Final = Counter(
    "logfeed_query_scans_refused",
    "Questions refused for want of a place, because of all questions or of the subject's own.",
    ["reason"],
    registry=REGISTRY,
)
SNAPSHOTS_LOST: Final = Counter("logfeed_query_snapshots_lost", "Snapshots taken anew after a drop.", registry=REGISTRY)
CURSORS_BEHIND: Final = Counter(
    "logfeed_query_cursors_behind", "Pages refused on an older snapshot.", registry=REGISTRY
)
CACHE_HITS: Final = Counter("logfeed_query_cache_hits", "Answers given from memory.", registry=REGISTRY)
CACHE_MISSES: Final = Counter(
    "logfeed_query_cache_misses", "Answers that could have been in memory.", registry=REGISTRY
)
NOT_MODIFIED: Final = Counter(
    "logfeed_query_not_modified", "Pages that the asker had already (304).", registry=REGISTRY
)
CACHE_BYTES: Final = Gauge("logfeed_query_cache_bytes", "Bytes of answers kept.", registry=REGISTRY)
