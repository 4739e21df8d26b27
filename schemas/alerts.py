"""What the alerting API answers, as its document describes it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class AlertSample(_Answer):
    """One of the newest logs, cut and without control characters."""

    timestamp: str
    id: str
    level: str
    service_name: str
    message: str


class AlertModel(_Answer):
    """One firing of a rule for one group."""

    id: str
    """Stable; messages about it have the same."""
    rule: str
    state: Literal["firing", "resolved"]
    severity: str
    labels: dict[str, str]
    started_at: str
    ended_at: str | None
    value: float
    logs_in_window: int
    summary: str
    reason: str
    """Why it was resolved, where the condition did not say so."""
    runbook: str | None
    logs: list[AlertSample]


class AlertStatus(_Answer):
    """Who evaluates rules, and how far."""

    leader: str | None
    """Process that evaluates rules now; null: none."""
    saved_at: str | None
    watermark: str | None
    """Everything appended before was read."""
    gaps: int
    """Times that records were gone before rules saw them, since the leader began."""


class AlertList(_Answer):
    """Alerts, those that fire first, then the newest."""

    alerts: list[AlertModel]
    status: AlertStatus


class RuleModel(_Answer):
    """A rule and how it fares."""

    rule: dict[str, Any]
    """The document (docs/alerts.md)."""
    owner: str
    """Whose rights it has; file: it stands in a file, and is changed there."""
    revision: int
    changed_at: str
    changed_by: str
    problem: str | None
    """Why it is not evaluated, or not told."""
    groups: int
    firing: int
    late: int
    """Logs that came too late to count, since the rule began."""
    overflowed: int
    """Logs of groups beyond `groups_max`."""


class RuleList(_Answer):
    """Rules, by name."""

    rules: list[RuleModel]


class NewTrial(_Answer):
    """A rule to be tried on stored logs; it is not kept."""

    rule: dict[str, Any]
    """The document (docs/alerts.md)."""
    start_time: str = Field(default="-1d", max_length=60, examples=["-7d"])
    """From when: as `start_time` of /api/v1/logs."""
    end_time: str = Field(default="now", max_length=60)
    """Up to when."""


class TrialDecision(_Answer):
    """The rule would have fired for a group, or would have been over."""

    state: Literal["firing", "resolved"]
    at: str
    started_at: str
    labels: dict[str, str]
    """The group."""
    value: float
    logs_in_window: int


class TrialModel(_Answer):
    """When a rule would have fired, and how many messages would have come of it."""

    start_time: str
    end_time: str
    tried_through: str
    """Everything before was looked at."""
    is_complete: bool
    """False: the trial's bounds (500,000 logs, 20 s) ended it at `tried_through`."""
    logs: int
    """Of the rule's query."""
    fired: int
    resolved: int
    messages: int
    """To each channel."""
    breaker_opened: int
    """How often the circuit breaker would have opened."""
    overflowed: int
    """Logs of groups beyond `groups_max`."""
    decisions: list[TrialDecision]
    """In order, the first 1,000."""
    decisions_left_out: int


class MatcherModel(_Answer):
    """label op value; =~ and !~ compare the whole value with a pattern."""

    label: str = Field(min_length=1, max_length=100)
    op: Literal["=", "!=", "=~", "!~"] = "="
    value: str = Field(max_length=500)


class NewSilence(_Answer):
    """Alerts that match all of these are not told for a time."""

    matchers: list[MatcherModel] = Field(min_length=1, max_length=20)
    starts_at: str | None = Field(default=None, examples=["2026-01-31T22:00:00Z"])
    """Now when left out."""
    ends_at: str = Field(examples=["2026-02-01T02:00:00Z"])
    """A time with its zone, a year away at most."""
    comment: str = Field(min_length=1, max_length=500)
    """Why."""


class SilenceModel(_Answer):
    """A silence."""

    id: str
    state: Literal["pending", "active", "ended"]
    matchers: list[MatcherModel]
    starts_at: str
    ends_at: str
    author: str
    comment: str


class SilenceList(_Answer):
    """Those in force, to come, or over since a day."""

    silences: list[SilenceModel]


class BreakerModel(_Answer):
    """Where the breaker of a rule and channel stands."""

    rule: str
    channel: str
    state: Literal["closed", "open", "half_open"]
    since: str
    held: int
    """Messages held back since the last word."""
    opened: int
    """How often it opened lately."""


class BreakerList(_Answer):
    """Those that anything has passed lately."""

    breakers: list[BreakerModel]


class Reset(_Answer):
    """Which breaker to close."""

    rule: str = Field(min_length=1, max_length=100)
    channel: str = Field(min_length=1, max_length=64)


class NotificationModel(_Answer):
    """A message, and what became of it."""

    id: str
    rule: str
    channel: str
    state: Literal["waiting", "sent", "dead"]
    attempts: int
    created_at: str
    ended_at: str | None
    problem: str | None
    """Of the last attempt."""
    message: dict[str, Any]
    """As it is sent (docs/alerts.md)."""


class NotificationList(_Answer):
    """Messages, newest first."""

    notifications: list[NotificationModel]
    next_before: str | None
    """To be given as `before`; null at the end."""
