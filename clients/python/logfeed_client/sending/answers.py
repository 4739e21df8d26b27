"""What the answer to a batch means for its logs: pure.

Only an answer of Logfeed's says that logs are stored, or that they never will be; a proxy's page says neither, whatever its
status. What may pass by itself, or by somebody's hand (a renewed key, a corrected address), is waited for under the same key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from logfeed_client.waiting import retry_after_s

_OURS: Final = "urn:logfeed:problem:"
_NOTHING_ACCEPTED: Final = f"{_OURS}nothing-accepted"
_REASONS_MAX: Final = 100
_TEXT_CHARS_MAX: Final = 300


class Trouble(StrEnum):
    """Why a batch waits."""

    AWAY = "away"
    """No connection, no answer in time, or 5xx."""
    BUSY = "busy"
    """429: more than may be sent."""
    CREDENTIALS = "credentials"
    """401 or 403: the key is not known, or may not send these logs."""
    FOREIGN = "foreign"
    """An answer that is none of Logfeed's: another address, a proxy."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why logs were rejected."""

    code: str
    text: str
    """The server's words on the first of them."""
    logs: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Each log is stored, filtered or rejected; the batch is done."""

    accepted: int
    filtered: int = 0
    rejected: int = 0
    reasons: tuple[Reason, ...] = ()
    """Of the logs that were rejected, one for each code; the server lists a hundred of them."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is known to be stored: the same again, later."""

    trouble: Trouble
    text: str
    asked_s: float | None = None
    """How long the server wants to be left alone."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Nothing is stored; half of it may pass."""

    text: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is stored, and never will be."""

    text: str


Outcome = Taken | Wait | TooLarge | Refused


def judge(status: int, headers: Mapping[str, str], body: bytes, *, logs: int, now_s: float) -> Outcome:
    """headers: of httpx, in any case. logs: of the batch. now_s: since 1970. Raises nothing."""
    document = _document(body)
    text = _text(status, document, body)
    if status in (200, 201):
        taken = _taken(document)
        return taken if taken is not None else Wait(Trouble.FOREIGN, "the answer is none of Logfeed's")
    is_ours = str(document.get("type", "")).startswith(_OURS)
    if status == 422 and document.get("type") == _NOTHING_ACCEPTED:
        return Taken(0, rejected=logs, reasons=_reasons(document, logs))
    if status == 413:
        return TooLarge(text)
    if status in (400, 415, 422) and is_ours:
        return Refused(text)
    asked_s = retry_after_s(headers.get("Retry-After"), now_s)
    if status in (401, 403):
        return Wait(Trouble.CREDENTIALS, text, asked_s)
    if status == 429:
        return Wait(Trouble.BUSY, text, asked_s)
    if status == 408 or status >= 500:
        return Wait(Trouble.AWAY, text, asked_s)
    return Wait(Trouble.FOREIGN, text, asked_s)


def _taken(document: Mapping[str, Any]) -> Taken | None:
    """None where the counts are not there."""
    accepted, rejected, filtered = (document.get(name) for name in ("accepted", "rejected_count", "filtered"))
    if type(accepted) is not int or type(rejected) is not int or not isinstance(filtered, dict):
        return None
    dropped = [count for count in filtered.values() if type(count) is int]
    if min(accepted, rejected, *dropped, 0) < 0:
        return None
    return Taken(accepted, sum(dropped), rejected, _reasons(document, rejected))


def _reasons(document: Mapping[str, Any], rejected: int) -> tuple[Reason, ...]:
    """The codes that are listed; logs that are not listed count for the first of them."""
    found: dict[str, Reason] = {}
    listed = document.get("rejected")
    items = [item for item in (listed if isinstance(listed, list) else [])[:_REASONS_MAX] if isinstance(item, dict)]
    for item in items[:rejected]:
        code = str(item.get("code"))[:60]
        before = found.get(code) or Reason(code, str(item.get("error"))[:_TEXT_CHARS_MAX], 0)
        found[code] = replace(before, logs=before.logs + 1)
    rest = rejected - sum(reason.logs for reason in found.values())
    if rest > 0:
        first = next(iter(found.values()), Reason("unknown", "", 0))
        found[first.code] = replace(first, logs=first.logs + rest)
    return tuple(found.values())


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _text(status: int, document: Mapping[str, Any], body: bytes) -> str:
    """One line for people."""
    said = document.get("detail") or document.get("title") or body[:_TEXT_CHARS_MAX].decode("utf-8", "replace")
    return f"HTTP {status}: {' '.join(str(said).split())[:_TEXT_CHARS_MAX]}"
