"""A channel as its users see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """One notification, whatever way it goes."""

    notification_id: str
    """Stable: each attempt has the same."""
    document: dict[str, Any]  # JSON values; docs/alerts.md describes them
    body: bytes
    """The document as JSON, the same bytes in each attempt."""


class Channel(Protocol):
    """One way out. One task at a time."""

    async def send(self, message: Message) -> None:
        """Hand the message over. Returns once it was taken; the caller bounds the time and may cancel.

        Must send the id along. Must raise DeliveryFailed for what may pass by itself, DeliveryRefused for what cannot, and show
        no secret in either. May deliver twice after a failure that hid a success.
        """

    async def close(self) -> None:
        """Free connections."""
