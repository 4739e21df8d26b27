"""A cursor is what we made, for whom and for what we made it, or it is refused (INV-5, INV-6)."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.cursor import TOKEN_CHARS_MAX, VERSION, Cursor, CursorSeal
from query.errors import CursorError
from query.tail.token import TailPlace, TailSeal
from schemas.ids import ID_MAX

SEAL = CursorSeal(b"s" * 32)
CURSOR = Cursor((1_700_000_000_000_000, 42), False, None, 7, (9, 9), {0: 5, 1: 6}, True)
POSITIONS = st.tuples(st.integers(-(10**17), 10**18), st.integers(0, ID_MAX))
CURSORS = st.builds(
    Cursor,
    POSITIONS,
    st.booleans(),
    st.none() | st.integers(-(10**17), 10**18),
    st.none() | st.integers(-(10**17), 10**18),
    st.none() | POSITIONS,
    st.dictionaries(st.integers(0, 2**31), st.integers(0, 2**62), max_size=20),
    st.booleans(),
)


@given(CURSORS, st.text(max_size=20), st.text(max_size=50))
@settings(deadline=None)
def test_what_was_sealed_is_read_back(cursor: Cursor, subject: str, question: str) -> None:
    token = SEAL.seal(cursor, subject=subject, question=question)
    assert SEAL.open(token, subject=subject, question=question) == cursor
    assert token.isascii()
    assert not set(token) & set("+/=&? ")


def test_the_offsets_of_a_thousand_partitions_fit() -> None:
    cursor = Cursor((1, 1), False, None, None, None, dict.fromkeys(range(1000), 2**62), False)
    token = SEAL.seal(cursor, subject="a", question="b")
    assert len(token) <= TOKEN_CHARS_MAX
    assert SEAL.open(token, subject="a", question="b") == cursor


@given(st.integers(0, 2**62), st.integers(0, 2**62), st.integers(1, 40))
@settings(deadline=None)
def test_the_length_says_nothing_of_how_much_was_sent(one: int, other: int, partitions: int) -> None:
    def length(offset: int) -> int:
        offsets = dict.fromkeys(range(partitions), offset)
        place = TailSeal(b"s" * 32).seal(TailPlace(offsets, 1_700_000_000_000), subject="a", question="q")
        return len(place) + len(SEAL.seal(msgspec.structs.replace(CURSOR, offsets=offsets), subject="a", question="q"))

    assert length(one) == length(other)


def test_every_single_change_is_refused() -> None:
    token = SEAL.seal(CURSOR, subject="ann", question="q")
    for place, char in enumerate(token):
        for other in {"A", "b", "-", "_", "=", "!", "\u00e9", "\n"} - {char}:
            with pytest.raises(CursorError):
                SEAL.open(token[:place] + other + token[place + 1 :], subject="ann", question="q")


def test_every_cut_and_every_addition_is_refused() -> None:
    token = SEAL.seal(CURSOR, subject="ann", question="q")
    for length in range(len(token)):
        with pytest.raises(CursorError):
            SEAL.open(token[:length], subject="ann", question="q")
    for addition in ("A", "AAAA", "=", "==", "\n", " ", token, "A" * TOKEN_CHARS_MAX):
        with pytest.raises(CursorError):
            SEAL.open(token + addition, subject="ann", question="q")


@given(st.text(max_size=300))
@settings(deadline=None)
def test_no_text_is_mistaken_for_a_cursor(text: str) -> None:
    with pytest.raises(CursorError):
        SEAL.open(text, subject="ann", question="q")


def test_another_subject_question_or_store_is_refused_and_named() -> None:
    token = SEAL.seal(CURSOR, subject="ann", question="q")
    with pytest.raises(CursorError, match="another user"):
        SEAL.open(token, subject="bob", question="q")
    with pytest.raises(CursorError, match="another question"):
        SEAL.open(token, subject="ann", question="Q")
    with pytest.raises(CursorError, match="another store"):
        CursorSeal(b"t" * 32).open(token, subject="ann", question="q")


def test_another_version_is_refused_and_named() -> None:
    token = base64.urlsafe_b64encode(bytes((VERSION - 1,)) + _raw(CURSOR)[1:]).rstrip(b"=").decode()
    with pytest.raises(CursorError, match=f"version {VERSION - 1}, this program reads {VERSION}"):
        SEAL.open(token, subject="ann", question="q")


def test_nothing_of_what_is_sealed_can_be_read() -> None:
    newest_of_all, records_of_all = (1_700_000_123_456_789, 2**61 + 7), 2**40 + 11
    raw = _raw(Cursor((5, 6), False, None, None, newest_of_all, {0: records_of_all}, True))
    for number in (*newest_of_all, records_of_all):
        assert number.to_bytes(8, "big") not in raw
    assert _raw(CURSOR) == _raw(CURSOR), "the same page has the same tag"


def _raw(cursor: Cursor) -> bytes:
    token = SEAL.seal(cursor, subject="ann", question="q")
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
