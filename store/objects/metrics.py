"""What object storage and its cache measure. Labels come from fixed lists, never from keys."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from runtime.telemetry import REGISTRY

CALL_SECONDS: Final = Histogram(
    "logfeed_object_store_call_seconds",
    "Time of calls of the object storage, retries and waiting for a place included.",
    ["operation"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1200),
    registry=REGISTRY,
)
FAILURES: Final = Counter(
    "logfeed_object_store_failures",
    "Calls of the object storage that failed: missing, damaged, unavailable, refused.",
    ["operation", "reason"],
    registry=REGISTRY,
)
MOVED_BYTES: Final = Counter(
    "logfeed_object_store_moved_bytes", "Bytes of objects moved as a whole.", ["operation"], registry=REGISTRY
)
TRANSFERS_RUNNING: Final = Gauge("logfeed_object_store_transfers_running", "Objects being moved.", registry=REGISTRY)
CACHE_REQUESTS: Final = Counter(
    "logfeed_object_cache_requests",
    "Files asked of the cache: hit (it was there), shared (another was fetching it), miss.",
    ["outcome"],
    registry=REGISTRY,
)
CACHE_FAILURES: Final = Counter(
    "logfeed_object_cache_failures",
    "Files the cache could not give: missing, damaged, unavailable, refused, disk_full, too_large.",
    ["reason"],
    registry=REGISTRY,
)
CACHE_BYTES: Final = Gauge(
    "logfeed_object_cache_bytes", "Bytes of files in the cache, those under way included.", registry=REGISTRY
)
CACHE_PINNED_BYTES: Final = Gauge(
    "logfeed_object_cache_pinned_bytes", "Bytes of files in the cache that are in use.", registry=REGISTRY
)
CACHE_FILES: Final = Gauge("logfeed_object_cache_files", "Files in the cache.", registry=REGISTRY)
CACHE_EVICTIONS: Final = Counter(
    "logfeed_object_cache_evictions", "Files that made room for others.", registry=REGISTRY
)
CACHE_SPOILED: Final = Counter(
    "logfeed_object_cache_spoiled", "Files of the cache found gone or changed, and fetched anew.", registry=REGISTRY
)
