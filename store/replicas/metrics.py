"""What reading from replicas measures. A replica's label is its number in the settings, from 1 on."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from runtime.telemetry import REGISTRY

SNAPSHOTS: Final = Counter(
    "logfeed_query_snapshots", "Snapshots that questions were answered from, by server.", ["server"], registry=REGISTRY
)
"""server: primary, replica."""
FALLBACKS: Final = Counter(
    "logfeed_query_replica_fallbacks",
    "Questions that a replica was asked and another server answered.",
    ["reason"],
    registry=REGISTRY,
)
"""reason: behind (the cursor's first page), away (it could not be asked), broken (it ended the question)."""
IS_USED: Final = Gauge(
    "logfeed_replica_used", "1 while a replica may answer questions of this process.", ["replica"], registry=REGISTRY
)
BEHIND_S: Final = Gauge(
    "logfeed_replica_behind_seconds",
    "Everything that the primary had so long ago is on the replica; NaN: not known.",
    ["replica"],
    registry=REGISTRY,
)
