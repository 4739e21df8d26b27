"""Which frame of a key is shown: the first in its partition, whoever reads it, how often, and from where."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from live.keys import FirstFrames, KeyPlace


def firsts(*, keys_max: int = 100, keys_s: float = 100.0) -> FirstFrames:
    return FirstFrames(keys_max=keys_max, keys_s=keys_s)


@given(
    keys=st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=12),
    rereads=st.lists(st.integers(0, 11), max_size=6),
    known=st.integers(0, 12),
)
def test_each_key_is_shown_at_its_first_place_by_every_reader(
    keys: list[bytes], rereads: list[int], known: int
) -> None:
    """keys: of the offsets of one partition. known: the writer has stored up to here, and the database says so."""
    first: dict[bytes, int] = {}
    for offset, key in enumerate(keys):
        first.setdefault(key, offset)
    seen = firsts()
    seen.learn({key: KeyPlace(0, offset) for key, offset in first.items() if offset < known}, 0.0)
    for start in [0, *rereads]:
        shown = [
            offset
            for offset, key in list(enumerate(keys))[start:]
            if seen.is_first(key, KeyPlace(0, offset), now_s=1.0)
        ]
        assert shown == sorted(offset for offset in first.values() if offset >= start)


def test_a_later_copy_that_was_read_first_yields_to_the_first_one() -> None:
    seen = firsts()
    assert seen.is_first(b"k", KeyPlace(0, 7), 0.0)
    assert seen.is_first(b"k", KeyPlace(0, 3), 0.0)
    assert not seen.is_first(b"k", KeyPlace(0, 7), 0.0)


def test_keys_are_forgotten_by_age_and_number_oldest_first() -> None:
    seen = firsts(keys_max=2, keys_s=10.0)
    for number, key in enumerate((b"a", b"b", b"c")):
        seen.is_first(key, KeyPlace(0, number), now_s=float(number))
    assert [seen.knows(key) for key in (b"a", b"b", b"c")] == [False, True, True]
    assert not seen.is_first(b"b", KeyPlace(0, 9), now_s=11.0)
    assert seen.is_first(b"d", KeyPlace(0, 10), now_s=13.0)
    assert [seen.knows(key) for key in (b"b", b"c", b"d")] == [True, False, True]
