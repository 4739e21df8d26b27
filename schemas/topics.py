"""Topic and consumer group names."""

from __future__ import annotations

from typing import Final

LOGS_TOPIC: Final = "logs.v1"
"""Frames (schemas/frames.py), the one input of the writers."""

WRITER_GROUP: Final = "logfeed-writer"
"""Group under which the writers' stored offsets are shown to the broker: for lag displays and the retention guard."""
