"""Settings of connections, shared by who takes their texts and who shows them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from connections.metrics import BUILT_IN, Rule, Side, Unit
from runtime.settings import Section
from schemas.record import is_service_name

MiB = 1024 * 1024
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
Label = Annotated[str, Field(min_length=1, max_length=100)]


class MetricRule(Section):
    """One metric that is taken out of lines."""

    name: Name
    """Of the metric: lower case letters, digits, _."""
    labels: Annotated[tuple[Label, ...], Field(min_length=1, max_length=10)]
    """Texts before the number, in any case of letters: `latency` finds `Latency: 0.02`, `latency=20ms`, `latency 0.02 s`."""
    unit: Unit
    """s, ms or bytes: of its values, and of a number without one."""
    side: Side | None = None
    """server or client: in whose log it is looked for; none: in both."""

    @field_validator("labels")
    @classmethod
    def _are_words(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if not all(label.split() for label in labels):
            raise ValueError("a label must have a letter in it")
        return labels


class ConnectionSettings(Section):
    """Connections and their logs."""

    server_service: str = "connections/server"
    """Service of lines of servers' logs. Who may write it sends them, who may read it sees them."""

    client_service: str = "connections/client"
    """Service of lines of clients' logs."""

    kept_max: int = Field(default=100_000, ge=1, le=10_000_000)
    """Connections that are kept; a new one past it is refused (409). Those that nobody has put for `store.retention_days` go,
    as their logs do. Default 100,000."""

    lines_max: int = Field(default=250_000, ge=1, le=10_000_000)
    """Lines of one log; a longer one gets 413. Default 250,000."""

    text_bytes_max: int = Field(default=64 * MiB, ge=1024, le=1024 * MiB)
    """Bytes of one log; a longer one gets 413. They lie in a temporary file meanwhile. Default 64 MiB."""

    texts_max: int = Field(default=4, ge=1, le=100)
    """Logs that one process takes at once, so many times `text_bytes_max` of temporary files; more get 503. One key or user has
    all but one of them, so that slow ones leave a place for others. Default 4."""

    text_deadline_s: float = Field(default=120.0, gt=0, le=3_600)
    """Seconds in which a log must have arrived completely; 408 after it. Default 120 s."""

    error_kinds_max: int = Field(default=50, ge=1, le=1_000)
    """Kinds of errors that are counted for each log; others count together. Default 50."""

    metrics: tuple[MetricRule, ...] = ()
    """Metrics besides those built in (latency, decode_time, encode_time, encode_size); one of the same name takes the place of
    a built-in one."""

    @field_validator("server_service", "client_service")
    @classmethod
    def _is_service(cls, name: str) -> str:
        if not is_service_name(name):
            raise ValueError("expected 1 to 100 of A-Z a-z 0-9 . _ - /")
        return name

    @model_validator(mode="after")
    def _are_few(self) -> ConnectionSettings:
        names = [rule.name for rule in self.metrics]
        if len(set(names)) < len(names) or len(names) > _METRICS_MAX:
            raise ValueError(f"metrics: expected at most {_METRICS_MAX}, each with a name of its own")
        return self

    def service_of(self, side: Side) -> str:
        """Whose logs the lines of a side are."""
        return self.server_service if side is Side.SERVER else self.client_service

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules in force."""
        own = {rule.name: Rule(rule.name, rule.labels, rule.unit, rule.side) for rule in self.metrics}
        return (*(own.pop(rule.name, rule) for rule in BUILT_IN), *own.values())


_METRICS_MAX = 20
