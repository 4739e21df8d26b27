"""The formats there are: one line each."""

from __future__ import annotations

from ingest.api import TakesLogs
from ingest.wire.elastic.routes import add_elastic
from ingest.wire.loki.routes import add_loki
from ingest.wire.otlp.format import add_otlp
from runtime.direct import DirectRouter


def add_formats(router: DirectRouter, service: TakesLogs) -> None:
    """The routes of every format."""
    add_elastic(router, service)
    add_loki(router, service)
    add_otlp(router, service)
