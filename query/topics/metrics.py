"""What readers of derived topics over HTTP bring about."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from runtime.telemetry import REGISTRY

READS: Final = Gauge("logfeed_topic_reads", "Requests for records that are answered or wait", registry=REGISTRY)
SENT: Final = Counter("logfeed_topic_records_sent_total", "Records of derived topics sent over HTTP", registry=REGISTRY)
REFUSED: Final = Counter(
    "logfeed_topic_reads_refused_total", "Requests for records refused, by whose limit", ["reason"], registry=REGISTRY
)
