"""Spans by OpenTelemetry's SDK: the only importer of `opentelemetry`, which is an extra (`logfeed[traces]`).

Which traces are kept is decided here before the SDK is asked, so that the others cost a comparison. The SDK sends from a
thread of its own, in batches out of a bounded queue; what does not fit is dropped, and nothing waits for the collector.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan

from runtime.traceparent import read_traceparent
from runtime.tracing import Kind, Span, Value
from runtime.tracing_settings import TracingSettings

SEND_EVERY_MS: Final = 1_000
_SEND_S: Final = 5.0
"""For one batch of spans, retries included."""
_CLOSE_S: Final = 5.0
_BATCH_SPANS: Final = 512
_ATTRIBUTES_MAX: Final = 32
_LINKS_MAX: Final = 128
_KINDS: Final = {
    Kind.SERVER: SpanKind.SERVER,
    Kind.PRODUCER: SpanKind.PRODUCER,
    Kind.CONSUMER: SpanKind.CONSUMER,
    Kind.INTERNAL: SpanKind.INTERNAL,
}


class OtelTraces:
    """Implements runtime.tracing.Traces; one per process."""

    def __init__(
        self, settings: TracingSettings, *, role: str, instance: str, chance: Callable[[], float] = random.random
    ) -> None:
        """settings: with an endpoint. role, instance: what spans say of this process. chance: uniform in [0, 1)."""
        secret = settings.authorization
        exporter = OTLPSpanExporter(
            endpoint=settings.endpoint,
            headers={} if secret is None else {"Authorization": secret.get_secret_value()},
            timeout=_SEND_S,
        )
        resource = Resource.create(
            {"service.namespace": "logfeed", "service.name": f"logfeed-{role}", "service.instance.id": instance}
        )
        limits = SpanLimits(max_span_attributes=_ATTRIBUTES_MAX, max_links=_LINKS_MAX)
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, span_limits=limits, shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=settings.queue_spans_max,
                schedule_delay_millis=SEND_EVERY_MS,
                max_export_batch_size=min(_BATCH_SPANS, settings.queue_spans_max),
            )
        )
        self._tracer = self._provider.get_tracer("logfeed")
        self._ratio = settings.ratio
        self._callers_decide = settings.callers_decide
        self._chance = chance

    def begin(
        self,
        name: str,
        kind: Kind,
        *,
        parent: str | None = None,
        links: Sequence[str] = (),
        at_us: int | None = None,
        values: Mapping[str, Value] | None = None,
    ) -> Span | None:
        """See Traces."""
        above = _context_of(parent)
        linked = [Link(each) for each in map(_context_of, links) if each is not None and each.trace_flags.sampled]
        if above is not None and (self._callers_decide or kind is not Kind.SERVER):
            is_kept = above.trace_flags.sampled
        else:
            is_kept = bool(linked) or self._chance() < self._ratio
        if not is_kept:
            return None
        span = self._tracer.start_span(
            name,
            context=set_span_in_context(INVALID_SPAN if above is None else NonRecordingSpan(above)),
            kind=_KINDS[kind],
            links=linked,
            attributes=values,
            start_time=None if at_us is None else at_us * 1000,
        )
        return _Span(span, self._tracer)

    async def close(self) -> None:
        """See Traces. A collector that does not answer is left behind with what was for it."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, _CLOSE_S)


class _Span:
    """Implements runtime.tracing.Span."""

    __slots__ = ("_span", "_tracer", "is_over", "span_id", "trace_id")

    def __init__(self, span: OtelSpan, tracer: Tracer) -> None:
        self._span = span
        self._tracer = tracer
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}"
        self.span_id = f"{context.span_id:016x}"
        self.is_over = False

    def below(self, name: str, kind: Kind = Kind.INTERNAL) -> Span:
        """See Span."""
        started = self._tracer.start_span(name, context=set_span_in_context(self._span), kind=_KINDS[kind])
        return _Span(started, self._tracer)

    def note(self, **values: Value) -> None:
        """See Span."""
        for name, value in values.items():
            self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        """See Span."""
        self._span.update_name(name)

    def end(self, *, error: str | None = None, at_us: int | None = None) -> None:
        """See Span."""
        if self.is_over:
            return
        self.is_over = True
        if error is not None:
            self._span.set_status(StatusCode.ERROR, error)
        self._span.end(None if at_us is None else at_us * 1000)


def _context_of(traceparent: str | None) -> SpanContext | None:
    found = read_traceparent(traceparent)
    if found is None:
        return None
    trace_id, span_id, flags = found
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(flags))
