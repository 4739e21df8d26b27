"""What reading across tiers measures."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from runtime.telemetry import REGISTRY

SEGMENTS_DAMAGED: Final = Counter(
    "logfeed_tier_damaged_reads", "Questions that met a damaged file of rows.", registry=REGISTRY
)
SEGMENTS_GONE: Final = Counter(
    "logfeed_tier_missing_reads", "Questions that met a file of rows that was not there.", registry=REGISTRY
)
SCANS_WITH_SEGMENTS: Final = Counter(
    "logfeed_tier_scans", "Scans that asked files of rows.", ["beside"], registry=REGISTRY
)
"""beside: tables (asked as well), nothing."""
