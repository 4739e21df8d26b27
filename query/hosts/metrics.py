"""What reading files of hosts measures. Labels come from fixed lists, never from users' input."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from runtime.telemetry import REGISTRY

ASKED: Final = Gauge("logfeed_host_questions", "Questions to agents of hosts that are under way", registry=REGISTRY)
REFUSED: Final = Counter(
    "logfeed_host_questions_refused_total", "Questions to agents that were not begun", ["reason"], registry=REGISTRY
)
ENDED: Final = Counter(
    "logfeed_host_reads_total", "Reads of files on hosts by their end", ["status"], registry=REGISTRY
)
BYTES: Final = Counter(
    "logfeed_host_read_bytes_total", "Bytes of files on hosts that were passed on", registry=REGISTRY
)
