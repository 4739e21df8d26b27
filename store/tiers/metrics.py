"""What moving rows between tiers measures. Labels come from fixed lists and from retention classes."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from runtime.telemetry import REGISTRY

STEP_FAILURES: Final = Counter(
    "logfeed_tier_failures_total", "Steps of tiering that failed and are tried again.", ["step"], registry=REGISTRY
)
DISK_FULL: Final = Counter(
    "logfeed_tier_disk_full_total", "Steps of tiering that were put off for want of room.", ["step"], registry=REGISTRY
)
STEP_SECONDS: Final = Counter(
    "logfeed_tier_seconds_total", "Time spent in steps of tiering, rests included.", ["step"], registry=REGISTRY
)
WRITTEN_ROWS: Final = Counter(
    "logfeed_tier_written_rows_total", "Rows written to segments and read back.", ["source"], registry=REGISTRY
)
SWITCHED_TABLES: Final = Counter(
    "logfeed_tier_switched_tables_total", "Tables whose rows are served by segments from then on.", registry=REGISTRY
)
MOVED_BYTES: Final = Counter(
    "logfeed_tier_moved_bytes_total", "Bytes of segments that came to a tier.", ["tier"], registry=REGISTRY
)
EXPIRED_SEGMENTS: Final = Counter(
    "logfeed_tier_expired_segments_total", "Segments past their class's age.", registry=REGISTRY
)
DAMAGED_SEGMENTS: Final = Counter(
    "logfeed_tier_damaged_segments_total", "Segments found damaged or missing.", registry=REGISTRY
)
SEGMENTS: Final = Gauge("logfeed_tier_segments", "Segments in the catalogue.", ["tier", "state"], registry=REGISTRY)
SEGMENT_BYTES: Final = Gauge(
    "logfeed_tier_segment_bytes", "Bytes of segments in the catalogue.", ["tier", "state"], registry=REGISTRY
)
DUE_TABLES: Final = Gauge("logfeed_tier_due_tables", "Finished tables without segments.", registry=REGISTRY)
DUE_SECONDS: Final = Gauge(
    "logfeed_tier_due_seconds",
    "Age of the oldest finished table without segments; 0 when there is none.",
    registry=REGISTRY,
)
STRAYS: Final = Gauge(
    "logfeed_tier_strays",
    "Files and objects that the database does not know, kept for tiers.strays_kept_days.",
    ["kind"],
    registry=REGISTRY,
)
LEADING: Final = Gauge(
    "logfeed_tier_leading", "1 while this process moves rows, 0 while it stands by.", registry=REGISTRY
)
