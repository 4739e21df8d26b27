"""Patterns of paths: `*` and `?` stay within one name, `**/` is any number of folders, the rest is itself."""

from __future__ import annotations

import re
from collections.abc import Iterable


def compile_globs(patterns: Iterable[str]) -> re.Pattern[str]:
    """Matches (`fullmatch`) a relative path that fits one of them; with none, no path. No pattern can be slow: each piece is
    a class repeated."""
    return re.compile("|".join(f"(?:{_translate(pattern)})" for pattern in patterns) or r"(?!)", re.DOTALL)


def _translate(pattern: str) -> str:
    parts: list[str] = []
    place = 0
    while place < len(pattern):
        if pattern.startswith("**/", place):
            parts.append("(?:[^/]+/)*")
            place += 3
        elif pattern.startswith("**", place):
            parts.append(".*")
            place += 2
        else:
            character = pattern[place]
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(character) or re.escape(character))
            place += 1
    return "".join(parts)
