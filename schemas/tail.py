"""What tails send: the shapes, for the OpenAPI document. At run time frames are written directly (query/tail/session.py)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.pages import Answer, LogModel


class TailGap(Answer):
    """Logs that the broker does not have any more."""

    reason: Literal["expired", "remade", "newer"]
    """They are too old for the broker; its topic was made again; a newer program wrote them."""
    query: str
    """The query string of `/api/v1/logs` that finds what was received meanwhile."""


class TailFrame(Answer):
    """One message: exactly one of the first four, and the token."""

    logs: list[LogModel] | None = None
    """In the order of each partition; empty: nothing came, and the tail lives."""
    skipped: int | None = Field(default=None, ge=1)
    """Logs that were left out because the client did not take them in time."""
    gap: TailGap | None = None
    end: Literal["credentials", "permissions", "unknown", "stopping"] | None = None
    """Why the server ends the tail; with `detail`, for people."""
    detail: str | None = None
    token: str | None = None
    """Where to go on after this message."""


class TailTicket(Answer):
    """Opens one WebSocket."""

    ticket: str
    """For `ticket=` of the WebSocket's address."""
    expires_in: float = Field(examples=[30])
    """Seconds."""
