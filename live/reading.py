"""What a role that saves its positions reads (alerts, patterns), and how far everything was read.

Positions are of what was handed out and taken. A partition was read to the append time of its last record, or, where its end
offset, asked for at T, is the next one we want, to T: so quiet partitions hold nothing up. A partition without a leader does,
for `stall_s`; then the others go on without it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from broker.port import Broker, Reader
from live.arrivals import Arrivals
from live.events import Event, Gap
from runtime.clock import Clock
from runtime.sparing import SparingLog
from schemas.errors import Overloaded
from schemas.record import Log

log = structlog.get_logger(__name__)


class Reading:
    """Of one session of a leader. One task."""

    def __init__(
        self,
        broker: Broker,
        reader: Reader,
        clock: Clock,
        *,
        positions: dict[int, int],
        read_us: dict[int, int],
        stall_s: float,
        on_gap: Callable[[Gap], None],
    ) -> None:
        """reader: for questions about ends; closed by the caller. positions, read_us: as they were saved; changed in place.
        on_gap: told of records that cannot be read, before their partition counts as read further."""
        self._broker = broker
        self._reader = reader
        self._clock = clock
        self._stall_s = stall_s
        self._on_gap = on_gap
        self.positions = positions
        self.read_us = read_us
        self._answered_s: dict[int, float] = {}
        self._stalled: set[int] = set()
        self._arrivals: Arrivals | None = None
        self.gaps = 0
        self._repeated = SparingLog(log)

    async def begin(self) -> None:
        """Where nothing was saved: from now on. Raises BrokerUnavailable."""
        if not self.positions:
            asked_us = self._clock.now_us()
            self.positions.update(await self._reader.end_offsets(range(self._broker.partitions)))
            self.read_us.update(dict.fromkeys(self.positions, asked_us))

    async def next(self, events: AsyncIterator[Event], *, wait_s: float) -> Sequence[Log] | None:
        """The logs of the next record, which count as read when this returns; None where none came in time. events: the same
        at each call."""
        if self._arrivals is None:
            self._arrivals = Arrivals(events)
        event = await self._arrivals.next(wait_s)
        if event is None:
            return None
        self.positions[event.partition] = event.next_offset
        if isinstance(event, Gap):
            self.gaps += 1
            self._on_gap(event)
            return ()
        read_us = event.append_ms * 1000
        self.read_us[event.partition] = max(read_us, self.read_us.get(event.partition, 0))
        return event.logs

    async def look(self) -> None:
        """Ask which partitions were read to their ends. Trouble is told, and means that nobody knows."""
        asked_us, asked_s = self._clock.now_us(), self._clock.monotonic_s()
        partitions = range(self._broker.partitions)
        try:
            ends = await self._reader.end_offsets(partitions)
            unknown = [partition for partition in partitions if partition not in self.positions and partition in ends]
            firsts = await self._reader.first_offsets(unknown) if unknown else {}
        except Overloaded as error:
            self._repeated.warning("how far the broker's log goes cannot be asked now", error=str(error))
            return
        for partition, end in ends.items():
            self._answered_s[partition] = asked_s
            if self.positions.get(partition, firsts.get(partition)) == end:
                self.positions.setdefault(partition, end)
                self.read_us[partition] = max(asked_us, self.read_us.get(partition, 0))
        for partition in partitions:
            self._answered_s.setdefault(partition, asked_s)
        stalled = {partition for partition in partitions if asked_s - self._answered_s[partition] > self._stall_s}
        if stalled - self._stalled:
            log.warning("going on without partitions that have no leader", partitions=sorted(stalled))
        self._stalled = stalled

    @property
    def watermark_us(self) -> int:
        """Everything appended before was read, stalled partitions left out; 0 where that is not known yet."""
        waited_for = [partition for partition in range(self._broker.partitions) if partition not in self._stalled]
        return min((self.read_us.get(partition, 0) for partition in waited_for), default=0)

    async def end(self) -> None:
        """Nothing is read any more."""
        if self._arrivals is not None:
            await self._arrivals.end()
