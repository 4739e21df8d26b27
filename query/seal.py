"""Opaque tokens that nobody can make or change but us, bound to a subject and a question.

    token = base64url( version byte | MessagePack | HMAC-SHA256 over both )

Used with another subject or question one is refused, never reinterpreted (INV-5, INV-6). The secret is the store's, so every
query process of a store reads the tokens of all others. Pure; safe for many tasks.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import msgspec

from query.errors import CursorError

TOKEN_CHARS_MAX: Final = 16_384
"""Enough for the offsets of 1,000 partitions."""

_MAC_BYTES: Final = 32
_DIGEST_BYTES: Final = 16
Content = TypeVar("Content", bound=msgspec.Struct)

_encoder = msgspec.msgpack.Encoder()


class Seal(Generic[Content]):
    """Signs and opens one kind of token with one store's secret."""

    def __init__(self, secret: bytes, content: type[Content], *, version: int, name: str) -> None:
        """secret: 32 random bytes (ReadStore.cursor_secret). version: 0..255, of this kind of token alone. name: of the
        parameter, for people."""
        self._secret = secret
        self._version = version
        self._name = name
        # A tuple on the wire. Any: msgspec takes the type as a value.
        sealed: Any = tuple[bytes, bytes, content]  # type: ignore[valid-type]
        self._decoder: msgspec.msgpack.Decoder[tuple[bytes, bytes, Content]] = msgspec.msgpack.Decoder(sealed)

    def sign(self, content: Content, *, subject: str, question: str) -> str:
        """The token. question: canonical text of everything that must stay the same."""
        return self.bound(subject=subject, question=question)(content)

    def bound(self, *, subject: str, question: str) -> Callable[[Content], str]:
        """`sign` for one subject and question: for who signs many."""
        version, of_subject, of_question = bytes((self._version,)), _digest(subject), _digest(question)

        def sign(content: Content) -> str:
            plain = version + _encoder.encode((of_subject, of_question, content))
            return base64.urlsafe_b64encode(plain + self._mac(plain)).rstrip(b"=").decode()

        return sign

    def open(self, token: str, *, subject: str, question: str) -> Content:
        """What was signed. Raises CursorError: cut or changed, of another version, subject or question."""
        name = self._name
        if len(token) > TOKEN_CHARS_MAX:
            raise CursorError(
                f"{name} has {len(token)} characters, at most {TOKEN_CHARS_MAX} are possible: it was changed"
            )
        try:
            raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise CursorError(f"{name} cannot be read: it was cut or changed; start again without it") from error
        plain, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        is_canonical = base64.urlsafe_b64encode(raw).rstrip(b"=") == token.encode("ascii")
        if not plain or not is_canonical or not hmac.compare_digest(mac, self._mac(plain)):
            raise CursorError(f"{name} was cut or changed, or belongs to another store; start again without it")
        if plain[0] != self._version:
            raise CursorError(
                f"{name} has version {plain[0]}, this program reads {self._version}; start again without it"
            )
        try:
            of_subject, of_question, content = self._decoder.decode(plain[1:])
        except msgspec.MsgspecError as error:
            raise CursorError(f"{name} was made by another version; start again without it") from error
        if of_subject != _digest(subject):
            raise CursorError(f"{name} belongs to another user; start again without it")
        if of_question != _digest(question):
            raise CursorError(f"{name} belongs to another question: repeat the filter and order of its first page")
        return content

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._secret, content, hashlib.sha256)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]
