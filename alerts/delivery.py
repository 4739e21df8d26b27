"""Sends what waits: one task a channel, so that one that hangs holds up no other.

A message is sent, then marked as sent: killed in between, it goes once more with the same id. What fails is tried again,
later and later, until `attempts_max`; what cannot go at all is dead at once, with the reason. Only the leader runs this.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from alerts import metrics
from alerts.channels.factory import Channels
from alerts.channels.port import Channel, Message
from alerts.errors import DeliveryRefused
from alerts.messages import encode
from alerts.outbox import Outbox, Waiting, pause_s
from alerts.settings import AlertSettings
from runtime.sparing import SparingLog
from runtime.stopping import Stop
from schemas.errors import LogfeedError, Overloaded

log = structlog.get_logger(__name__)

_LOOK_S: Final = 1.0


class Delivery:
    """All channels."""

    def __init__(self, settings: AlertSettings, outbox: Outbox, channels: Channels) -> None:
        """channels: closed by the caller."""
        self._settings = settings
        self._outbox = outbox
        self._channels = channels
        self._wake = {name: asyncio.Event() for name in channels.by_name}
        self._repeated = SparingLog(log)

    def wake(self) -> None:
        """There may be new messages."""
        for event in self._wake.values():
            event.set()

    async def run(self, stop: Stop) -> None:
        """Send until the stop, or until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_after(stop))
            for name, channel in self._channels.by_name.items():
                group.create_task(self._work(name, channel, stop), name=f"channel {name}")

    async def _look_after(self, stop: Stop) -> None:
        while not stop.is_set:
            try:
                if dead := await self._outbox.end_of_others(list(self._channels.by_name)):
                    log.warning("messages to channels that are gone will not be sent", messages=dead)
                metrics.WAITING.set(await self._outbox.waiting())
            except Overloaded as error:
                self._repeated.warning("the outbox cannot be read now", error=str(error))
            await stop.wait(_LOOK_S)

    async def _work(self, name: str, channel: Channel, stop: Stop) -> None:
        wake = self._wake[name]
        while not stop.is_set:
            wake.clear()
            try:
                waiting = await self._outbox.due(name)
                if waiting is not None:
                    await self._send(name, channel, waiting)
                    continue
            except Overloaded as error:
                self._repeated.warning("the outbox does not answer", error=str(error))
            try:
                async with asyncio.timeout(_LOOK_S):
                    await wake.wait()
            except TimeoutError:
                pass

    async def _send(self, name: str, channel: Channel, waiting: Waiting) -> None:
        message = Message(waiting.notification_id, waiting.document, encode(waiting.document))
        try:
            async with asyncio.timeout(self._settings.send_s):
                await channel.send(message)
        except DeliveryRefused as error:
            await self._give_up(name, waiting, str(error))
            return
        except TimeoutError:
            problem = f"did not answer within {self._settings.send_s:g} s"
        except LogfeedError as error:
            problem = str(error)
        except Exception as error:
            # Whatever it is, the other messages and channels go on. Not its text: it may hold a secret.
            problem = f"unexpected {type(error).__name__}"
            log.error("a channel failed", channel=name, error=type(error).__name__)
        else:
            metrics.NOTIFICATIONS.labels(name, "sent").inc()
            await self._outbox.sent(waiting.notification_id)
            return
        attempts = waiting.attempts + 1
        if attempts >= self._settings.attempts_max:
            await self._give_up(name, waiting, f"{problem} ({attempts} attempts)")
            return
        metrics.NOTIFICATIONS.labels(name, "failed").inc()
        again_in_s = pause_s(attempts, longest_s=self._settings.backoff_max)
        self._repeated.warning(
            "a message was not sent, trying again", error=problem, channel=name, in_s=round(again_in_s, 1)
        )
        await self._outbox.failed(waiting.notification_id, problem, again_in_s=again_in_s)

    async def _give_up(self, name: str, waiting: Waiting, problem: str) -> None:
        metrics.NOTIFICATIONS.labels(name, "dead").inc()
        log.error(
            "a message will not be sent", channel=name, rule=waiting.rule, id=waiting.notification_id, error=problem
        )
        await self._outbox.dead(waiting.notification_id, problem)
