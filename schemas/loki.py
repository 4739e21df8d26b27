"""Names that Loki's clients use for what our records have fields for: one table for who reads pushes and who answers."""

from __future__ import annotations

from typing import Final

SERVICE_LABELS: Final = ("service_name", "service", "app", "application", "name", "container", "component", "job")
"""Labels that say which service a stream is of; the first that a stream has counts."""
DEFAULT_SERVICE: Final = "unknown_service"
"""Of streams without any of them, as Loki has it."""
LEVEL_NAMES: Final = frozenset(
    {
        "level",
        "severity",
        "lvl",
        "log.level",
        "log_level",
        "loglevel",
        "severitytext",
        "severity_text",
        "detected_level",
    }
)
"""Labels and fields that say a level, in lower case: any case is taken."""
CORRELATION_LABELS: Final = ("correlation_id", "trace_id", "traceID", "traceId")
"""Labels and structured metadata that name a story, in this order."""
