"""Traces of a process, where they are switched on."""

from __future__ import annotations

from runtime.tracing import Traces
from runtime.tracing_settings import TracingSettings
from schemas.errors import ConfigurationError


def make_traces(settings: TracingSettings, role: str, instance: str) -> Traces | None:
    """What sends spans, closed by the caller; None where nothing is traced. Raises ConfigurationError where the extra is not
    installed."""
    if settings.endpoint is None:
        return None
    try:
        from runtime.otel import OtelTraces
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"tracing.endpoint is set, and {error.name} is not installed: pip install 'logfeed[traces]' (from a checkout: make"
            " install-traces)"
        ) from error
    return OtelTraces(settings, role=role, instance=instance)
