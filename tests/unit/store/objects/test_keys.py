"""What a key may be, and that no name of a copy can leave its directory."""

from __future__ import annotations

import string
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.objects.keys import KEY_CHARACTERS_MAX, Copy, check_key, check_prefix, copy_name, read_copy_name

LETTERS = string.ascii_letters + string.digits + "._=-"
SEGMENTS = st.text(LETTERS, min_size=1, max_size=20).filter(lambda segment: not segment.startswith("."))
KEYS = st.lists(SEGMENTS, min_size=1, max_size=8).map("/".join)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(KEYS)
def test_key_stays_below_its_directory(key: str) -> None:
    assert check_key(key) == key
    path = PurePosixPath("/top") / key
    assert path.is_relative_to("/top")
    assert str(path) == f"/top/{key}"  # nothing is normalised: two keys are two files
    assert ".." not in path.parts


@given(st.text(max_size=30) | st.text(LETTERS + "/", max_size=30))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    if set(text) <= set(LETTERS + "/") and all(segment and not segment.startswith(".") for segment in text.split("/")):
        assert check_key(text) == text
    else:
        with pytest.raises(ValueError, match="is no key"):
            check_key(text)


def test_key_has_a_length() -> None:
    longest = "/".join(["a" * 170] * 3)
    assert len(longest) == KEY_CHARACTERS_MAX
    check_key(longest)
    for key in (longest + "a", "a" * 201):
        with pytest.raises(ValueError, match="at most 512 characters, 200 in a segment"):
            check_key(key)


def test_empty_prefix_is_everything() -> None:
    assert check_prefix("") == ""
    with pytest.raises(ValueError, match="is no key"):
        check_prefix("a/")


@given(key=KEYS, size=st.integers(0, 10**18 - 1), digest=DIGESTS)
def test_name_of_a_copy_says_what_it_must_be(key: str, size: int, digest: str) -> None:
    name = copy_name(key, bytes=size, sha256=digest)
    assert read_copy_name(name) == Copy(size, digest)
    assert PurePosixPath(name).name == name
    assert len(name) <= 120


@given(KEYS, KEYS)
def test_different_keys_have_different_copies(one: str, other: str) -> None:
    names = {copy_name(key, bytes=1, sha256="0" * 64) for key in (one, other)}
    assert len(names) == len({one, other})


@given(st.text(max_size=120))
def test_other_names_are_no_copies(text: str) -> None:
    assert read_copy_name(text) is None


@pytest.mark.parametrize("size", [-1, 10**18])
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="is no size"):
        copy_name("k", bytes=size, sha256="0" * 64)
