"""From settings to channels."""

from __future__ import annotations

import ssl

from alerts.channels.email import EmailChannel
from alerts.channels.port import Channel
from alerts.channels.safe_http import SafeHttp
from alerts.channels.slack import SlackChannel
from alerts.channels.topic import StoredChannel, TopicChannel
from alerts.channels.webhook import WebhookChannel
from alerts.settings import AlertSettings, EmailSettings, SlackSettings, TopicSettings, WebhookSettings
from broker.factory import make_broker
from broker.settings import BrokerSettings
from runtime.clock import Clock
from runtime.outgoing import Resolve, resolve


class Channels:
    """All channels of one process."""

    def __init__(
        self,
        settings: AlertSettings,
        broker: BrokerSettings,
        clock: Clock,
        *,
        resolver: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """broker: of the logs; topics of alerts are on the same. resolver, tls: see SafeHttp."""
        self._http = SafeHttp(settings.allowed_networks, resolver=resolver, tls=tls)
        self.by_name: dict[str, Channel] = {}
        for name, one in settings.channels.items():
            match one:
                case WebhookSettings():
                    self.by_name[name] = WebhookChannel(one, self._http, clock)
                case SlackSettings():
                    self.by_name[name] = SlackChannel(one, self._http)
                case EmailSettings():
                    self.by_name[name] = EmailChannel(one, clock, send_s=settings.send_s)
                case TopicSettings():
                    self.by_name[name] = _topic(one, broker)

    async def close(self) -> None:
        """Free connections."""
        for channel in self.by_name.values():
            await channel.close()
        await self._http.close()


def _topic(settings: TopicSettings, broker: BrokerSettings) -> Channel:
    if broker.kind != "kafka":
        return StoredChannel()
    return TopicChannel(make_broker(broker.model_copy(update={"topic": settings.topic, "partitions": 1}), None))
