"""How long the stages of a batch take in the database."""

from __future__ import annotations

from typing import Final

from prometheus_client import Histogram

from runtime.telemetry import REGISTRY

_STAGE_SECONDS: Final = Histogram(
    "logfeed_batch_stage_seconds",
    "A stage of one transaction: copy (the rows), commit (keys, ledger, offsets, COMMIT).",
    ["stage"],
    registry=REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
COPY_SECONDS: Final = _STAGE_SECONDS.labels("copy")
COMMIT_SECONDS: Final = _STAGE_SECONDS.labels("commit")
