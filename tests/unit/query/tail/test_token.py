"""Where a tail stands is nobody's to read, nor another token's to say."""

from __future__ import annotations

import base64

import pytest

from query.cursor import Cursor, CursorSeal
from query.errors import CursorError
from query.tail.token import TailPlace, TailSeal

SECRET = b"s" * 32
SEAL = TailSeal(SECRET)
PLACE = TailPlace({0: 2**40 + 11, 7: 2**61 + 5}, 1_700_000_123_456)
TOKEN = SEAL.seal(PLACE, subject="ann", question="q")


def test_what_was_sealed_is_read_back_by_whom_it_was_sealed_for_alone() -> None:
    assert SEAL.open(TOKEN, subject="ann", question="q") == PLACE
    with pytest.raises(CursorError, match="another user"):
        SEAL.open(TOKEN, subject="bob", question="q")
    with pytest.raises(CursorError, match="another question"):
        SEAL.open(TOKEN, subject="ann", question="Q")
    with pytest.raises(CursorError, match="another store"):
        TailSeal(b"t" * 32).open(TOKEN, subject="ann", question="q")


def test_no_offset_and_no_time_can_be_read() -> None:
    raw = base64.urlsafe_b64decode(TOKEN + "=" * (-len(TOKEN) % 4))
    for number in (*PLACE.offsets.values(), PLACE.at_ms):
        assert number.to_bytes(8, "big") not in raw


def test_a_cursor_is_no_token_of_a_tail_and_no_such_token_a_cursor() -> None:
    cursors = CursorSeal(SECRET)
    cursor = cursors.seal(Cursor((1, 2), False, None, None, None, {0: 5}, True), subject="ann", question="q")
    # With the other's version too: each kind has a key of its own.
    for text in (cursor, _with_version_of(TOKEN, cursor)):
        with pytest.raises(CursorError):
            SEAL.open(text, subject="ann", question="q")
    for text in (TOKEN, _with_version_of(cursor, TOKEN)):
        with pytest.raises(CursorError):
            cursors.open(text, subject="ann", question="q")


def _with_version_of(other: str, token: str) -> str:
    def raw(text: str) -> bytes:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    return base64.urlsafe_b64encode(raw(other)[:1] + raw(token)[1:]).rstrip(b"=").decode()
