"""When a value of a key is taken for rare without a look."""

from __future__ import annotations

from store.rare_keys import KEYS_MAX, RareKeys


def times(keys: RareKeys, key: str, count: int) -> None:
    for _ in range(count):
        keys.saw({key}, is_rare=True)


def test_a_key_counts_as_rare_after_some_rare_values_in_a_row() -> None:
    keys = RareKeys()
    times(keys, "order", 2)
    assert not keys.expects({"order"})
    times(keys, "order", 1)
    assert keys.expects({"order"})
    assert not keys.expects({"order", "user"})
    assert not keys.expects({"user"})
    keys.saw({"order"}, is_rare=False)
    assert not keys.expects({"order"})


def test_after_a_wrong_guess_a_key_has_to_prove_itself_for_longer() -> None:
    keys = RareKeys()
    times(keys, "status", 100)
    keys.was_wrong({"status"})
    keys.saw({"status"}, is_rare=False)
    times(keys, "status", 18)
    assert not keys.expects({"status"})
    times(keys, "status", 1)
    assert keys.expects({"status"})


def test_what_was_not_asked_for_longest_is_forgotten() -> None:
    keys = RareKeys()
    times(keys, "order", 3)
    for number in range(KEYS_MAX - 1):
        keys.saw({f"key {number}"}, is_rare=True)
    assert keys.expects({"order"})
    keys.saw({"one more"}, is_rare=True)
    assert not keys.expects({"order"})
