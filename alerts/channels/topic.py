"""Records of a topic: one JSON message each, its id in a header. Where there is no Kafka, the stored notification is the
record, and the API serves it."""

from __future__ import annotations

from alerts.channels.port import Message
from alerts.errors import DeliveryFailed
from broker.port import Broker, Producer, Record
from schemas.errors import LogfeedError


class TopicChannel:
    """See Channel."""

    def __init__(self, broker: Broker) -> None:
        """broker: of the topic, not opened; closed here."""
        self._broker = broker
        self._producer: Producer | None = None

    async def send(self, message: Message) -> None:
        """See Channel. Alerts of one rule stay in order: they share a partition."""
        try:
            if self._producer is None:
                await self._broker.open()
                self._producer = await self._broker.producer()
            record = Record(message.body, [("notification", message.notification_id.encode()), ("v", b"1")])
            await self._producer.publish(record, partition_key=str(message.document["rule"]).encode())
        except LogfeedError as error:
            raise DeliveryFailed(str(error)) from error

    async def close(self) -> None:
        """See Channel."""
        if self._producer is not None:
            await self._producer.close()
        await self._broker.close()


class StoredChannel:
    """See Channel. What was stored with the decision is all there is to do."""

    async def send(self, message: Message) -> None:
        """See Channel."""

    async def close(self) -> None:
        """See Channel."""
