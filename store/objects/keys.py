"""What a key may be, and what the cache calls its copy of an object.

Keys come from our own catalogue, yet each is checked: a key becomes a path, and `..` in one would leave the directory. The
letters are those that URLs, S3 and all file systems keep as they are; nothing is ever escaped.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

KEY_CHARACTERS_MAX: Final = 512
"""Half of what S3 takes: a prefix must fit in front."""
_SEGMENT_CHARACTERS_MAX: Final = 200
"""File systems take 255 bytes."""
_KEY: Final = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*(?:/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_COPY_NAME: Final = re.compile(r"(?P<key>[0-9a-f]{32})-(?P<sha256>[0-9a-f]{64})-(?P<bytes>[0-9]{1,18})", re.ASCII)


class Copy(NamedTuple):
    """What the name of a cached file says."""

    bytes: int
    sha256: str


def check_key(key: str) -> str:
    """The key itself. ValueError when it is none."""
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"{key!r:.200} is no key: expected segments of A-Z a-z 0-9 . _ = - that begin with no dot, joined by /"
        )
    if len(key) > KEY_CHARACTERS_MAX or any(len(segment) > _SEGMENT_CHARACTERS_MAX for segment in key.split("/")):
        raise ValueError(
            f"{key!r:.200} is no key: at most {KEY_CHARACTERS_MAX} characters, {_SEGMENT_CHARACTERS_MAX} in a segment"
        )
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself: empty or like a key. ValueError when it is none."""
    return check_key(prefix) if prefix else prefix


def copy_name(key: str, *, bytes: int, sha256: str) -> str:
    """File name of the cache's copy of an object: which key, what content.

    The content is in the name, so that a copy can be verified after a restart without asking anybody, and an object that
    was put anew never meets the copy of the old one. ValueError for what is no key, size or digest.
    """
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r:.200} is no SHA-256: expected 64 hexadecimal digits in lower case")
    if not 0 <= bytes < 10**18:
        raise ValueError(f"{bytes} is no size of an object")
    return f"{hashlib.sha256(check_key(key).encode()).hexdigest()[:32]}-{sha256}-{bytes}"


def read_copy_name(name: str) -> Copy | None:
    """What a name made by `copy_name` says; None for any other."""
    match = _COPY_NAME.fullmatch(name)
    return Copy(int(match["bytes"]), match["sha256"]) if match else None
