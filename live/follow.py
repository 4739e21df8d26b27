"""Follows the broker: one reader at its live end for everybody in a process, and others that catch up with it.

    async with follower.subscribe(positions) as subscription:   # None: from now on
        async for event in subscription:                        # Batch or Gap, in offset order of each partition
            …; save(subscription.positions)                     # resumes exactly here

Whoever begins at older offsets reads them through a reader of its own until it meets the live end, and is then given what the
live reader reads: each record once, without a gap in between (`Place`). One that does not keep up loses nothing and holds
nobody up: what waits for it is bounded in bytes, and past that it reads again by itself from where it stood.

`attach` is the other way in, for who must never wait: a function that is called with each event of the live end, and joins
after `catch_up`.

What cannot be read is said (Gap): expired records, a topic that was made again, records of a newer program. Trouble passes by
itself: while the broker is away nothing comes, a partition without a leader waits alone, new partitions are noticed. That a
log ends before what was read from it is believed at the third look, since a leader that lost its office may show that.

Concurrency: one event loop. `run` is one task and alone calls sinks; a subscription belongs to one task. While nobody
subscribes nothing is read. Memory: what was read lately (`recent_bytes_max`); one poll and what its records decode to, one at
a time, for the live reader and each of `catch_ups_max`; `queue_bytes_max` a subscription.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Final

import structlog

from broker.port import Broker, Delivered, Reader
from live import metrics
from live.events import EVENT_BYTES, Batch, Event, Gap, GapReason, Place, Recent
from live.frames import read_lines
from live.keys import FirstFrames, KeyPlace, StoredKeys
from live.settings import LiveSettings
from runtime.sparing import SparingLog
from runtime.stopping import Stop
from schemas.errors import DatabaseUnavailable, OffsetOutOfRange, Overloaded
from schemas.frames import FrameError, FrameHeader, UnknownRecordVersion, decode_headers

log = structlog.get_logger(__name__)

Sink = Callable[[Event], None]
"""Is given each event of the live end. Must not block, and must not raise."""

_POLL_MS: Final = 200
_TURN_S: Final = 2.0
"""How long one subscriber reads older offsets while others wait to."""
_UNSERVED_S: Final = 0.002
"""How long decoding keeps the event loop to itself, and the record that it is at then."""
_BACKOFF_S_MAX: Final = 5.0
_SHORT_ENDS_BELIEVED: Final = 3
"""Looks in a row that must find a log shorter than what was read from it."""
_SHORT_PAUSE_S: Final = 0.3
"""Between two of them."""
_LEADERS_S: Final = 1.0
"""How often partitions without a leader are looked at."""
_ASK_AGAIN_S: Final = 0.2
"""Between two questions that a record waits for."""
_UNASKED_S: Final = 3.0
"""How long the database is left alone when it did not answer while records waited for it. Each question may hold them up for
as long as its answer may take: short, since repeats are shown until one is answered."""


class Follower:
    """Follows one topic. Composed by the caller; run by one task."""

    def __init__(
        self, broker: Broker, settings: LiveSettings, *, group: str, stored_keys: StoredKeys | None = None
    ) -> None:
        """broker: opened before `run`, closed by the caller. group: names the readers to the broker. stored_keys: None knows
        repeats only of what was read here."""
        self._broker = broker
        self._settings = settings
        self._group = group
        self._stored_keys = stored_keys
        self._waits_until_s: float | None = None
        """Since the database did not answer: until when records wait for it."""
        self._unasked_until_s = 0.0
        self._firsts = FirstFrames(keys_max=settings.keys_max, keys_s=settings.keys_s)
        self._live: dict[int, int] = {}
        """Partition -> offset of the event that sinks get next; empty while nothing is read."""
        self._began_with = 0
        """Partitions there were when the live end was learnt."""
        self._recent = Recent(bytes_max=settings.recent_bytes_max)
        self._sinks: dict[Sink, None] = {}
        self._users = 0
        self._wanted = asyncio.Event()
        self._is_live = asyncio.Event()
        self._catch_ups = asyncio.Semaphore(settings.catch_ups_max)
        self._repeated = SparingLog(log)

    @property
    def positions(self) -> Mapping[int, int]:
        """Partition -> offset of the event that sinks get next. Changes between awaits only; empty while nothing is read."""
        return self._live

    async def run(self, stop: Stop) -> None:
        """Read for whoever subscribes, until the stop."""
        backoff_s = 0.1
        while not stop.is_set:
            if not self._users:
                self._wanted.clear()
                self._is_live.clear()
                self._live = {}
                self._recent.clear()
                await _either(self._wanted, stop)
                continue
            try:
                await self._session(stop)
                backoff_s = 0.1
            except Overloaded as error:
                self._repeated.warning("the broker cannot be followed now, trying again", error=str(error))
                await stop.wait(backoff_s)
                backoff_s = min(backoff_s * 2, _BACKOFF_S_MAX)
            except Exception as error:
                self._repeated.exception("following the broker failed, trying again", error)
                await stop.wait(_BACKOFF_S_MAX)

    @asynccontextmanager
    async def using(self) -> AsyncIterator[None]:
        """While inside, the live end is read. `subscribe` does this by itself."""
        self._users += 1
        metrics.SUBSCRIBERS.set(self._users)
        self._wanted.set()
        try:
            yield
        finally:
            self._users -= 1
            metrics.SUBSCRIBERS.set(self._users)

    async def live(self) -> dict[int, int]:
        """The live end, once it is known: for who begins now. Only inside `using`."""
        await self._is_live.wait()
        return dict(self._live)

    def attach(self, sink: Sink) -> None:
        """Call the sink with every event from `positions` on."""
        self._sinks[sink] = None

    def detach(self, sink: Sink) -> None:
        """No more. Harmless when repeated."""
        self._sinks.pop(sink, None)

    @asynccontextmanager
    async def subscribe(self, positions: Mapping[int, int] | None = None) -> AsyncIterator[Subscription]:
        """A subscription from these offsets on (partition -> next offset; partitions that are not named from their oldest
        record on), or from now on. Nothing is lost while it is open, however slowly it is read."""
        async with self.using():
            subscription = Subscription(self, self._settings, positions)
            try:
                yield subscription
            finally:
                await subscription.close()

    async def catch_up(self, place: Place, join: Callable[[], None]) -> AsyncGenerator[Event, None]:
        """Events from the place, which moves along, to the live end; there `join` is called, once: nothing lies between the
        place and what a sink that it attaches is given. Only inside `using`.

        Waits for one of `catch_ups_max` places, and while the broker is away; gives its place to others that wait when it has
        had it for a while. Close it (`contextlib.aclosing`).
        """
        has_joined = False

        def joined() -> None:
            nonlocal has_joined
            has_joined = True
            join()

        await self._is_live.wait()
        backoff_s = 0.1
        while not has_joined:
            while self._recent.covers(place, self._live):
                # Most are hardly behind: what was read lately is still here, and nobody has to read it again.
                if place.has_reached(self._live):
                    join()
                    return
                has_moved = False
                for event in self._recent.events():
                    if place.takes(event):
                        has_moved = True
                        yield event
                if not has_moved:
                    break  # whatever this place is: the broker knows, and asking it lets others go on
            try:
                async with self._catch_ups, aclosing(self._read_up(place, joined)) as events:
                    metrics.CATCH_UPS.inc()
                    try:
                        async for event in events:
                            yield event
                    finally:
                        metrics.CATCH_UPS.dec()
                continue
            except Overloaded as error:
                self._repeated.warning("older offsets cannot be read now, trying again", error=str(error))
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_S_MAX)

    async def _read_up(self, place: Place, join: Callable[[], None]) -> AsyncGenerator[Event, None]:
        """Events between the place and the live end, through a reader of its own. Raises Overloaded."""
        reader = await self._broker.reader(group=self._group)
        source = _Source(reader)
        looked_s = -math.inf
        ends_s = time.monotonic() + _TURN_S
        try:
            while not (self._catch_ups.locked() and time.monotonic() > ends_s):
                unknown = self._live.keys() - place.positions.keys()
                if unknown and time.monotonic() - looked_s > _LEADERS_S:
                    looked_s = time.monotonic()
                    place.positions |= await reader.first_offsets(sorted(unknown))
                positions = {partition: place.positions[partition] for partition in self._live.keys() & place.positions}
                async with aclosing(self._events(source, positions)) as events:
                    async for event in events:
                        if place.takes(event):
                            yield event
                if source.is_sound and place.has_reached(self._live):
                    join()
                    return
        finally:
            await reader.close()

    # --- the live end ---------------------------------------------------------------------------------------------

    async def _session(self, stop: Stop) -> None:
        """Read through one reader until nobody listens, or there are new partitions. Raises Overloaded."""
        reader = await self._broker.reader(group=self._group)
        source = _Source(reader)
        try:
            partitions = self._broker.partitions
            is_whole = await self._begin(reader, partitions)
            looked_s = leaders_s = time.monotonic()
            while self._users and not stop.is_set:
                async with aclosing(self._events(source, self._live)) as events:
                    async for event in events:
                        self._live[event.partition] = event.next_offset
                        self._hand_out(event)
                now_s = time.monotonic()
                if not is_whole and now_s - leaders_s >= _LEADERS_S:
                    leaders_s = now_s
                    is_whole = await self._begin(reader, partitions)
                if now_s - looked_s >= self._settings.look_again_s:
                    looked_s = now_s
                    await self._broker.look_again()
                    if self._broker.partitions > partitions:
                        log.info("the topic has more partitions", now=self._broker.partitions)
                        return
        finally:
            await reader.close()

    async def _begin(self, reader: Reader, partitions: int) -> bool:
        """Learn where the live end of partitions without a position is; True when there are no such ones left."""
        unknown = [partition for partition in range(partitions) if partition not in self._live]
        if not self._live:
            self._began_with = partitions
        # Later ones are new: all of their records came while somebody listened.
        if old := [partition for partition in unknown if partition < self._began_with]:
            self._live |= await reader.end_offsets(old)
        if new := [partition for partition in unknown if partition >= self._began_with]:
            self._live |= await reader.first_offsets(new)
        if self._live:
            self._is_live.set()
        return len(self._live) >= partitions

    def _hand_out(self, event: Event) -> None:
        self._recent.add(event)
        if isinstance(event, Batch):
            metrics.LOGS.inc(len(event.logs))
        for sink in list(self._sinks):
            try:
                sink(event)
            except Exception:
                # A defect of one must not end what all others are given.
                log.exception("a subscriber failed", partition=event.partition, offset=event.offset)

    # --- records to events ----------------------------------------------------------------------------------------

    async def _events(self, source: _Source, positions: Mapping[int, int]) -> AsyncGenerator[Event, None]:
        """What one poll from these positions gives; they may move meanwhile, as the caller takes events. Raises Overloaded."""
        try:
            records = await source.poll(positions, self._settings.poll_bytes_max)
        except OffsetOutOfRange as error:
            gap = source.gap(error)
            if gap is None:
                await asyncio.sleep(_SHORT_PAUSE_S)
                return
            log.warning(
                "records cannot be read any more", partition=gap.partition, reason=str(gap.reason), error=str(error)
            )
            metrics.GAPS.labels(gap.reason).inc()
            yield gap
            return
        headers = [_header(record) for record in records]
        await self._ask_database(headers)
        served_s = time.monotonic()
        for record, header in zip(records, headers, strict=True):
            source.handed_out(record)
            yield self._event(record, header)
            if time.monotonic() - served_s > _UNSERVED_S:
                await asyncio.sleep(0)
                served_s = time.monotonic()

    async def _ask_database(self, headers: list[FrameHeader | UnknownRecordVersion | None]) -> None:
        """Learn of keys that were not read here. A database that is restarted is waited for, one that stays away is not."""
        unknown = {
            header.key_hash
            for header in headers
            if isinstance(header, FrameHeader)
            and header.key_hash is not None
            and not self._firsts.knows(header.key_hash)
        }
        if not unknown or self._stored_keys is None:
            return
        while time.monotonic() >= self._unasked_until_s:
            try:
                self._firsts.learn(await self._stored_keys(unknown), time.monotonic())
                self._waits_until_s = None
                return
            except DatabaseUnavailable as error:
                if self._waits_until_s is None:
                    self._waits_until_s = time.monotonic() + self._settings.keys_wait_s
                if time.monotonic() < self._waits_until_s:
                    await asyncio.sleep(_ASK_AGAIN_S)
                    continue
                self._unasked_until_s = time.monotonic() + _UNASKED_S
                self._repeated.warning("repeats of older requests are not told now", error=str(error))

    def _event(self, record: Delivered, header: FrameHeader | UnknownRecordVersion | None) -> Event:
        following = record.offset + 1
        if isinstance(header, UnknownRecordVersion):
            self._repeated.warning("a newer program wrote a record: upgrade this one", error=str(header))
            metrics.GAPS.labels(GapReason.NEWER).inc()
            return Gap(record.partition, record.offset, following, GapReason.NEWER)
        empty = Batch(record.partition, record.offset, following, record.append_ms, [])
        if header is None:
            metrics.SKIPPED.labels("record").inc()
            return empty
        place = KeyPlace(record.partition, record.offset)
        if header.key_hash is not None and not self._firsts.is_first(header.key_hash, place, time.monotonic()):
            metrics.REPEATS.inc()
            return empty
        try:
            lines = read_lines(record, header)
        except FrameError as error:
            metrics.SKIPPED.labels("record").inc()
            self._repeated.warning("a record was left out", error=str(error))
            return empty
        if lines.skipped:
            metrics.SKIPPED.labels("line").inc(lines.skipped)
        return Batch(
            record.partition,
            record.offset,
            following,
            record.append_ms,
            lines.logs,
            EVENT_BYTES + lines.size_bytes,
        )


class Subscription:
    """Events for one task, which iterates over it. Made by `Follower.subscribe`."""

    def __init__(self, follower: Follower, settings: LiveSettings, positions: Mapping[int, int] | None) -> None:
        """See Follower.subscribe."""
        self._follower = follower
        self._queue_bytes_max = settings.queue_bytes_max
        self._place = None if positions is None else Place(dict(positions))
        self._given: dict[int, int] = dict(positions or {})
        self._waiting: deque[Event] = deque()
        self._waiting_bytes = 0
        self._has_some = asyncio.Event()
        self._is_attached = False
        self._events = self._run()

    @property
    def positions(self) -> dict[int, int]:
        """Partition -> next offset after the events that were given: subscribing from here goes on exactly there."""
        return dict(self._given)

    def __aiter__(self) -> AsyncIterator[Event]:
        """Each event, for ever."""
        return self._events

    async def close(self) -> None:
        """See Follower.subscribe."""
        self._follower.detach(self.sink)
        await self._events.aclose()

    async def _run(self) -> AsyncGenerator[Event, None]:
        if self._place is None:
            self._place = Place(await self._follower.live())
            self._given = dict(self._place.positions)
            self._join()
        while True:
            if not self._is_attached:
                async with aclosing(self._follower.catch_up(self._place, self._join)) as events:
                    async for event in events:
                        yield self._give(event)
            while self._is_attached or self._waiting:
                if not self._waiting:
                    self._has_some.clear()
                    await self._has_some.wait()
                    continue
                event = self._waiting.popleft()
                self._waiting_bytes -= event.size_bytes
                yield self._give(event)

    def sink(self, event: Event) -> None:
        """Takes an event of the live end; past the bound it goes back to reading by itself."""
        assert self._place is not None, "attached with a place"
        has_room = not self._waiting or self._waiting_bytes + event.size_bytes <= self._queue_bytes_max
        taken = self._place.takes(event) if has_room else None
        if taken is None:
            self._follower.detach(self.sink)
            self._is_attached = False
        elif taken:
            self._waiting.append(event)
            self._waiting_bytes += event.size_bytes
        self._has_some.set()

    def _join(self) -> None:
        self._follower.attach(self.sink)
        self._is_attached = True

    def _give(self, event: Event) -> Event:
        self._given[event.partition] = event.next_offset
        return event


class _Source:
    """A reader with the positions it was sought to: it is sought again only when somebody stands elsewhere."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._at: dict[int, int] | None = None
        self._short: dict[int, int] = {}
        """Partition -> looks in a row that found its log too short."""
        self.is_sound = False
        """The broker has what the last poll asked for, or will have it next."""

    async def poll(self, positions: Mapping[int, int], max_bytes: int) -> list[Delivered]:
        """Records from the positions on. Raises OffsetOutOfRange, Overloaded."""
        self.is_sound = False
        if self._at != positions:
            self._at = dict(positions)
            await self._reader.seek(self._at)
        try:
            records = await self._reader.poll(max_bytes=max_bytes, wait_ms=_POLL_MS)
        except BaseException:
            self._at = None
            raise
        self._short.clear()
        self.is_sound = True
        return records

    def handed_out(self, record: Delivered) -> None:
        """The caller is given the record now."""
        if self._at is not None:
            self._at[record.partition] = record.offset + 1

    def gap(self, error: OffsetOutOfRange) -> Gap | None:
        """What is missing; None when that is not certain yet."""
        if error.wanted < error.first:
            return Gap(error.partition, error.wanted, error.first, GapReason.EXPIRED)
        looks = self._short.get(error.partition, 0) + 1
        self._short = {error.partition: looks}
        if looks < _SHORT_ENDS_BELIEVED:
            return None
        self._short = {}
        return Gap(error.partition, error.wanted, error.first, GapReason.REMADE)


def _header(record: Delivered) -> FrameHeader | UnknownRecordVersion | None:
    """The header, why a newer program is needed, or None for what is no frame."""
    try:
        return decode_headers(record.headers)
    except UnknownRecordVersion as error:
        return error
    except FrameError:
        return None


async def _either(event: asyncio.Event, stop: Stop) -> None:
    """Wait for one of them."""
    waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(stop.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for each in waits:
        each.cancel()
