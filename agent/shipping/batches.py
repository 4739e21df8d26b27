"""What goes into one request: logs of all files in turn, and everything that is to be remembered with it. Blocks; one thread.

Each log's files share a request: whoever has much to send gets what the others leave. Of the files of one log the oldest comes
first, so a renamed file is read to its end before the new one is begun.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import zstandard

from agent.shipping.checkpoint import Part, State, write_state
from agent.shipping.files import FileSet
from agent.shipping.tailed import Tailed
from agent.shipping.tailing import Tailer

LOGS_MAX: Final = 2_500
_SHARE_BYTES: Final = 128 * 1024
"""Of one file in one turn."""
_SHARE_LOGS: Final = 1_250
_BODY_BYTES_OPEN: Final = 5 * 1024 * 1024 // 2
"""A body of so many bytes gets no more: one share can become several times its bytes, and the server takes 8 MiB."""
_ZSTD_LEVEL: Final = 1


class Batch(NamedTuple):
    """One request. body: zstd of NDJSON. state: what is to be written down before it is sent."""

    part: Part
    body: bytes
    state: bytes
    removable: list[Path]
    """Files that nobody needs once the state is written down."""


class Collector:
    """Makes batches, one after the other."""

    def __init__(
        self,
        files: FileSet,
        tailer: Tailer,
        state: State,
        *,
        batch_bytes_max: int,
        is_closed_segment: Callable[[str], bool],
    ) -> None:
        """state: as loaded; its numbers are counted on here. is_closed_segment: of a file of a root whose lines are ready."""
        self._is_closed_segment = is_closed_segment
        self._files, self._tailer, self._state = files, tailer, state
        self._batch_bytes_max = batch_bytes_max
        self._turn = 0
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)

    def collect(self, now_us: int, now_s: float) -> Batch | None:
        """The next batch; None when there is nothing to send."""
        texts: list[bytes] = []
        logs = body_bytes = source_bytes = 0
        ranges = hashlib.sha256()
        families = self._families()
        while families:
            going_on: list[list[Tailed]] = []
            for members in families:
                room = min(self._batch_bytes_max - source_bytes, _SHARE_BYTES)
                if room <= 0 or logs >= LOGS_MAX or body_bytes >= _BODY_BYTES_OPEN:
                    going_on = []
                    break
                tailed = members[0]
                place = tailed.place
                begin = place.offset
                taken = self._tailer.take(
                    tailed,
                    bytes_max=max(room, 64 * 1024),
                    logs_max=min(_SHARE_LOGS, LOGS_MAX - logs),
                    now_us=now_us,
                    now_s=now_s,
                )
                if taken.logs:
                    texts.append(taken.text)
                    logs += taken.logs
                    body_bytes += len(taken.text)
                    ranges.update(f"{place.device} {place.inode} {place.head} {begin} {place.offset}\n".encode())
                source_bytes += taken.source_bytes
                if taken.has_more:
                    going_on.append(members)
                elif len(members) > 1:
                    going_on.append(members[1:])
            families = going_on
        return self._batch(b"".join(texts), logs, ranges.digest()) if logs else None

    def removable(self) -> list[Path]:
        """Files of ready lines that nobody writes to any more, and that were read to their end."""
        return [
            each.shipped.root.path / each.place.name
            for each in self._files.files
            if each.shipped.is_ready
            and not each.is_gone
            and each.descriptor >= 0
            and self._is_closed_segment(each.place.name)
            # As it is now, and after it was closed: what came since the last look would be gone with it.
            and each.place.offset == os.fstat(each.descriptor).st_size
        ]

    def snapshot(self) -> bytes:
        """What is to be remembered when nothing is on its way."""
        self._state.places, self._state.parts = self._files.places(), []
        return write_state(self._state, b"")

    def _families(self) -> list[list[Tailed]]:
        """Each time another one is the first."""
        families = self._files.families()
        self._turn += 1
        first = self._turn % len(families) if families else 0
        return families[first:] + families[:first]

    def _batch(self, text: bytes, logs: int, ranges: bytes) -> Batch:
        state = self._state
        state.batch += 1
        # The number tells a range from the same range of a file that was truncated and written again with the same bytes.
        key = hashlib.sha256(f"{state.agent_id} {state.batch} ".encode() + ranges).hexdigest()
        body = self._compressor.compress(text)
        part = Part(key, len(body), logs)
        state.places, state.parts = self._files.places(), [part]
        return Batch(part, body, write_state(state, body), self.removable())
