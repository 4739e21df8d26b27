"""What of one process waits on disk, and what dead ones left there; trouble with the disk is told, and the disk left alone for
a while. Called under the lock of the delivery, whose thread alone sends."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Final

from logfeed_client.notes import Notes
from logfeed_client.sending.batch import Batch
from logfeed_client.sending.limits import SenderLimits
from logfeed_client.sending.spool import Spool, SpoolError
from logfeed_client.sending.stats import Counts

_DISK_REST_S: Final = 10.0
"""After trouble with the disk."""
_LOOK_S: Final = 60.0
"""Between two looks for what dead processes left."""
_OF_THE_PROCESS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR})
"""Why a file cannot be read now, and can be later."""


class Disk:
    """The spool of one sender in one process."""

    def __init__(self, base: Path | None, limits: SenderLimits, counts: Counts, notes: Notes) -> None:
        """base: where spools are; None: there is no disk. Touches nothing: see `claim`."""
        self._base, self._limits, self._counts, self._notes = base, limits, counts, notes
        self.spool: Spool | None = None
        """This process's, once it is claimed."""
        self._left: Spool | None = None
        """What a dead process left, while it is sent."""
        self.rests_until_s = 0.0
        self.look_at_s = 0.0
        """When to look again for what dead processes left."""

    def has_batches(self) -> bool:
        """Whether anything of this process waits there."""
        return self.spool is not None and len(self.spool) > 0

    def can_take(self) -> bool:
        """Whether more may be put there now."""
        return self.spool is not None and not self.spool.is_full() and time.monotonic() >= self.rests_until_s

    def claim(self) -> None:
        """Take a directory of the spool, where there is one. Raises nothing."""
        base = self._base
        if base is None:
            return
        try:
            self.spool = self._claimed(base)
            if self.spool is None:
                self._notes.tell("spool", f"every directory of the spool {base} is in use: logs wait in memory only")
        except (OSError, SpoolError) as error:
            self._notes.tell("spool", f"the spool {base} cannot be used: {error}: logs wait in memory only")

    def _claimed(self, base: Path, left_by_others: Path | None = None) -> Spool | None:
        limits = self._limits
        return Spool.claim(
            base,
            bytes_max=limits.spool_bytes,
            batch_logs=limits.batch_logs,
            batch_bytes=limits.batch_bytes,
            left_by_others=left_by_others,
        )

    def left_behind(self) -> tuple[Batch, Spool] | None:
        """The oldest batch that a dead process left."""
        while self.spool is not None and self._base is not None:
            if self._left is None:
                if time.monotonic() < self.look_at_s:
                    return None
                try:
                    self._left = self._claimed(self._base, self.spool.directory)
                except (OSError, SpoolError) as error:
                    self.failed(error)
                if self._left is None:
                    self.look_at_s = time.monotonic() + _LOOK_S
                    return None
            if (batch := self.read(self._left)) is not None:
                return batch, self._left
            is_done = not len(self._left)
            self._left.close()
            self._left = None
            if not is_done:
                self.look_at_s = time.monotonic() + _LOOK_S
        return None

    def read(self, spool: Spool) -> Batch | None:
        """None where nothing is left, and where the oldest cannot be read now."""
        while True:
            try:
                return spool.oldest()
            except OSError as error:
                self.failed(error)
                if error.errno in _OF_THE_PROCESS:
                    return None
                try:
                    if (kept := spool.skip()) is None:
                        return None
                except OSError as worse:
                    self.failed(worse)
                    continue
                self._counts.drop("unreadable")
                self._notes.tell("unreadable", f"logs cannot be read and are left out: {kept}")

    def failed(self, error: Exception) -> None:
        """Tell it, and leave the disk alone for a while."""
        self.rests_until_s = time.monotonic() + _DISK_REST_S
        self._notes.tell("disk", f"the spool fails: {error}")

    def forget(self) -> None:
        """In the child of a fork: leave everything to the parent."""
        for spool in (self.spool, self._left):
            if spool is not None:
                spool.forget()

    def close(self) -> None:
        """Give the directories back, with what is in them."""
        for spool in (self.spool, self._left):
            if spool is not None:
                spool.close()
        self.spool = self._left = None
