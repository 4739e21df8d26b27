"""Opaque tokens that nobody can make, change or read but us, bound to a subject and a question.

    token = base64url( version byte | AES-SIV of padded MessagePack, with the version as associated data )

Sealed and not just signed, because a walk's frozen bound is the newest log of all services, and offsets say how much
everybody sends: neither is a holder's to know. Padding keeps a token's length from telling how large the offsets are: it
depends on how many there are. SIV (RFC 5297) needs no nonce: the same place is the same token, as tags of pages want. Each kind
of token has a key of its own, made of the secret.

Used with another subject or question one is refused, never reinterpreted (INV-5, INV-6). The secret is the store's, so every
query process of a store reads the tokens of all others. Pure; safe for many tasks.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from query.errors import CursorError

TOKEN_CHARS_MAX: Final = 16_384
"""Enough for the offsets of 1,000 partitions."""

_TAG_BYTES: Final = 16
_DIGEST_BYTES: Final = 16
_INTEGER_BYTES_MAX: Final = 9
_ARRAY_HEAD_BYTES_MAX: Final = 5
"""Of MessagePack, both."""
_END: Final = b"\x80"
"""Before the padding of zeros (ISO/IEC 7816-4)."""


class Place(Protocol):
    """What is sealed: a msgspec Struct with offsets."""

    @property
    def offsets(self) -> dict[int, int]:
        """Partition -> offset."""


Content = TypeVar("Content", bound=Place)

_encoder = msgspec.msgpack.Encoder()


class Seal(Generic[Content]):
    """Seals and opens one kind of token with one store's secret."""

    def __init__(self, secret: bytes, content: type[Content], *, version: int, name: str) -> None:
        """secret: 32 random bytes (ReadStore.cursor_secret). version: 0..255, of this kind of token alone. name: of the
        parameter, for people, and for the key: no other kind has it."""
        self._cipher = AESSIV(hmac.digest(secret, f"logfeed {name}".encode(), "sha512"))
        self._version = bytes((version,))
        self._name = name
        # A tuple on the wire. Any: msgspec takes the type as a value.
        sealed: Any = tuple[bytes, bytes, content]  # type: ignore[valid-type]
        self._decoder: msgspec.msgpack.Decoder[tuple[bytes, bytes, Content]] = msgspec.msgpack.Decoder(sealed)

    def seal(self, content: Content, *, subject: str, question: str) -> str:
        """The token. question: canonical text of everything that must stay the same."""
        return self.bound(subject=subject, question=question)(content)

    def bound(self, *, subject: str, question: str) -> Callable[[Content], str]:
        """`seal` for one subject and question: for who seals many."""
        of_subject, of_question = _digest(subject), _digest(question)

        def seal(content: Content) -> str:
            plain = _encoder.encode((of_subject, of_question, content))
            sealed = self._cipher.encrypt(plain + _END + _padding(content), [self._version])
            return base64.urlsafe_b64encode(self._version + sealed).rstrip(b"=").decode()

        return seal

    def open(self, token: str, *, subject: str, question: str) -> Content:
        """What was sealed. Raises CursorError: cut or changed, of another version, subject or question."""
        name = self._name
        if len(token) > TOKEN_CHARS_MAX:
            raise CursorError(
                f"{name} has {len(token)} characters, at most {TOKEN_CHARS_MAX} are possible: it was changed"
            )
        try:
            raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise CursorError(f"{name} cannot be read: it was cut or changed; start again without it") from error
        changed = f"{name} was cut or changed, or belongs to another store; start again without it"
        is_canonical = base64.urlsafe_b64encode(raw).rstrip(b"=") == token.encode("ascii")
        if len(raw) <= len(self._version) + _TAG_BYTES or not is_canonical:
            raise CursorError(changed)
        if raw[:1] != self._version:
            raise CursorError(
                f"{name} has version {raw[0]}, this program reads {self._version[0]}; start again without it"
            )
        try:
            padded = self._cipher.decrypt(raw[1:], [self._version])
            of_subject, of_question, content = self._decoder.decode(padded.rstrip(b"\0").removesuffix(_END))
        except InvalidTag as error:
            raise CursorError(changed) from error
        except msgspec.MsgspecError as error:
            raise CursorError(f"{name} was made by another version; start again without it") from error
        if of_subject != _digest(subject):
            raise CursorError(f"{name} belongs to another user; start again without it")
        if of_question != _digest(question):
            raise CursorError(f"{name} belongs to another question: repeat the filter and order of its first page")
        return content


def _padding(content: Place) -> bytes:
    """As much as the offsets are shorter than they could be."""
    offsets = _encoder.encode([*content.offsets.values()])
    return bytes(_ARRAY_HEAD_BYTES_MAX + _INTEGER_BYTES_MAX * len(content.offsets) - len(offsets))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]
