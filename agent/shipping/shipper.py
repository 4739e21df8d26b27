"""Reading, writing down, sending, in turn.

Concurrency: one task, and one thread that does all that blocks, so files and checkpoint are never touched by two at
once. While a request is on its way the next one is made, and no more: a server that is away stops the reading, and what
is not read lies in the files. Names are looked at all the while, so that no rotation is missed.

What is on its way was written down with its body. So nothing depends on what becomes of this process: see the package.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog
import zstandard

from agent.metrics import AWAY_SECONDS, BATCHES_RETRIED, LINES
from agent.shipping.batches import Batch, Collector
from agent.shipping.checkpoint import Checkpoint, Part, write_state
from agent.shipping.files import FileSet
from agent.shipping.sending import Away, KeyUsed, Sender, Stored, TooLarge
from agent.shipping.tailed import ShippedRoot
from agent.shipping.tailing import Tailer
from runtime.clock import Clock
from runtime.patience import pause_before
from runtime.stopping import Stop

log = structlog.get_logger(__name__)

POLL_S: Final = 0.25
"""Seconds between two looks for new lines, when there were none."""
_SAVE_S: Final = 5.0
"""Places that moved without a request are written down so often."""
LAST_ANSWER_S: Final = 5.0
"""How long a stop waits for the answer to a request that is on its way."""
_DISK_PAUSE_S: Final = 2.0
_REFUSED_PAUSE_S: Final = 5.0
_COLLECT_EVERY: Final = 16
"""Requests. Each leaves a few objects that refer to one another, with its body: too few for the collector to look by
itself, and many bytes."""
_BODY_BYTES_MAX: Final = 32 * 1024 * 1024

Result = TypeVar("Result")


class Shipper:
    """Sends what is written to the files of some roots."""

    def __init__(
        self,
        roots: Sequence[ShippedRoot],
        checkpoint: Checkpoint,
        new_sender: Callable[[], Sender],
        clock: Clock,
        *,
        host: str,
        files_max: int,
        batch_bytes_max: int,
        unfinished_line_s: float,
        scan_s: float,
        is_closed_segment: Callable[[str], bool],
        chance: Callable[[], float],
    ) -> None:
        """new_sender: with the key in force. is_closed_segment: of a file of a root whose lines are ready: nothing is
        written to it any more. chance: 0..1, spreads agents that wait for one server. Raises StateError."""
        self._checkpoint, self._clock, self._chance = checkpoint, clock, chance
        self._new_sender, self._sender = new_sender, new_sender()
        self._scan_s = scan_s
        self._state, self._body = checkpoint.load()
        self._files = FileSet(roots, self._state, files_max=files_max)
        tailer = Tailer(self._files, host=host, unfinished_line_s=unfinished_line_s)
        self._collector = Collector(
            self._files, tailer, self._state, batch_bytes_max=batch_bytes_max, is_closed_segment=is_closed_segment
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shipper")
        self._scanned_s = self._saved_s = float("-inf")
        self._saved = b""
        self._requests = 0
        self._away_since_s: float | None = None
        self.problem: str | None = None
        """What keeps lines from the server now, for people."""

    async def run(self, stop: Stop) -> None:
        """Send until the stop."""
        try:
            if self._state.parts and await self._deliver(list(self._state.parts), self._body, stop):
                await self._write_parts([], b"", stop)
            self._body = b""
            batch: Batch | None = None
            while not stop.is_set:
                batch = batch or await self._collected()
                if batch is None:
                    await self._idle()
                    await stop.wait(POLL_S)
                    continue
                if not await self._write_down(batch.state, stop):
                    break
                await self._do(partial(_remove, batch.removable))  # what is in them is sent, or in the state
                batch = await self._sent(batch, stop)
        finally:
            await self._close()

    async def _sent(self, batch: Batch, stop: Stop) -> Batch | None:
        """Send one; the next one, made meanwhile."""
        sending = asyncio.create_task(self._deliver([batch.part], batch.body, stop))
        following: Batch | None = None
        try:
            following = await self._collected()
            while not sending.done():
                await asyncio.wait({sending}, timeout=self._scan_s)
                if not sending.done():
                    await self._do(self._scan_when_due)
            if not sending.result():
                return None
        finally:
            if not sending.done():
                sending.cancel()
                await asyncio.wait({sending})
        self._requests += 1
        if self._requests % _COLLECT_EVERY == 0:
            gc.collect()
        if following is None:
            await self._do(self._save)
        elif stop.is_set:
            # The places are those behind the next one by now: what was written down goes without its request.
            await self._write_parts([], b"", stop)
        return following

    async def _collected(self) -> Batch | None:
        def collect() -> Batch | None:
            self._scan_when_due()
            return self._collector.collect(self._clock.now_us(), self._clock.monotonic_s())

        return await self._do(collect)

    async def _idle(self) -> None:
        if self._clock.monotonic_s() - self._saved_s >= _SAVE_S:
            await self._do(self._save)

    def _scan_when_due(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._scanned_s >= self._scan_s:
            self._files.scan(self._clock.now_us(), now_s)
            self._scanned_s = now_s

    def _save(self) -> None:
        """That nothing is on its way, and where the places are."""
        self._saved_s = self._clock.monotonic_s()
        raw = self._collector.snapshot()
        if raw != self._saved:
            try:
                self._checkpoint.save(raw)
            except OSError as error:
                log.warning("the state cannot be written", reason=error.strerror)
                return
            self._saved = raw
        _remove(self._collector.removable())

    async def _write_down(self, raw: bytes, stop: Stop) -> bool:
        """Until it is; False when the stop came first."""
        self._saved = b""
        while True:
            try:
                await self._do(lambda: self._checkpoint.save(raw))
            except OSError as error:
                self.problem = f"the state cannot be written: {error.strerror}"
                log.warning("the state cannot be written: nothing is sent", reason=error.strerror)
                if await stop.wait(_DISK_PAUSE_S):
                    return False
            else:
                return True

    async def _deliver(self, parts: list[Part], body: bytes, stop: Stop) -> bool:
        """Send until the server has all parts; False when the stop came first: they are written down."""
        while parts:
            part, data = parts[0], body[: parts[0].size]
            match await self._stored(part, data, stop):
                case None:
                    return False
                case Stored() as stored:
                    self._count(stored)
                    parts, body = parts[1:], body[part.size :]
                case KeyUsed():
                    log.error("the state is older than what was sent with it: lines may be stored twice", key=part.key)
                    again = Part(os.urandom(32).hex(), part.size, part.logs)
                    parts = [again, *parts[1:]]
                    if not await self._write_parts(parts, body, stop):
                        return False
                case TooLarge(reason):
                    halves = await self._do(partial(_halved, part, data))
                    if not halves:
                        log.error("one log is too large for the server, and left out", reason=reason)
                        LINES.labels(outcome="rejected").inc(part.logs)
                        parts, body = parts[1:], body[part.size :]
                        continue
                    parts = [*(half for half, _ in halves), *parts[1:]]
                    body = b"".join(text for _, text in halves) + body[part.size :]
                    if not await self._write_parts(parts, body, stop):
                        return False
        return True

    async def _write_parts(self, parts: list[Part], body: bytes, stop: Stop) -> bool:
        """The same places, with the request in other parts."""

        def written() -> bytes:
            state, _ = self._checkpoint.load()
            state.parts = parts
            return write_state(state, body)

        return await self._write_down(await self._do(written), stop)

    async def _stored(self, part: Part, data: bytes, stop: Stop) -> Stored | KeyUsed | TooLarge | None:
        """A final answer, however long it takes; None when the stop came first."""
        attempt = 0
        while True:
            sending = asyncio.create_task(self._sender.send(part, data))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({sending, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                await asyncio.wait({sending}, timeout=LAST_ANSWER_S)
            stopping.cancel()
            if not sending.done():
                sending.cancel()
                await asyncio.wait({sending})
                return None
            outcome = sending.result()
            if not isinstance(outcome, Away):
                self._is_back()
                return outcome
            self._is_away(outcome)
            if outcome.is_refusal:
                await self._renew_sender()
            pause_s = pause_before(attempt, outcome.pause_s, self._chance())
            if await stop.wait(max(pause_s, _REFUSED_PAUSE_S) if outcome.is_refusal else pause_s):
                return None
            attempt += 1
            BATCHES_RETRIED.inc()

    def _is_away(self, outcome: Away) -> None:
        now_s = self._clock.monotonic_s()
        if self._away_since_s is None:
            self._away_since_s = now_s
        if outcome.reason != self.problem:
            log.warning("the server takes no logs: they wait in their files", reason=outcome.reason)
        self.problem = outcome.reason
        AWAY_SECONDS.set(max(0.001, now_s - self._away_since_s))

    def _is_back(self) -> None:
        if self._away_since_s is not None:
            log.info("the server takes logs again", away_s=round(self._clock.monotonic_s() - self._away_since_s, 1))
        self._away_since_s = self.problem = None
        AWAY_SECONDS.set(0)

    async def _renew_sender(self) -> None:
        """With the key as it is now: somebody may have put another one there."""
        with suppress(Exception):  # a key that cannot be read now leaves the one that there is
            renewed = await self._do(self._new_sender)
            old, self._sender = self._sender, renewed
            await old.close()

    def _count(self, stored: Stored) -> None:
        LINES.labels(outcome="accepted").inc(stored.accepted)
        LINES.labels(outcome="filtered").inc(stored.filtered)
        LINES.labels(outcome="rejected").inc(stored.rejected)
        if stored.rejected:
            log.warning("the server rejected logs", logs=stored.rejected, reasons=stored.reasons)

    async def _do(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _close(self) -> None:
        await self._do(self._files.close)
        self._thread.shutdown()
        await self._sender.close()


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _halved(part: Part, data: bytes) -> list[tuple[Part, bytes]]:
    """Two requests instead of one; none when it has but one log. The keys follow from its own, so whoever halves it again gets
    the same."""
    lines = zstandard.ZstdDecompressor().decompress(data, max_output_size=_BODY_BYTES_MAX).splitlines(keepends=True)
    if len(lines) < 2:
        return []
    middle = len(lines) // 2
    compressor = zstandard.ZstdCompressor(level=1)
    halves = []
    for number, some in enumerate((lines[:middle], lines[middle:])):
        text = compressor.compress(b"".join(some))
        key = hashlib.sha256(f"{part.key} {number}".encode()).hexdigest()
        halves.append((Part(key, len(text), len(some)), text))
    return halves
