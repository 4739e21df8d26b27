"""What is known of the work at hand: its correlation id, and fields that each of its logs gets. Kept in one context variable.

    with correlation(), bind(user="u-17"):
        log.info("paid")

Tasks of asyncio inherit it when they are made; threads do not (`contextvars.copy_context().run` hands it on). What is bound
here is written as JSON once, not with each log. Costs a log one look at a context variable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from logfeed_client.fields import SHARED_BYTES_MAX, fragment, quote
from logfeed_client.headers import ID_CHARS_MAX, Incoming, new_correlation_id, outgoing


@dataclass(frozen=True, slots=True)
class Context:
    """Of one piece of work."""

    incoming: Incoming | None = None
    id_text: str = ""
    """`"correlation_id":"…",` or empty: as a line has it."""
    fields: Mapping[str, object] = field(default_factory=dict)
    bound: str = ""
    """The fields as a line has them before others: `"user":"u-17",` or empty."""


_current: Final[ContextVar[Context]] = ContextVar("logfeed_context", default=Context())  # noqa: B039  # it is frozen


class _HasHeaders(Protocol):
    @property
    def headers(self) -> MutableMapping[str, str]:
        """Of a request that is about to be sent."""


Request = TypeVar("Request", bound=_HasHeaders)


current: Final[Callable[[], Context]] = _current.get
"""Of the task or thread that calls."""


def correlation_id() -> str | None:
    """The correlation id of the work at hand."""
    incoming = _current.get().incoming
    return None if incoming is None else incoming.correlation_id


@contextmanager
def correlation(correlation_id: str | None = None) -> Iterator[str]:
    """Logs within have this correlation id (cut to 128 characters); None makes a new one. Yields it."""
    with using(Incoming((correlation_id or new_correlation_id())[:ID_CHARS_MAX])) as incoming:
        yield incoming.correlation_id


@contextmanager
def using(incoming: Incoming) -> Iterator[Incoming]:
    """Logs within belong to a request that came in."""
    token = _current.set(with_incoming(_current.get(), incoming))
    try:
        yield incoming
    finally:
        _current.reset(token)


@contextmanager
def bind(**fields: object) -> Iterator[None]:
    """Logs within have these fields in their metadata, besides those bound around it. At most 6 KiB of JSON; what is beyond is
    cut."""
    before = _current.get()
    together = {**before.fields, **fields}
    found = fragment(together.items(), bytes_max=SHARED_BYTES_MAX)
    token = _current.set(replace(before, fields=together, bound=f"{found}," if found else ""))
    try:
        yield
    finally:
        _current.reset(token)


def enter(incoming: Incoming) -> None:
    """As `using`, to the end of this context (of a copy that a middleware runs everything in)."""
    _current.set(with_incoming(_current.get(), incoming))


def with_incoming(context: Context, incoming: Incoming) -> Context:
    """The context of a request within another one."""
    return replace(context, incoming=incoming, id_text=id_text(incoming.correlation_id))


def id_text(correlation_id: str) -> str:
    """As a line has it."""
    return f'"correlation_id":{quote(correlation_id[:ID_CHARS_MAX])},' if correlation_id else ""


def outgoing_headers() -> dict[str, str]:
    """Headers that take the correlation id to another service; none without one."""
    found = _current.get().incoming
    return {} if found is None else outgoing(found.correlation_id, flags=found.flags, state=found.state)


def propagate(request: Request) -> Request:
    """Give a request these headers, where it has not its own. Of httpx: `Client(event_hooks={"request": [propagate]})`; of
    requests: `Session.auth = propagate`, or `auth=propagate`."""
    for name, value in outgoing_headers().items():
        if name not in request.headers:
            request.headers[name] = value
    return request


async def propagate_async(request: Request) -> None:
    """`propagate` for `httpx.AsyncClient(event_hooks={"request": [propagate_async]})`."""
    propagate(request)
