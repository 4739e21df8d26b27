"""Our own logs and metrics: structlog to standard error, Prometheus metrics from one registry per process."""

from __future__ import annotations

import logging
import sys
from typing import Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client import generate_latest as _generate_latest

from runtime.sparing import SparingFilter
from runtime.tracing import current

REGISTRY: Final = CollectorRegistry()
"""Every metric of ours is registered here; names start with `logfeed_` and end in a unit."""

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)


def configure_logging(*, level: str = "info", json_lines: bool | None = None, role: str | None = None) -> None:
    """Send our logs to standard error: coloured text on a terminal, JSON lines elsewhere (or as json_lines says).

    level: debug, info, warning or error. What libraries log from warnings up is written in the same form, repeated lines once
    a minute.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    as_json = not sys.stderr.isatty() if json_lines is None else json_lines
    # Tracebacks without local variables: those hold secrets.
    rendering: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    libraries = logging.StreamHandler(sys.stderr)
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    libraries.addFilter(SparingFilter())
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[libraries])
    if role is not None:
        structlog.contextvars.bind_contextvars(role=role)


def _add_trace(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Which trace a line belongs to, where one is kept."""
    span = current()
    if span is not None:
        event["trace_id"], event["span_id"] = span.trace_id, span.span_id
    return event


def render_metrics() -> tuple[bytes, str]:
    """(body, content type) of /metrics."""
    return _generate_latest(REGISTRY), CONTENT_TYPE_LATEST
