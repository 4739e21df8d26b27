"""Settings of tracing, the same for every role."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from runtime.settings import Section


class TracingSettings(Section):
    """Spans of requests and batches, sent to a collector over OTLP/HTTP (docs/tracing.md)."""

    endpoint: str | None = None
    """Where spans are sent: http://collector:4318/v1/traces. Empty: nothing is traced. Needs the extra `traces`."""
    ratio: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of requests that are traced, of those whose caller does not say."""
    callers_decide: bool = True
    """Whether a request that comes with a `traceparent` is traced as its caller says; otherwise by `ratio`, too."""
    authorization: SecretStr | None = None
    """Header Authorization for the collector; empty sends none."""
    queue_spans_max: Annotated[int, Field(ge=64, le=65_536)] = 2_048
    """Spans that wait to be sent, about 2 KB each; past it they are dropped."""

    @field_validator("endpoint")
    @classmethod
    def _is_address(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise ValueError("expected http://host:port/v1/traces")
        return endpoint
