"""Spans: what becomes of a request, step by step, where tracing is on.

The span under way is a context variable. Who begins a trace (the HTTP application, the writer) is given `Traces`; whatever
happens below names its steps with `step`, which takes no argument along and knows no library. Where nothing is traced a step
is one look at that variable, 0.4 µs; tasks that a traced request starts inherit it, and a task that outlives its request adds
nothing, since a span that has ended begins no others.

A span says what happened and how much of it, never what was in it: no texts of logs, names of services, ids or addresses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from enum import Enum
from types import TracebackType
from typing import Final, Protocol

Value = str | int | float | bool
TRACEPARENT_CHARS: Final = 55
"""Of a `traceparent` of ours (W3C Trace Context, version 00)."""


class Kind(Enum):
    """What a span is to those at its other end."""

    SERVER = "server"
    PRODUCER = "producer"
    CONSUMER = "consumer"
    INTERNAL = "internal"


class Span(Protocol):
    """A step under way. Not safe for several threads."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""

    def below(self, name: str, kind: Kind = Kind.INTERNAL) -> Span:
        """A step of this one, begun now."""

    def note(self, **values: Value) -> None:
        """Say more of it: `rows=412`."""

    def rename(self, name: str) -> None:
        """Once it is known what it is."""

    def end(self, *, error: str | None = None, at_us: int | None = None) -> None:
        """It is over. error: the kind of what went wrong. at_us: Unix microseconds; None: now."""


class Traces(Protocol):
    """Where spans go. Must never raise, nor wait for whoever collects them."""

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
        """The first span of this process in a trace; None when this trace is not among those that are kept.

        parent, links: as `traceparent` carries them, malformed ones count as none. With a parent the parent decides
        whether it is kept, with links their being there does. at_us: when it began, Unix microseconds; None: now.
        """

    async def close(self) -> None:
        """Send what waits, for seconds at most."""


_current: ContextVar[Span | None] = ContextVar("logfeed_span", default=None)


def current() -> Span | None:
    """The span under way, where there is one."""
    span = _current.get()
    return None if span is None or span.is_over else span


def traceparent_of_span(span: Span | None) -> str | None:
    """What tells the next process of a span that is kept."""
    return None if span is None else f"00-{span.trace_id}-{span.span_id}-01"


class Under:
    """A context in which the span is the one under way; ends it. An exception that leaves is its error, by its class alone."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Span | None] | None = None

    def __enter__(self) -> Span:
        self._token = _current.set(self._span)
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._token is not None, "entered before"
        _current.reset(self._token)
        self._span.end(error=None if kind is None else kind.__name__)


class _Untraced:
    """Instead of `Under`, where nothing is traced."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


UNTRACED: Final = _Untraced()


def under(span: Span | None) -> Under | _Untraced:
    """See Under; nothing for None."""
    return UNTRACED if span is None else Under(span)


def step(name: str, kind: Kind = Kind.INTERNAL) -> Under | _Untraced:
    """A context that is a step of the span under way; nothing where none is. Gives the span, or None."""
    span = _current.get()
    return UNTRACED if span is None or span.is_over else Under(span.below(name, kind))
