"""A TCP connection's bytes cut into messages (RFC 6587): counted octets, or ended by a newline; each message says which. Pure.

A message keeps its first `message_bytes_max` bytes, the rest is passed over and the message says so. Holds no more than
that and what was fed last.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_COUNT: Final = re.compile(rb"([1-9]\d{0,8}) (?=<)")
_MAY_BE_COUNT: Final = re.compile(rb"[1-9]\d{0,8} ?\Z")


class Frame(NamedTuple):
    """One message. is_cut: it was longer."""

    raw: bytes
    is_cut: bool


class Framer:
    """Of one connection."""

    def __init__(self, message_bytes_max: int) -> None:
        """message_bytes_max: bytes that are kept of a message."""
        self._max = message_bytes_max
        self._buffer = b""
        self._left = 0
        """Bytes of a counted message that are passed over."""
        self._is_passing = False
        """The rest of a line is passed over."""

    def feed(self, data: bytes) -> list[Frame]:
        """The messages that are whole now."""
        self._buffer += data
        frames: list[Frame] = []
        while self._buffer and self._next(frames):
            pass
        return frames

    def end(self) -> list[Frame]:
        """What the connection ended with."""
        rest, self._buffer = self._buffer, b""
        if self._is_passing or self._left or not rest.strip():
            return []
        counted = _COUNT.match(rest)
        return [Frame(rest[counted.end() :] if counted else rest, counted is not None)]

    def _next(self, frames: list[Frame]) -> bool:
        """Take one step; False when more bytes are needed."""
        buffer = self._buffer
        if self._left:
            passed = min(self._left, len(buffer))
            self._left -= passed
            self._buffer = buffer[passed:]
            return True
        if self._is_passing:
            end = buffer.find(b"\n") + 1
            self._is_passing = end == 0
            self._buffer = buffer[end:] if end else b""
            return True
        if counted := _COUNT.match(buffer):
            return self._counted(frames, counted.end(), int(counted[1]))
        if _MAY_BE_COUNT.match(buffer):
            return False
        end = buffer.find(b"\n")
        if end < 0:
            if len(buffer) <= self._max:
                return False
            frames.append(Frame(buffer[: self._max], True))
            self._buffer, self._is_passing = b"", True
            return True
        raw, self._buffer = buffer[:end], buffer[end + 1 :]
        if raw.strip(b"\r\0 "):
            frames.append(Frame(raw[: self._max], len(raw) > self._max))
        return True

    def _counted(self, frames: list[Frame], begin: int, size: int) -> bool:
        kept = min(size, self._max)
        if len(self._buffer) < begin + kept:
            return False
        frames.append(Frame(self._buffer[begin : begin + kept], size > kept))
        self._buffer, self._left = self._buffer[begin + kept :], size - kept
        return True
