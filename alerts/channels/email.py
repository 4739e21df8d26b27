"""E-mail by SMTP (aiosmtplib, MIT, no dependencies): plain text, one message for all recipients.

`EmailMessage` refuses line ends in headers, and texts have none by then. Message-ID is made of the notification's id, so that a
message that was sent twice is one to the reader's program.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

import aiosmtplib

from alerts.channels.port import Message
from alerts.errors import DeliveryFailed
from alerts.messages import text_of
from alerts.settings import EmailSettings, read_secret
from runtime.clock import Clock
from runtime.harmless import harmless


class EmailChannel:
    """See Channel."""

    def __init__(self, settings: EmailSettings, clock: Clock, *, send_s: float) -> None:
        """send_s: of one step of the conversation."""
        self._settings = settings
        self._clock = clock
        self._send_s = send_s

    async def send(self, message: Message) -> None:
        """See Channel."""
        settings = self._settings
        password = None
        if settings.username is not None:
            password = read_secret(settings.password_file, settings.password_env)
        encrypted = settings.tls != "none"
        try:
            await aiosmtplib.send(
                letter(message, settings, self._clock.now_us()),
                hostname=settings.host,
                port=settings.port,
                username=settings.username,
                password=password,
                use_tls=settings.tls == "tls",
                start_tls=settings.tls == "starttls",
                tls_context=ssl.create_default_context(cafile=settings.ca_file) if encrypted else None,
                timeout=self._send_s,
            )
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            text = harmless(" ".join(str(error).split()))[:200]
            raise DeliveryFailed(f"{type(error).__name__}: {text}") from None

    async def close(self) -> None:
        """See Channel."""


def letter(message: Message, settings: EmailSettings, now_us: int) -> EmailMessage:
    """The mail."""
    mail = EmailMessage(policy=SMTP)
    mail["Subject"] = harmless(message.document["title"])
    mail["From"] = settings.sender
    mail["To"] = ", ".join(settings.to)
    mail["Date"] = format_datetime(datetime.fromtimestamp(now_us / 1e6, UTC))
    mail["Message-ID"] = f"<{message.notification_id}@logfeed.{settings.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Logfeed-Notification"] = message.notification_id
    mail.set_content(text_of(message.document))
    return mail
