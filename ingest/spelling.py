"""The nearest known name to a misspelt one, for messages to people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """`: did you mean 'level'?`, or nothing when no known name is near."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f": did you mean {near[0]!r}?" if near else ""
