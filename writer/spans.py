"""Spans of what a writer does with frames whose traces are kept.

A batch holds frames of many requests, so it is a trace of its own: plan, COPY and COMMIT below it, links to the spans that
published the frames. And so that a request's own trace goes on to the moment its logs are visible, each such frame gets two
spans there: `decode`, and `store`, from its being appended to the COMMIT, with a link to the batch. At most FRAMES_MAX of a
batch: one that is full of traced requests costs no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from broker.port import Delivered
from runtime.clock import Clock
from runtime.tracing import Kind, Traces, traceparent_of_span, under
from writer.decode import DecodedFrame, decode_frame

FRAMES_MAX: Final = 64


class BatchSpans:
    """Spans of one writer."""

    def __init__(self, traces: Traces, clock: Clock) -> None:
        """traces: closed by the caller."""
        self._traces = traces
        self._clock = clock

    def decoded(self, record: Delivered) -> DecodedFrame:
        """See decode_frame."""
        began_us = self._clock.now_us()
        frame = decode_frame(record)
        if frame.traceparent is not None:
            span = self._traces.begin(
                "decode",
                Kind.CONSUMER,
                parent=frame.traceparent,
                at_us=began_us,
                values={"rows": len(frame.rows), "partition": frame.partition},
            )
            if span is not None:
                span.end(at_us=self._clock.now_us())
        return frame

    @contextmanager
    def batch(self, frames: Sequence[DecodedFrame]) -> Iterator[None]:
        """Around the storing of a batch; nothing where none of its frames is traced."""
        traced = [(frame.traceparent, frame.append_ms) for frame in frames if frame.traceparent is not None][
            :FRAMES_MAX
        ]
        if not traced:
            yield
            return
        span = self._traces.begin(
            "store batch",
            Kind.CONSUMER,
            links=[traceparent for traceparent, _ in traced],
            values={
                "frames": len(frames),
                "rows": sum(len(frame.rows) for frame in frames),
                "partitions": len({frame.partition for frame in frames}),
            },
        )
        link = traceparent_of_span(span)
        with under(span):
            yield
        for traceparent, append_ms in traced:
            stored = self._traces.begin(
                "store",
                Kind.CONSUMER,
                parent=traceparent,
                links=[] if link is None else [link],
                at_us=append_ms * 1000,
            )
            if stored is not None:
                stored.end(at_us=self._clock.now_us())
