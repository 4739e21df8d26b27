"""JSON by POST, signed so that the receiver knows whose it is, and how old (docs/alerts.md).

Logfeed-Notification: 5f2a…             the same in each attempt
Logfeed-Signature: t=1767225600,v1=…    hex HMAC-SHA256 of "1767225600." and the body
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from alerts.channels.port import Message
from alerts.channels.safe_http import SafeHttp
from alerts.settings import WebhookSettings, read_secret
from runtime.clock import Clock

SIGNATURE: Final = "Logfeed-Signature"
NOTIFICATION: Final = "Logfeed-Notification"


class WebhookChannel:
    """See Channel."""

    def __init__(self, settings: WebhookSettings, http: SafeHttp, clock: Clock) -> None:
        """http: closed by the caller."""
        self._settings = settings
        self._http = http
        self._clock = clock

    async def send(self, message: Message) -> None:
        """See Channel."""
        # Read each time: a secret that is changed is used from then on.
        secret = read_secret(self._settings.secret_file, self._settings.secret_env)
        headers = {
            "Content-Type": "application/json",
            NOTIFICATION: message.notification_id,
            SIGNATURE: signature(secret, self._clock.now_us() // 1_000_000, message.body),
        }
        await self._http.post(self._settings.url, message.body, headers)

    async def close(self) -> None:
        """See Channel."""


def signature(secret: str, unix_s: int, body: bytes) -> str:
    """Value of the header. unix_s: when it is sent."""
    mac = hmac.new(secret.encode(), b"%d." % unix_s + body, hashlib.sha256)
    return f"t={unix_s},v1={mac.hexdigest()}"
