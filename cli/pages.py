"""What the client commands share that ask for pages of logs: parameters, the walk along cursors, refusals for people.

Holds one page at a time. Pages follow `next_cursor`; only its absence is the end, an empty page is not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final, Generic, TypeVar

import httpx
import msgspec

from cli.http_client import Problem, Refused, Unreachable, request_patiently
from cli.terminal import harmless
from runtime.clock import Clock
from schemas.errors import InvalidInput

PATH: Final = "/api/v1/logs"
PAGE_LOGS_MAX: Final = 1_000
QUESTION_STATUSES: Final = (400, 422)
"""Answers that mean that the question is not valid."""

_MARKED_BEFORE_MAX: Final = 60
_MARKED_AFTER_MAX: Final = 60

Parameters = list[tuple[str, str]]


Log = TypeVar("Log")


class Page(msgspec.Struct, Generic[Log]):
    """What is needed of a page (schemas/pages.py, LogPage)."""

    logs: list[Log]
    next_cursor: str | None
    scanned_to: str | None = None
    tail: str | None = None


async def walk(
    client: httpx.AsyncClient,
    parameters: Parameters,
    *,
    read: Callable[[bytes], Page[Log]],
    limit: int | None,
    cursor: str | None,
    clock: Clock,
    give_up_after_s: float,
    on_wait: Callable[[str, float], None],
) -> AsyncGenerator[Page[Log], None]:
    """The pages from a cursor on (None: the first), at most `limit` logs in all. Raises Unreachable, Refused.

    read: the answer's JSON to a page; msgspec.MsgspecError or ValueError for what is none. clock, give_up_after_s, on_wait: as
    request_patiently takes them.
    """
    left = limit
    while left is None or left > 0:
        size = PAGE_LOGS_MAX if left is None else min(left, PAGE_LOGS_MAX)
        asked = [*parameters, ("limit", str(size)), *([("cursor", cursor)] if cursor else [])]
        response = await request_patiently(
            client, "GET", PATH, clock=clock, give_up_after_s=give_up_after_s, on_wait=on_wait, params=asked
        )
        page = _page_of(response, read)
        left = None if left is None else left - len(page.logs)
        yield page
        cursor = page.next_cursor
        if cursor is None:
            return


def _page_of(response: httpx.Response, read: Callable[[bytes], Page[Log]]) -> Page[Log]:
    """Raises Refused, or Unreachable for an answer that is not Logfeed's."""
    if response.status_code != 200:
        raise Refused(Problem.read(response))
    try:
        return read(response.content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unreachable(
            f"{response.url.host} answered, but not as a Logfeed server does ({error}): {response.text[:200]!r}"
        ) from error


def explain(problem: Problem, parameters: Mapping[str, str]) -> str:
    """A refusal for people: what is wrong and, where the server names a column, the value with that column marked."""
    text = problem.detail or problem.text
    errors = problem.members.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    value, column = parameters.get(str(first.get("field"))), first.get("column")
    if value is None or not isinstance(column, int) or not 1 <= column <= len(value) + 1:
        return text
    before, after = harmless(value[: column - 1]), harmless(value[column - 1 :])
    begin = max(0, len(before) - _MARKED_BEFORE_MAX)
    return f"{text}\n  {before[begin:]}{after[:_MARKED_AFTER_MAX]}\n  {' ' * (len(before) - begin)}^"


def parameters_of(**values: str | list[str] | None) -> Parameters:
    """The parameters that are given, one pair for each value."""
    found: Parameters = []
    for name, value in values.items():
        found += [(name, each) for each in ([value] if isinstance(value, str) else value or [])]
    return found


def metadata_of(pairs: list[str]) -> Parameters:
    """metadata.KEY parameters. Raises InvalidInput."""
    found: Parameters = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidInput(f"--metadata must be KEY=VALUE, got {pair!r}")
        found.append((f"metadata.{key}", value))
    return found
