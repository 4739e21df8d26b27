"""Cursors: where a walk stands, as an opaque token that nobody can make, change or read but us.

    token = base64url( version byte | AES-SIV of MessagePack, with the version as associated data )

Sealed and not just signed, because a walk's frozen bound is the newest log of all services, and its offsets say how much
everybody sends: neither is its holder's to know. SIV (RFC 5297) needs no nonce: the same cursor is the same token, as tags of
pages want.

A cursor is bound to its subject and to the question (filter, order, times as written): used with another one it is refused,
never reinterpreted (INV-5, INV-6). What the first page froze travels in it, so that no server remembers walks. The
secret is the store's, so every query process of a store reads the cursors of all others.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from query.errors import CursorError
from store.port import Position

VERSION: Final = 3
TOKEN_CHARS_MAX: Final = 16_384
"""Enough for the offsets of 1,000 partitions."""

_TAG_BYTES: Final = 16
_DIGEST_BYTES: Final = 16
_VERSION: Final = bytes((VERSION,))
_CHANGED: Final = "cursor was cut or changed, or belongs to another store; start again without it"


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where to go on, and what the first page froze."""

    after: Position
    """Exclusive, in the direction of travel."""
    is_back: bool
    """Travels against the question's order: towards the page before."""
    start_us: int | None
    end_us: int | None
    last: Position | None
    """Inclusive upper bound, frozen when the question had no end."""
    offsets: dict[int, int]
    """Partition -> next offset in the first page's snapshot."""
    can_turn: bool
    """Logs lie behind `after`, against the direction of travel, or may lie there: the page has a way back."""


class _Sealed(msgspec.Struct, frozen=True, array_like=True):
    subject: bytes
    question: bytes
    cursor: Cursor


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Sealed)


class CursorSeal:
    """Seals and opens cursors with one store's secret. Pure; safe for many tasks."""

    def __init__(self, secret: bytes) -> None:
        """secret: 32 random bytes (ReadStore.cursor_secret)."""
        self._cipher = AESSIV(hmac.digest(secret, b"logfeed cursor", "sha512"))

    def seal(self, cursor: Cursor, *, subject: str, question: str) -> str:
        """The token. question: canonical text of everything that must stay the same along a walk."""
        content = _encoder.encode(_Sealed(_digest(subject), _digest(question), cursor))
        sealed = self._cipher.encrypt(content, [_VERSION])
        return base64.urlsafe_b64encode(_VERSION + sealed).rstrip(b"=").decode()

    def open(self, token: str, *, subject: str, question: str) -> Cursor:
        """The cursor. Raises CursorError: cut or changed, of another version, subject or question."""
        if len(token) > TOKEN_CHARS_MAX:
            raise CursorError(
                f"cursor has {len(token)} characters, at most {TOKEN_CHARS_MAX} are possible: it was changed"
            )
        try:
            raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise CursorError("cursor cannot be read: it was cut or changed; start again without it") from error
        is_canonical = base64.urlsafe_b64encode(raw).rstrip(b"=") == token.encode("ascii")
        if len(raw) <= len(_VERSION) + _TAG_BYTES or not is_canonical:
            raise CursorError(_CHANGED)
        if raw[0] != VERSION:
            raise CursorError(f"cursor has version {raw[0]}, this program reads {VERSION}; start again without it")
        try:
            sealed = _decoder.decode(self._cipher.decrypt(raw[1:], [_VERSION]))
        except InvalidTag as error:
            raise CursorError(_CHANGED) from error
        except msgspec.MsgspecError as error:
            raise CursorError("cursor was made by another version; start again without it") from error
        if sealed.subject != _digest(subject):
            raise CursorError("cursor belongs to another user; start again without it")
        if sealed.question != _digest(question):
            raise CursorError("cursor belongs to another question: repeat the filter and order of its first page")
        return sealed.cursor


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]
