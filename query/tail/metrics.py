"""What tails measure. Labels come from fixed lists, never from users' input."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from runtime.telemetry import REGISTRY

TAILS: Final = Gauge("logfeed_tails", "Tails that are open", ["transport"], registry=REGISTRY)
GROUPS: Final = Gauge("logfeed_tail_questions", "Different questions and rights among open tails", registry=REGISTRY)
SENT: Final = Counter("logfeed_tail_logs_total", "Logs given to tails", registry=REGISTRY)
SKIPPED: Final = Counter("logfeed_tail_skipped_total", "Logs that clients did not take in time", registry=REGISTRY)
QUEUED: Final = Gauge("logfeed_tail_queued_bytes", "Bytes of logs that wait for clients", registry=REGISTRY)
ENDED: Final = Counter("logfeed_tails_ended_total", "Tails that ended from here", ["reason"], registry=REGISTRY)
REFUSED: Final = Counter("logfeed_tails_refused_total", "Tails that were not begun", ["reason"], registry=REGISTRY)
