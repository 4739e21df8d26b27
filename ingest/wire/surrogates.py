"""Halves of surrogate pairs in JSON, which JavaScript writes where it has cut a text inside of an emoji (ECMAScript's
well-formed JSON.stringify): no decoder takes them, and one would cost a whole body."""

from __future__ import annotations

import re
from typing import Final

_half: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_HALF_OR_WHOLE: Final = re.compile(
    rb"((?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})++)"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}",
    re.DOTALL,
)


def mended(body: bytes) -> bytes | None:
    """JSON with U+FFFD for halves of pairs; None: there are no escapes of surrogates in it."""
    if _half.search(body) is None:
        return None
    return _HALF_OR_WHOLE.sub(lambda found: found[1] or rb"\ufffd", body)
