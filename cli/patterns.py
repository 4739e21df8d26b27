"""The command `logfeed patterns`: which kinds of lines there are, what is new, what is gone. Speaks to the API."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from cli.alert_client import JsonOption, KeyOption, UrlOption, asking, short
from cli.http_client import URL_DEFAULT, Problem, Refused, Unreachable
from cli.terminal import harmless, harmless_json
from schemas.errors import InvalidInput

_PATH: Final = "/api/v1/patterns"
_COLOURS: Final = {
    "WARN": typer.colors.YELLOW,
    "ERROR": typer.colors.RED,
    "FATAL": typer.colors.MAGENTA,
}
_WORST_FIRST: Final = ("FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE")
_SERVICE_WIDTH_MAX: Final = 28
_BARS: Final = " ▁▂▃▄▅▆▇█"
_BARS_MAX: Final = 60


def patterns(
    pattern_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="One pattern over time, by its 16 digits.", show_default=False),
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Those first seen in this time.")] = False,
    gone: Annotated[bool, typer.Option("--gone", help="Those seen in the time before, and not in this one.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Those with errors, most of these first.")] = False,
    service: Annotated[
        list[str] | None,
        typer.Option(
            "--service", "-s", metavar="NAME", help="Of this service, or NAME*; repeatable.", show_default=False
        ),
    ] = None,
    min_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="Lines of this level or a graver one.", show_default=False)
    ] = None,
    since: Annotated[
        str, typer.Option("--since", "--start-time", metavar="TIME", help="Not before: -15m, -2h, 2026-01-31T12:00Z.")
    ] = "-1h",
    until: Annotated[str, typer.Option("--until", "--end-time", metavar="TIME", help="Before this time.")] = "now",
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=500, help="At most so many.")] = 50,
    as_json: JsonOption = False,
    url: UrlOption = URL_DEFAULT,
    api_key: KeyOption = None,
) -> None:
    """Show kinds of lines, most common first: lines, change against the time before, gravest level, service, pattern.

    [bold]Examples[/bold]
      logfeed patterns                              the last hour
      logfeed patterns --new --since -1d            what was never seen before
      logfeed patterns --gone -s 'pay*'             what has stopped
      logfeed patterns 5f2a77c01d9be630             one over time
      logfeed logs pattern:5f2a77c01d9be630         its lines

    Exit code 1 when there is none.
    """
    sorts = [name for name, is_meant in (("new", new), ("gone", gone), ("errors", errors)) if is_meant]
    if len(sorts) > 1:
        raise InvalidInput(f"--{sorts[0]} and --{sorts[1]} are different questions: give one")
    if pattern_id is not None and sorts:
        raise InvalidInput(f"--{sorts[0]} is a question about all patterns: leave out the id")
    asked = [("start_time", since), ("end_time", until)]
    asked += [("service_name", name) for name in service or []]
    asked += [("min_level", min_level)] if min_level is not None else []
    if pattern_id is None:
        asked += [("sort", sorts[0] if sorts else "count"), ("limit", str(limit))]
    answer = asking(url, api_key, lambda client: _request(client, pattern_id, asked))
    _print(answer, as_json=as_json, is_gone=gone)
    if not answer.get("patterns", True):
        raise typer.Exit(1)


async def _request(
    client: Any, pattern_id: str | None, asked: list[tuple[str, str]]
) -> Any:  # an AsyncClient; JSON values
    import httpx
    import orjson

    path = _PATH if pattern_id is None else f"{_PATH}/{quote(pattern_id, safe='')}"
    try:
        response = await client.get(path, params=asked)
    except httpx.TransportError as error:
        raise Unreachable(
            f"{client.base_url}: no connection (is the server running? `logfeed up` starts one)"
        ) from error
    if not response.is_success:
        raise Refused(Problem.read(response))
    return orjson.loads(response.content)


def _print(answer: Mapping[str, Any], *, as_json: bool, is_gone: bool) -> None:
    """JSON lines, or a table. What figures are worth goes to standard error."""
    import orjson
    from rich.console import Console

    if as_json:
        documents = [answer] if "pattern" in answer else answer["patterns"]
        for document in documents:
            print(harmless_json(orjson.dumps(document).decode()))
        return
    console = Console(highlight=False)
    is_colourful = console.is_terminal and not console.no_color
    if "pattern" in answer:
        lines = one_lines(answer, is_colourful=is_colourful)
    else:
        lines = table_lines(answer["patterns"], is_gone=is_gone, is_colourful=is_colourful)
    for line in lines:
        print(line)
    print(footnote(answer), file=sys.stderr)


def table_lines(patterns: list[Mapping[str, Any]], *, is_gone: bool, is_colourful: bool) -> list[str]:
    """A line for each pattern: id, lines, change, gravest level, service, template. is_gone: lines of the time before."""
    rows = [
        (
            harmless(str(each["id"])),
            f"{each['count_before' if is_gone else 'count']:,}",
            "gone" if is_gone else change_text(each),
            level_of(each),
            _services(each),
            harmless(each["template"]),
        )
        for each in patterns
    ]
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [
        f"{_dim(row[0], is_colourful)}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}"
        f"  {_styled(row[3], widths[3], is_colourful)}  {row[4]:<{widths[4]}}  {row[5]}"
        for row in rows
    ]


def one_lines(answer: Mapping[str, Any], *, is_colourful: bool) -> list[str]:
    """What is known of one pattern, with a bar for each step."""
    pattern = answer["pattern"]
    levels = "  ".join(f"{name} {pattern['levels'][name]:,}" for name in _WORST_FIRST if name in pattern["levels"])
    return [
        harmless(pattern["template"]),
        f"  {_dim('id', is_colourful)}       {harmless(pattern['id'])}",
        f"  {_dim('lines', is_colourful)}    {pattern['count']:,} ({change_text(pattern)})  {levels}",
        f"  {_dim('services', is_colourful)} {harmless(', '.join(pattern['services']))}",
        f"  {_dim('seen', is_colourful)}     {short(pattern['first_seen'])} to {short(pattern['last_seen'])}",
        f"  {_dim('samples', is_colourful)}  {harmless(' '.join(pattern['samples']))}",
        f"  {short(answer['start'])} |{bars([point['count'] for point in answer['series']])}| {short(answer['end'])}",
    ]


def change_text(pattern: Mapping[str, Any]) -> str:
    """Against the time before: +12%, x30 for much more, `new` where there was nothing."""
    change = pattern["change"]
    if change is None:
        return "new" if pattern["count"] else ""
    if change >= 9:
        return f"x{change + 1:,.0f}"
    return f"{change:+.0%}"


def level_of(pattern: Mapping[str, Any]) -> str:
    """The gravest level that it has lines of."""
    return next((name for name in _WORST_FIRST if pattern["levels"].get(name)), "")


def bars(counts: list[int]) -> str:
    """At most 60 of them, each the sum of as many steps; the highest is full."""
    each = -(-len(counts) // _BARS_MAX) or 1
    sums = [sum(counts[at : at + each]) for at in range(0, len(counts), each)]
    most = max(sums, default=0) or 1
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in sums)


def footnote(answer: Mapping[str, Any]) -> str:
    """What the figures are of."""
    parts = [f"{short(answer['start'])} to {short(answer['end'])}"]
    if "other" in answer:
        parts.append(f"{answer['count']:,} lines")
        if answer["other"]:
            parts.append(f"{answer['other']:,} of patterns that were not kept")
    if answer["counted_from"] is None:
        parts.append("nobody counts patterns: run `logfeed mine` (`logfeed up` does)")
    else:
        through = answer["counted_through"]
        parts.append("being counted" if through is None else f"counted through {short(through)}")
        if not answer["complete"]:
            parts.append(f"incomplete (counted since {short(answer['counted_from'])})")
    return "; ".join(parts)


def _services(pattern: Mapping[str, Any]) -> str:
    names = pattern["services"]
    if not names:
        return ""
    more = f" +{pattern['services_count'] - 1}" if pattern["services_count"] > 1 else ""
    return harmless(names[0])[: _SERVICE_WIDTH_MAX - len(more)] + more


def _styled(level: str, width: int, is_colourful: bool) -> str:
    padded = f"{level:<{width}}"
    return typer.style(padded, fg=_COLOURS[level]) if is_colourful and level in _COLOURS else padded


def _dim(text: str, is_colourful: bool) -> str:
    return typer.style(text, dim=True) if is_colourful else text
