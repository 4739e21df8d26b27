"""What was read of a body of any format: the one form in which formats hand logs on.

A log's metadata are JSON text, written by whoever read it. Where all logs of a body are unremarkable nobody opens these
(`ingest/quick.py`); else they are opened, log by log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ingest.errors import BodyTooLarge
from ingest.parse import Malformed
from ingest.quick import PlainLog
from schemas.frames import FRAME_DECODED_BYTES_MAX

EXPANDED_BYTES_MAX: Final = FRAME_DECODED_BYTES_MAX // 2
"""Most bytes of metadata of one request, where what logs share is written into each of them."""
BRACKETS_MAX: Final = 500_000
"""Most objects of a body of JSON, and most arrays: of empty ones each would take 100 bytes. 8 MiB of logs have fewer."""
COMMAS_MAX: Final = 1_000_000
"""Most commas of a body of JSON that is to be taken apart since something in it is wrong: each item would take 60 bytes."""


@dataclass(frozen=True, slots=True)
class Records:
    """What a body holds."""

    logs: Sequence[PlainLog | Malformed]
    """In the body's order; their place is their index in `Received`. A service of None is the key's."""
    have_own_times: bool
    """Whether each says its own time, or has an id of the client's, so that the same body means the same records."""
    expanded_bytes: int = 0
    """What the records take beyond the body's size, since what they share is written into each."""
    place: str = ""
    """What of the request's head says what its records are: the same body elsewhere is another one."""


def check_brackets(body: bytes) -> None:
    """Before JSON is decoded. Raises BodyTooLarge. Costs nothing of bodies below half a megabyte."""
    if len(body) > BRACKETS_MAX and max(body.count(b"{"), body.count(b"[")) > BRACKETS_MAX:
        raise BodyTooLarge(f"the body has more than {BRACKETS_MAX} JSON objects or arrays: send several requests")


def check_commas(body: bytes) -> None:
    """Before JSON is taken apart item by item. Raises BodyTooLarge."""
    if len(body) > COMMAS_MAX and body.count(b",") > COMMAS_MAX:
        raise BodyTooLarge(
            f"something in the body is not as it should be, and it has more than {COMMAS_MAX} commas, too many to look for"
            " it: send several requests"
        )
