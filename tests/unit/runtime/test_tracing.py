"""Spans: steps go below what is under way, cost nothing where nothing is, and are kept as callers and the ratio say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from starlette.types import Message, Receive, Scope, Send

from cli.tracing import make_traces
from runtime import telemetry
from runtime.otel import OtelTraces
from runtime.request_spans import RequestSpans
from runtime.tracing import UNTRACED, Kind, current, step, traceparent_of_span, under
from runtime.tracing_settings import TracingSettings
from tests.noted_spans import Noted, NotedTraces

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
NOBODY = "http://127.0.0.1:9/v1/traces"


def test_without_a_span_a_step_is_nothing() -> None:
    assert step("anything") is UNTRACED
    with step("anything") as span:
        assert span is None
    assert traceparent_of_span(None) is None


def test_steps_go_below_what_is_under_way_and_say_what_ended_them() -> None:
    top = Noted("top")
    with pytest.raises(ValueError, match="secret"):
        with under(top), step("inner"), step("innermost"):
            raise ValueError("a secret")
    (inner,) = top.inner
    (innermost,) = inner.inner
    assert [each.error for each in (top, inner, innermost)] == ["ValueError"] * 3, "its kind, not its text"
    assert current() is None


async def test_a_task_that_outlives_its_request_adds_nothing_to_it() -> None:
    top, goes_on = Noted("top"), asyncio.Event()

    async def outlive() -> bool:
        await goes_on.wait()
        return step("late") is UNTRACED and current() is None

    with under(top):
        task = asyncio.create_task(outlive())
        await asyncio.sleep(0)
    goes_on.set()
    assert await task
    assert top.inner == []


async def answered(
    traces: NotedTraces, path: str, *headers: bytes, status: int = 200, route: str | None = None
) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if route is not None:
            scope["route"] = type("Route", (), {"path_format": route})()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    async def nothing(*_: Message) -> Any:  # both sides of ASGI
        return None

    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"traceparent", each) for each in headers]}
    await RequestSpans(traces).run(application, scope, nothing, nothing)


async def test_a_request_is_named_by_its_route_and_never_by_its_path() -> None:
    traces = NotedTraces()
    await answered(traces, "/api/v1/logs/77", CALLER.encode() + b"-01", route="/api/v1/logs/{log_id}")
    (span,) = traces.begun
    assert (span.name, span.is_over, span.error) == ("GET /api/v1/logs/{log_id}", True, None)
    assert span.values["http.response.status_code"] == 200
    assert "77" not in str(span)
    assert traces.parents == [f"{CALLER}-01"]


async def test_a_failed_request_says_so_and_probes_are_no_requests() -> None:
    traces = NotedTraces()
    await answered(traces, "/readyz")
    await answered(traces, "/assets/index.js")
    await answered(traces, "/api/v1/logs", b"one", b"two", status=503)
    assert [(span.name, span.error) for span in traces.begun] == [("GET", "503")]
    assert traces.parents == [None], "of two headers none counts"


@pytest.mark.parametrize(
    ("parent", "ratio", "callers_decide", "is_kept"),
    [
        (f"{CALLER}-01", 0.0, True, True),
        (f"{CALLER}-00", 1.0, True, False),
        (f"{CALLER}-01", 0.0, False, False),
        (f"{CALLER}-00", 1.0, False, True),
        (None, 0.5, True, True),
        (None, 0.4, True, False),
        ("malformed", 0.5, True, True),
        ("malformed", 0.4, True, False),
    ],
)
async def test_which_requests_are_kept(parent: str | None, ratio: float, callers_decide: bool, is_kept: bool) -> None:
    settings = TracingSettings(endpoint=NOBODY, ratio=ratio, callers_decide=callers_decide)
    traces = OtelTraces(settings, role="test", instance="test", chance=lambda: 0.45)
    span = traces.begin("GET", Kind.SERVER, parent=parent)
    assert (span is not None) == is_kept
    if span is not None and parent is not None and parent != "malformed":
        assert span.trace_id == CALLER.split("-")[1]


async def test_a_batch_is_kept_where_a_frame_of_it_is() -> None:
    settings = TracingSettings(endpoint=NOBODY, ratio=0, callers_decide=False)
    traces = OtelTraces(settings, role="test", instance="test")
    assert traces.begin("store batch", Kind.CONSUMER) is None
    assert traces.begin("store batch", Kind.CONSUMER, links=[f"{CALLER}-00", "malformed"]) is None
    span = traces.begin("store batch", Kind.CONSUMER, links=[f"{CALLER}-01"])
    assert span is not None
    assert span.trace_id != CALLER.split("-")[1]
    assert traces.begin("store", Kind.CONSUMER, parent=f"{CALLER}-01") is not None


async def test_a_collector_that_is_away_costs_its_spans_and_nothing_else() -> None:
    traces = OtelTraces(TracingSettings(endpoint=NOBODY, ratio=1, queue_spans_max=64), role="test", instance="test")
    for _ in range(200):
        with under(traces.begin("GET", Kind.SERVER)), step("inner") as span:
            assert span is not None
    await traces.close()  # ends, though nobody answers


def test_nothing_is_traced_unless_somebody_says_where() -> None:
    assert make_traces(TracingSettings(ratio=1), "test", "test") is None
    with pytest.raises(ValueError, match="expected http://host:port/v1/traces"):
        TracingSettings(endpoint="collector:4318")


def test_own_logs_name_the_trace_that_they_belong_to() -> None:
    def processed(event: str) -> Any:
        found: structlog.typing.EventDict = {"event": event}
        return telemetry._add_trace(None, "info", found)

    with under(Noted("top", trace_id="c" * 32, span_id="d" * 16)):
        assert processed("inside") == {"event": "inside", "trace_id": "c" * 32, "span_id": "d" * 16}
    assert processed("outside") == {"event": "outside"}
