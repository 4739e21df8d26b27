"""API keys as texts: `lf_<public prefix>_<secret>`. Pure but for the system's randomness.

The secret has 256 random bits, in 43 letters and digits. So what is stored is its plain SHA-256: nobody finds a preimage by
guessing, however fast the hash is, and a slow one (as passwords need) would cost more than all else that becomes of a log. The
prefix has 60 random bits; it finds the key, names it in lists and in our own logs, and opens nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final, NamedTuple

KEY_START: Final = "lf_"
PREFIX_CHARS: Final = 12
_SECRET_CHARS: Final = 43
_LOWER: Final = "abcdefghijklmnopqrstuvwxyz234567"
_LETTERS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY_PATTERN: Final = re.compile(r"lf_[a-z2-7]{12}_[0-9A-Za-z]{43}")
"""For scanners of secrets too."""


class NewKey(NamedTuple):
    """A key that was just made. `text` is shown once and kept nowhere."""

    prefix: str
    text: str
    sha256: bytes


def new_key() -> NewKey:
    """A random key."""
    prefix = "".join(secrets.choice(_LOWER) for _ in range(PREFIX_CHARS))
    number = secrets.randbits(256)
    digits = []
    for _ in range(_SECRET_CHARS):
        number, digit = divmod(number, len(_LETTERS))
        digits.append(_LETTERS[digit])
    text = f"{KEY_START}{prefix}_{''.join(digits)}"
    return NewKey(prefix, text, key_sha256(text))


def key_prefix(text: str) -> str | None:
    """The public prefix of a key, None when the text cannot be one."""
    is_key = len(text) == len(KEY_START) + PREFIX_CHARS + 1 + _SECRET_CHARS and text[15] == "_"
    return text[3:15] if is_key and text.startswith(KEY_START) else None


def key_sha256(text: str) -> bytes:
    """What is stored of a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
