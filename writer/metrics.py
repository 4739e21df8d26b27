"""What the writer counts."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from runtime.telemetry import REGISTRY

ROWS_STORED: Final = Counter("logfeed_rows_stored_total", "Rows stored", registry=REGISTRY)
FRAMES_STORED: Final = Counter("logfeed_frames_stored_total", "Frames stored", registry=REGISTRY)
DUPLICATE_LOGS: Final = Counter(
    "logfeed_duplicate_logs_total", "Logs of repeated requests, not stored", registry=REGISTRY
)
DEAD_LETTERS: Final = Counter("logfeed_dead_letters_total", "Lines put aside", ["reason"], registry=REGISTRY)
FENCED: Final = Counter(
    "logfeed_fenced_total", "Times a writer found partitions that it believed to hold with another", registry=REGISTRY
)
RETRIED: Final = Counter("logfeed_batches_retried_total", "Batches planned again", ["reason"], registry=REGISTRY)
LAG_RECORDS: Final = Gauge("logfeed_lag_records", "Frames not stored yet", ["partition"], registry=REGISTRY)
STORED_TO: Final = Gauge(
    "logfeed_stored_to_timestamp_seconds",
    "Everything that was appended to the partition before is stored, and seen by pages; seconds since the Unix epoch",
    ["partition"],
    registry=REGISTRY,
)
GROUP_COMMITS_FAILED: Final = Counter(
    "logfeed_group_commits_failed_total", "Times the broker was not told how far is stored", registry=REGISTRY
)
HALTED: Final = Gauge("logfeed_partitions_halted", "Partitions that an operator must look at", registry=REGISTRY)
AWAY: Final = Gauge(
    "logfeed_partitions_away",
    "Partitions that have no leader now, or one that does not answer; the others go on",
    registry=REGISTRY,
)
TAKEN_BACK: Final = Counter(
    "logfeed_partitions_taken_back_total",
    "Times the database was behind what a writer had stored in a partition, which it then read again: a failover, a crash",
    registry=REGISTRY,
)
BROKER_PROBLEMS: Final = Gauge(
    "logfeed_broker_problems",
    "Settings of the broker that could lose logs, and whatever else a start would be refused for now",
    registry=REGISTRY,
)
TROUBLE: Final = Counter(
    "logfeed_partition_trouble_total",
    "Times a partition's log was not what was expected; seen thrice in a row it halts",
    ["kind"],
    registry=REGISTRY,
)
BATCH_ROWS: Final = Histogram(
    "logfeed_batch_rows",
    "Rows of one transaction",
    registry=REGISTRY,
    buckets=(1, 10, 100, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000),
)
DECODE_SECONDS: Final = Counter(
    "logfeed_decode_seconds_total", "Time in which frames became rows, beside the storing of others", registry=REGISTRY
)
BATCH_SECONDS: Final = Histogram(
    "logfeed_batch_store_seconds",
    "One transaction",
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
