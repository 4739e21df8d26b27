"""Server-sent events of a tail (HTML Living Standard, 9.2; lines end as Logfeed ends them), piece by piece: pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from logfeed_client.errors import NotLogfeed
from logfeed_client.querying.results import Log, TailGap, logs_of

EVENT_BYTES_MAX: Final = 64 * 1024 * 1024
_FIRM: Final = frozenset({"credentials"})
"""Ends after which asking again would not help."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of a tail."""

    logs: list[Log]
    skipped: int = 0
    """Logs before these that were left out, because they were not taken in time."""
    gap: TailGap | None = None
    end: str | None = None
    """Why the server ends the tail."""
    detail: str = ""
    token: str | None = None
    """Where to go on behind this message."""

    @property
    def is_final(self) -> bool:
        """It has ended, and would again."""
        return self.end in _FIRM


class EventReader:
    """Finds whole events in what comes in. An event that was cut off is none."""

    def __init__(self) -> None:
        """At the begin of a stream."""
        self._rest = bytearray()
        self._looked_to = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of each event that is whole now. Raises NotLogfeed for one that does not end."""
        self._rest += piece
        found: list[bytes] = []
        # An end of two characters may begin with the last one that was looked at.
        while (end := self._rest.find(b"\n\n", max(0, self._looked_to - 1))) >= 0:
            event = bytes(self._rest[:end])
            del self._rest[: end + 2]
            self._looked_to = 0
            data = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
            if data:
                found.append(b"\n".join(data))
        self._looked_to = len(self._rest)
        if len(self._rest) > EVENT_BYTES_MAX:
            raise NotLogfeed(f"an event is longer than {EVENT_BYTES_MAX} bytes")
        return found


def frame_of(data: bytes) -> Frame:
    """An event's data. Raises NotLogfeed."""
    try:
        document: Any = json.loads(data)  # values of JSON
        gap, skipped, token = document.get("gap"), document.get("skipped"), document.get("token")
        if not (token is None or isinstance(token, str)) or not (skipped is None or type(skipped) is int):
            raise TypeError("token, skipped")
        return Frame(
            logs_of(document.get("logs") or []),
            skipped or 0,
            None if gap is None else TailGap(str(gap["reason"]), str(gap["query"])),
            None if document.get("end") is None else str(document["end"]),
            str(document.get("detail", "")),
            token,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotLogfeed(f"an event is none of Logfeed's: {data[:200].decode('utf-8', 'replace')!r}") from error
