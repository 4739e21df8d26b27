"""A file that is read on, and the root that it belongs to."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from agent.reading.blocks import Stream
from agent.roots import Root
from agent.rotation import family_of
from agent.shipping.checkpoint import Place
from agent.shipping.joining import JoinRules
from formats.lines import Format, LineParser


@dataclass(frozen=True, slots=True)
class ShippedRoot:
    """A folder whose lines are sent. is_ready: its lines are logs as they are sent, and a file that is done is removed."""

    root: Root
    begin_at_end: bool = False
    format: Format = Format.AUTO
    zone: str = "UTC"
    rules: JoinRules = field(default_factory=JoinRules)
    joins_automatically: bool = False
    join_timeout_s: float = 2.0
    metadata: dict[str, str] = field(default_factory=dict)
    is_ready: bool = False


@dataclass(slots=True, eq=False)
class Tailed:
    """A file that is read on, or remembered."""

    place: Place
    shipped: ShippedRoot
    descriptor: int = -1
    size: int = 0
    modified_ns: int = 0
    listed_bytes: int = 0
    """Its size when it was last looked at."""
    grown_s: float = 0.0
    """When it last grew, on the monotonic clock."""
    is_gone: bool = False
    """No name leads to it."""
    is_asleep: bool = False
    """Read to its end, and closed."""
    copy_of: Tailed | None = None
    """The original that is still read instead."""
    stream: Stream | None = None
    """Of a compressed file."""
    carry: bytes = b""
    """What the stream gave and nobody took yet."""
    is_at_end: bool = False
    """The stream gave everything, or all that it can."""
    is_broken: bool = False
    """The stream ended too early, or is damaged."""
    parser: LineParser | None = None
    parsed_from_us: int = 0
    lines_seen: int = 0
    tail_data: bytes | None = None
    """The KiB before its place; None: not read yet."""
    _family: tuple[str, str] = ("", "")
    """For the name it was made of: found out once, there may be thousands."""

    @property
    def family(self) -> str:
        """Path that the files of one log have in common."""
        if self._family[0] != self.place.name:
            self._family = self.place.name, f"{self.shipped.root.name}/{family_of(self.place.name)}"
        return self._family[1]

    @property
    def is_missing(self) -> bool:
        """It was not read to its end, and is not there."""
        return self.is_gone and self.descriptor < 0 and not self.place.is_done

    @property
    def is_read(self) -> bool:
        """Whether there is something to read, now or later."""
        return self.descriptor >= 0 and self.copy_of is None and not self.place.is_done

    @property
    def lag_bytes(self) -> int:
        """That were there at the last look and are not read; of a compressed file nobody knows."""
        return 0 if self.place.packing is not None else max(0, self.listed_bytes - self.place.offset)

    def close(self) -> None:
        """Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor, self.stream, self.carry, self.is_broken = -1, None, b"", False
