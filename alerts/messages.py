"""What a notification says: one JSON document for every channel, and texts for people made of it. Pure.

Texts of logs are cut and harmless (`runtime/harmless.py`): no control characters, no bidirectional marks. Each channel
escapes what means something to it besides.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

import orjson

from alerts.durations import duration_text
from alerts.notify import Alert, Notification
from alerts.rules import RuleDocument
from runtime.harmless import harmless
from schemas.times import time_text

_TITLE_CHARS_MAX: Final = 200
_S: Final = 1_000_000


def message_of(notification: Notification, rule: RuleDocument | None, *, public_url: str | None) -> dict[str, Any]:
    """JSON of a notification (docs/alerts.md). rule: None where it is gone. public_url: where people find the page, for
    links."""
    document: dict[str, Any] = {
        "version": 1,
        "id": notification.notification_id,
        "kind": notification.kind,
        "title": _title(notification),
        "rule": notification.rule,
        "severity": notification.severity,
        "channel": notification.channel,
        "at": time_text(notification.at_us),
        "repeat": notification.is_repeat,
        "firing": notification.firing,
        "resolved": notification.resolved,
        "services": notification.services,
        "alerts_not_shown": notification.firing + notification.resolved - len(notification.alerts),
        "alerts": [_alert(alert, rule, public_url) for alert in notification.alerts],
    }
    if notification.held is not None:
        held = notification.held
        document["held"] = {
            "notifications": held.notifications,
            "alerts": held.alerts,
            "first_at": None if held.first_us is None else time_text(held.first_us),
            "last_at": None if held.last_us is None else time_text(held.last_us),
            "groups": held.groups,
            "alerts_of_other_groups": held.groups_more,
        }
    return document


def encode(document: dict[str, Any]) -> bytes:
    """The bytes that are stored and signed."""
    return orjson.dumps(document)


def text_of(document: dict[str, Any]) -> str:
    """Plain text for people; lines end with \\n."""
    lines = [document["title"], ""]
    if document["kind"] == "breaker_opened":
        lines += [
            "This rule tells too much: further messages of it are held back here, and summed up when the storm has passed.",
            "",
        ]
    if held := document.get("held"):
        lines.append(
            f"Held back: {held['notifications']} messages about {held['alerts']} alerts,"
            f" {held['first_at']} to {held['last_at']}."
        )
        lines += [f"  {group}" for group in held["groups"]]
        if held["alerts_of_other_groups"]:
            lines.append(f"  and {held['alerts_of_other_groups']} alerts of other groups")
        lines.append("")
    for alert in document["alerts"]:
        lines += _alert_lines(alert)
    if document["alerts_not_shown"]:
        lines += [f"… and {document['alerts_not_shown']} more", ""]
    return "\n".join(lines).rstrip() + "\n"


def describe(rule: RuleDocument) -> str:
    """What a rule says, in one line for people."""
    condition, window = rule.condition, duration_text(rule.window)
    if condition.count is not None:
        said = f"at least {condition.count.at_least} logs in {window}"
    elif condition.rate is not None:
        said = f"at least {condition.rate.at_least:g} logs per {duration_text(condition.rate.per)} over {window}"
    elif condition.error_ratio is not None:
        said = f"at least {condition.error_ratio.at_least:.2%} errors in {window}"
    elif condition.distinct is not None:
        said = f"at least {condition.distinct.at_least} different values of {condition.distinct.field} in {window}"
    elif condition.new_pattern is not None:
        said = "a pattern for the first time"
    else:
        said = f"no log for {window}"
    return said + (f", for {duration_text(rule.for_)}" if rule.for_ else "")


def _title(notification: Notification) -> str:
    firing, resolved = notification.firing, notification.resolved
    match notification.kind:
        case "breaker_opened":
            said = "too many messages, holding back"
        case "summary":
            said = f"summary of what was held back, {firing} firing"
        case _:
            parts = [f"{firing} firing"] * bool(firing) + [f"{resolved} resolved"] * bool(resolved)
            said = ", ".join(parts) + (" (still)" if notification.is_repeat else "")
    title = f"[{notification.severity}] {notification.rule}: {said}"
    if firing + resolved == 1 and notification.alerts:
        group = notification.alerts[0].group
        title += f" ({group})" if group != notification.rule else ""
    return harmless(title)[:_TITLE_CHARS_MAX]


def _alert(alert: Alert, rule: RuleDocument | None, public_url: str | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": alert.alert_id,
        "state": alert.state,
        "started_at": time_text(alert.started_us),
        "ended_at": None if alert.ended_us is None else time_text(alert.ended_us),
        "labels": {name: harmless(value) for name, value in alert.labels.items()},
        "value": alert.value,
        "logs_in_window": alert.count,
        "condition": None if rule is None else describe(rule),
        "summary": harmless(alert.summary),
        "reason": alert.reason,
        "runbook": alert.runbook,
        "logs": [
            {
                "timestamp": time_text(sample.timestamp),
                "id": str(sample.id),
                "level": sample.level,
                "service_name": sample.service_name,
                "message": sample.message,
            }
            for sample in alert.samples
        ],
    }
    if public_url is not None:
        document["url"] = _link(alert, rule, public_url)
    return document


def _link(alert: Alert, rule: RuleDocument | None, public_url: str) -> str:
    """The page with the rule's logs around the alert's beginning."""
    window_us = (rule.window if rule is not None else 3_600) * _S
    end_us = alert.ended_us if alert.ended_us is not None else alert.started_us + window_us
    asked = {
        "query": "" if rule is None else rule.query,
        "start_time": time_text(alert.started_us - window_us),
        "end_time": time_text(end_us),
    }
    return f"{public_url.rstrip('/')}/?{urlencode(asked)}"


def _alert_lines(alert: dict[str, Any]) -> list[str]:
    labels = " ".join(f"{name}={value}" for name, value in alert["labels"].items() if name not in ("rule", "severity"))
    condition = f"; rule: {alert['condition']}" if alert["condition"] else ""
    lines = [
        f"{alert['state'].upper()} since {alert['started_at']}" + (f"  {labels}" if labels else ""),
        f"  value {alert['value']:.4g}, {alert['logs_in_window']} logs in the window{condition}",
    ]
    lines += [f"  {alert[name]}" for name in ("summary", "reason", "runbook", "url") if alert.get(name)]
    lines += [
        f"    {each['timestamp']} {each['level']} {each['service_name']} {each['message']}" for each in alert["logs"]
    ]
    return [*lines, ""]
