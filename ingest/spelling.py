"""The nearest known name to a misspelt one, for messages to people.

Looking takes 50 µs, so it is remembered, and long words are not looked at: whoever sends names chooses them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_WORD_CHARS_MAX: Final = 40


def suggestion(word: str, known: Iterable[str]) -> str:
    """`: did you mean 'level'?`, or nothing when no known name is near."""
    return _nearest(word.lower(), tuple(known)) if len(word) <= _WORD_CHARS_MAX else ""


@lru_cache(maxsize=1024)
def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f": did you mean {near[0]!r}?" if near else ""
