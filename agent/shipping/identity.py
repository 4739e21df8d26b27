"""Which file is the same one: device and inode, its first KiB, and the KiB before the place that was reached. Blocks on
reading.

Names move in a rotation, inodes are given anew, copies and archives have others: together they tell. A file shorter than a KiB
is known by what it has; as it grows, so does what it is known by.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final

HEAD_BYTES: Final = 1024
TAIL_BYTES: Final = 1024


def fingerprint(data: bytes) -> str:
    """Of some bytes; "" of none."""
    return hashlib.sha256(data).hexdigest()[:32] if data else ""


def head_of(descriptor: int, size: int = HEAD_BYTES) -> bytes:
    """At most so many first bytes of a file. Raises OSError."""
    return os.pread(descriptor, size, 0)


def tail_before(descriptor: int, offset: int) -> bytes:
    """The last KiB before an offset, or what there is. Raises OSError."""
    begin = max(0, offset - TAIL_BYTES)
    return os.pread(descriptor, offset - begin, begin)
