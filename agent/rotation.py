"""What names say of rotation: `app.log`, `app.log.1`, `app.log-20261126.gz` and `app-2026-11-26.log` are one log's
files. Pure."""

from __future__ import annotations

import re
from typing import Final

_PACKED: Final = re.compile(r"\.(?:gz|zst)\Z")
_NUMBERED: Final = re.compile(
    r"(?:[.-]\d{1,4}|[._-]\d{4}-?\d\d-?\d\d(?:[T_.-]?\d{2,6}(?:[-_.]?\d\d){0,2})?(?:[.-]\d{1,4})?|\.old|~)\Z"
)
_DATED: Final = re.compile(r"[._-]\d{4}-?\d\d-?\d\d(?:[T_.-]?\d{2,6})?(?:[.-]\d{1,4})?(?=\.[A-Za-z]+\Z)")


def family_of(name: str) -> str:
    """The path that the files of one log have in common."""
    bare = _PACKED.sub("", name)
    return _DATED.sub("", _NUMBERED.sub("", bare))


def is_packed(name: str) -> bool:
    """Whether the name is that of a compressed file."""
    return _PACKED.search(name) is not None


def is_rotated(name: str) -> bool:
    """Whether the name is one that a log gets when the next file takes its place."""
    return _PACKED.search(name) is not None or _NUMBERED.search(_PACKED.sub("", name)) is not None
