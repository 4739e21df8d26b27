"""`logfeed alerts`: what fires, rules, silences, breakers. Speaks to the API; `check` reads files only.

Exit codes as everywhere: 0 done, 1 nothing found or something failed, 2 wrong usage or a rule that is not valid.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from cli.alert_backtest import backtest
from cli.alert_client import JsonOption, KeyOption, UrlOption, asking, request, short
from cli.http_client import URL_DEFAULT
from cli.terminal import harmless, harmless_json
from cli.usage import Command, group
from schemas.errors import InvalidInput

app = group(help="Alerts: what fires, rules, silences, circuit breakers.")


class What(StrEnum):
    """What to list."""

    ALERTS = "alerts"
    RULES = "rules"
    SILENCES = "silences"
    BREAKERS = "breakers"
    NOTIFICATIONS = "notifications"


@app.command("list", cls=Command)
def list_command(
    what: Annotated[
        What, typer.Argument(metavar="WHAT", help="alerts, rules, silences, breakers or notifications.")
    ] = What.ALERTS,
    rule: Annotated[
        str | None, typer.Option("--rule", metavar="NAME", help="Of this rule (alerts, notifications).")
    ] = None,
    firing: Annotated[bool, typer.Option("--firing", help="Only alerts that fire.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="Alerts or messages at most.")] = 100,
    as_json: JsonOption = False,
    url: UrlOption = URL_DEFAULT,
    api_key: KeyOption = None,
) -> None:
    """Show what fires and what did lately, or what there is of the rest. Exit code 1 when there is nothing."""
    asked: dict[str, Any] = {}
    if what in (What.ALERTS, What.NOTIFICATIONS):
        asked = {"limit": limit, **({"rule": rule} if rule else {})}
    if firing and what is What.ALERTS:
        asked["state"] = "firing"
    path = "" if what is What.ALERTS else f"/{what}"
    found = asking(url, api_key, lambda client: request(client, "GET", path, params=asked))
    entries = found[what]
    for entry in entries:
        for line in entry_lines(what, entry, as_json=as_json):
            print(line)
    status = found.get("status")
    if status is not None and status["leader"] is None:
        print("nobody evaluates rules now: run `logfeed alert` (`logfeed up` does)", file=sys.stderr)
    if not entries:
        raise typer.Exit(1)


def entry_lines(what: What, entry: dict[str, Any], *, as_json: bool) -> list[str]:
    """How one is shown. A label or a comment that has line ends in it makes no lines of its own."""
    import orjson

    if as_json:
        return [harmless_json(orjson.dumps(entry).decode())]
    return list(map(harmless, _LINES[what](entry)))


def _alert_lines(alert: dict[str, Any]) -> list[str]:
    labels = " ".join(f"{name}={value}" for name, value in alert["labels"].items() if name not in ("rule", "severity"))
    until = "" if alert["ended_at"] is None else f" to {short(alert['ended_at'])}"
    lines = [
        f"{alert['state']:8} {alert['severity']:8} {short(alert['started_at'])}{until}  {alert['rule']}  {labels}"
        f"  value {alert['value']:.4g}"
    ]
    lines += [f"    {log['timestamp']} {log['level']} {log['service_name']} {log['message']}" for log in alert["logs"]]
    return lines


def _rule_lines(entry: dict[str, Any]) -> list[str]:
    rule = entry["rule"]
    counted = "  ".join(f"{entry[name]} {name}" for name in ("groups", "firing", "late", "overflowed") if entry[name])
    problem = [f"    {entry['problem']}"] if entry["problem"] else []
    return [f"{rule['name']}  {rule.get('severity', 'warning')}  of {entry['owner']}  {counted}", *problem]


def _silence_lines(silence: dict[str, Any]) -> list[str]:
    matchers = " ".join(f"{each['label']}{each['op']}{each['value']}" for each in silence["matchers"])
    times = f"{short(silence['starts_at'])} to {short(silence['ends_at'])}"
    return [f"{silence['id']}  {silence['state']:7} {times}  {matchers}  {silence['author']}: {silence['comment']}"]


def _breaker_lines(breaker: dict[str, Any]) -> list[str]:
    held = f"  {breaker['held']} held back" if breaker["held"] else ""
    return [f"{breaker['rule']}  {breaker['channel']}  {breaker['state']} since {short(breaker['since'])}{held}"]


def _notification_lines(one: dict[str, Any]) -> list[str]:
    problem = f"  {one['problem']}" if one["problem"] else ""
    state = f"{one['state']} after {one['attempts']}" if one["attempts"] > 1 else one["state"]
    return [f"{short(one['created_at'])}  {state}  {one['channel']}  {one['message'].get('title', '')}{problem}"]


_LINES: Final[dict[What, Callable[[dict[str, Any]], list[str]]]] = {
    What.ALERTS: _alert_lines,
    What.RULES: _rule_lines,
    What.SILENCES: _silence_lines,
    What.BREAKERS: _breaker_lines,
    What.NOTIFICATIONS: _notification_lines,
}


@app.command(cls=Command)
def check(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file with rules, or a directory of them.")],
) -> None:
    """Say whether rules are valid, with the line and column of each mistake. Exit code 2 when one is not."""
    from alerts.messages import describe
    from alerts.rule_files import read_rules

    for rule in read_rules(path):
        print(harmless(f"{rule.name}: {describe(rule)}"))


app.command("test", cls=Command)(backtest)


@app.command(cls=Command)
def silence(
    matchers: Annotated[
        list[str] | None, typer.Argument(metavar="MATCHER…", help="label=value, != =~ !~ too; all must match.")
    ] = None,
    lasts: Annotated[str, typer.Option("--for", metavar="TIME", help="How long: 30m, 2h, 3d.")] = "1h",
    comment: Annotated[str, typer.Option("--comment", metavar="TEXT", help="Why; needed.")] = "",
    end: Annotated[str | None, typer.Option("--end", metavar="ID", help="End this silence instead.")] = None,
    url: UrlOption = URL_DEFAULT,
    api_key: KeyOption = None,
) -> None:
    """Keep alerts quiet for a time, or end that. Prints the silence's id.

    [bold]Examples[/bold]
      logfeed alerts silence rule=payment-errors --for 2h --comment 'known, being mended'
      logfeed alerts silence --end 5f2a77c01d9be630
    """
    from alerts.durations import parse_duration
    from alerts.matching import parse_matcher

    if end is not None:
        asking(url, api_key, lambda client: request(client, "DELETE", f"/silences/{quote(end, safe='')}"))
        print(f"{harmless(end)} ended")
        return
    try:
        read = [parse_matcher(text) for text in matchers or []]
        seconds = parse_duration(lasts)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    if not read or not comment:
        raise InvalidInput("expected a matcher such as rule=NAME, and --comment")
    body = {
        "matchers": [{"label": each.label, "op": each.op, "value": each.value} for each in read],
        "ends_at": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(),
        "comment": comment,
    }
    made = asking(url, api_key, lambda client: request(client, "POST", "/silences", json=body))
    print(harmless(made["id"]))


@app.command(cls=Command)
def reset(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="The rule's name.")],
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="The channel's name.")],
    url: UrlOption = URL_DEFAULT,
    api_key: KeyOption = None,
) -> None:
    """Close a circuit breaker: what it held back is summed up and told within seconds."""
    body = {"rule": rule, "channel": channel}
    asking(url, api_key, lambda client: request(client, "POST", "/breakers/reset", json=body))
    print("asked the evaluator")
