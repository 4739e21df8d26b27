"""Spans that go nowhere and remember what they were told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runtime.tracing import Kind, Value


@dataclass
class Noted:
    """A span that only remembers."""

    name: str
    above: Noted | None = None
    trace_id: str = "a" * 32
    span_id: str = "b" * 16
    is_over: bool = False
    error: str | None = None
    values: dict[str, Value] = field(default_factory=dict)
    inner: list[Noted] = field(default_factory=list)

    def all_below(self) -> list[Noted]:
        """Every step of it and of its steps."""
        return [each for step in self.inner for each in (step, *step.all_below())]

    def below(self, name: str, kind: Kind = Kind.INTERNAL) -> Noted:
        """See Span."""
        self.inner.append(Noted(name, self))
        return self.inner[-1]

    def note(self, **values: Value) -> None:
        """See Span."""
        self.values |= values

    def rename(self, name: str) -> None:
        """See Span."""
        self.name = name

    def end(self, *, error: str | None = None, at_us: int | None = None) -> None:
        """See Span."""
        if not self.is_over:
            self.is_over, self.error = True, error


@dataclass
class NotedTraces:
    """See Traces; keeps all."""

    begun: list[Noted] = field(default_factory=list)
    parents: list[str | None] = field(default_factory=list)

    def begin(
        self,
        name: str,
        kind: Kind,
        *,
        parent: str | None = None,
        links: Sequence[str] = (),
        at_us: int | None = None,
        values: Mapping[str, Value] | None = None,
    ) -> Noted:
        """See Traces."""
        self.begun.append(Noted(name, values=dict(values or {})))
        self.parents.append(parent)
        return self.begun[-1]

    async def close(self) -> None:
        """See Traces."""
