"""What the agent counts."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from runtime.telemetry import REGISTRY

READERS: Final = Gauge("logfeed_agent_readers", "Files being read for somebody now", registry=REGISTRY)
READERS_REFUSED: Final = Counter(
    "logfeed_agent_readers_refused_total", "Questions refused since too many files were being read", registry=REGISTRY
)
LINES: Final = Counter("logfeed_agent_logs_total", "Logs sent, by what became of them", ["outcome"], registry=REGISTRY)
BYTES: Final = Counter("logfeed_agent_read_bytes_total", "Bytes of files read to be sent", registry=REGISTRY)
BATCHES_RETRIED: Final = Counter(
    "logfeed_agent_batches_retried_total", "Times that a batch was sent again", registry=REGISTRY
)
FILES_LOST: Final = Counter(
    "logfeed_agent_files_lost_total",
    "Files that were removed, or truncated without a copy, before their end was seen",
    registry=REGISTRY,
)
UNREADABLE: Final = Gauge(
    "logfeed_agent_unreadable_files", "Files to be sent that this account may not open", registry=REGISTRY
)
FILES: Final = Gauge("logfeed_agent_files", "Files whose lines are sent", registry=REGISTRY)
LAG_BYTES: Final = Gauge("logfeed_agent_lag_bytes", "Bytes in files that are not read yet", registry=REGISTRY)
AWAY_SECONDS: Final = Gauge(
    "logfeed_agent_server_away_seconds",
    "Seconds for which the server has taken no batch, 0: it does",
    registry=REGISTRY,
)
SYSLOG: Final = Counter(
    "logfeed_agent_syslog_messages_total", "Syslog messages, by what became of them", ["outcome"], registry=REGISTRY
)
SYSLOG_REFUSED: Final = Counter(
    "logfeed_agent_syslog_connections_refused_total",
    "Connections closed at once: as many as may be were open (agent.syslog.connections_max)",
    registry=REGISTRY,
)
SPOOL_BYTES: Final = Gauge(
    "logfeed_agent_syslog_spool_bytes", "Bytes of syslog messages on disk, waiting to be sent", registry=REGISTRY
)
HEARTBEATS: Final = Counter(
    "logfeed_agent_heartbeats_total", "Heartbeats to the server", ["outcome"], registry=REGISTRY
)
