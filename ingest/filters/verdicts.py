"""What a filter says of a log, and what it may know beside the log.

A filter is a function of the log and the occasion. Expected outcomes are values; a filter never raises for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from ingest.buckets import TokenBucket
from schemas.record import Log, LogLine

AnyLog = Log | LogLine
"""A log with its metadata, or with their JSON text where no filter reads them."""


class Pass(msgspec.Struct, frozen=True):
    """The log goes on, as `log` where the filter changed it, else unchanged."""

    log: AnyLog | None = None


class Drop(msgspec.Struct, frozen=True):
    """The log ends here, counted under the filter's name."""

    filter: str


class Refuse(msgspec.Struct, frozen=True):
    """The whole request is refused; it may succeed after `retry_after_s` seconds."""

    filter: str
    retry_after_s: int


Verdict = Pass | Drop | Refuse
PASS: Final = Pass()
"""Goes on unchanged: one object, so that the common case allocates nothing."""


@dataclass(slots=True)
class Occasion:
    """The request a log came with. `index` moves along with the logs.

    key: hash of the Idempotency-Key; the chain is then a pure function of the body, but for refusing it as a whole.
    admitted: a retry of a request that was let in before: limits do not count it again.
    """

    now_s: float
    """Monotonic seconds."""
    key: bytes | None = None
    admitted: bool = False
    index: int = 0
    taken: dict[TokenBucket, int] = field(default_factory=dict)
    """Tokens this request took, given back when it is refused."""


@dataclass(frozen=True, slots=True)
class Gist:
    """What can be known of all logs of a request at once."""

    least_level: int
    services: Mapping[str, int]
    """Service -> number of logs."""


class Filter(Protocol):
    """One rule."""

    @property
    def name(self) -> str:
        """Name under which drops are counted."""

    @property
    def reads_metadata(self) -> bool:
        """False: `judge` may be given a `LogLine`."""

    def judge(self, log: AnyLog, occasion: Occasion) -> Verdict:
        """What becomes of the log. Must not change it in place, nor raise, nor wait."""

    def passes_all(self, gist: Gist, occasion: Occasion) -> bool:
        """True: every log passes unchanged, and whatever passing costs is taken. False: ask `judge`; nothing was taken.

        A shortcut: `judge`, asked of each log, must come to the same.
        """
