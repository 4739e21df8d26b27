"""Slack-compatible incoming webhooks: `{"text": …}`, nothing of a log is markup or a mention."""

from __future__ import annotations

from typing import Final

import orjson

from alerts.channels.port import Message
from alerts.channels.safe_http import SafeHttp
from alerts.errors import DeliveryRefused
from alerts.messages import text_of
from alerts.settings import SlackSettings, read_secret
from runtime.outgoing import check_url

TEXT_CHARS_MAX: Final = 3_500
"""Slack cuts at 4,000; escapes take more room."""
_JOINER: Final = "\u2060"
_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'", "@": f"@{_JOINER}"})
"""What Slack asks to escape; code must not end early. Mattermost reads Markdown, and @all in any text: mentions, links and
images are broken up."""


class SlackChannel:
    """See Channel."""

    def __init__(self, settings: SlackSettings, http: SafeHttp) -> None:
        """http: closed by the caller."""
        self._settings = settings
        self._http = http

    async def send(self, message: Message) -> None:
        """See Channel."""
        url = read_secret(self._settings.url_file, self._settings.url_env)
        try:
            check_url(url)
        except ValueError as error:
            raise DeliveryRefused(f"the channel's address {error}") from None
        title, _, rest = text_of(message.document).partition("\n")
        text = f"*{escape(title)}*"
        if rest.strip():
            text += f"\n```{escape(rest.strip())[: TEXT_CHARS_MAX - len(text)]}```"
        await self._http.post(
            url,
            orjson.dumps({"text": text}),
            {"Content-Type": "application/json", "Logfeed-Notification": message.notification_id},
        )

    async def close(self) -> None:
        """See Channel."""


def escape(text: str) -> str:
    """Text that means nothing to Slack, and no link or image to Mattermost."""
    return text.translate(_ESCAPES).replace("](", f"]{_JOINER}(")
