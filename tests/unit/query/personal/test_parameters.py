"""What names, notes and addresses may be."""

from __future__ import annotations

import pytest

from query.personal.parameters import checked_address, checked_kind, checked_name, checked_note, checked_target
from schemas.errors import InvalidInput
from search.params import ParameterError
from store.personal.kept import BookmarkKind


@pytest.mark.parametrize(
    "text", ["/", "/?query=level:error&start_time=-1h", "/experiments/a b", "/ä?x=//y", "/" + "x" * 4_095]
)
def test_paths_of_this_site_are_addresses(text: str) -> None:
    assert checked_address(text) == text


NO_ADDRESSES = [
    "",
    "x",
    "//evil.example/",
    "/\\evil.example",
    "https://evil.example",
    "javascript:alert(1)",
    " /",
    "/\n/evil.example",
    "/\t",
    "/\x00",
    "/\ud800",
    "/" + "x" * 4_096,
]


@pytest.mark.parametrize("text", NO_ADDRESSES, ids=range(len(NO_ADDRESSES)))
def test_nothing_else_is(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected a path of this site"):
        checked_address(text)


@pytest.mark.parametrize("text", ["a", "Ünï/code ☃", "x" * 100])
def test_names(text: str) -> None:
    assert checked_name(text) == text


@pytest.mark.parametrize("text", ["", "x" * 101, "a\nb", " a", "a ", "\u2028", "\x00"])
def test_no_names(text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        checked_name(text)
    assert caught.value.parameter == "name"


def test_targets_of_logs_are_ids_and_others_are_texts() -> None:
    assert checked_target(BookmarkKind.LOG, "0042") == "42"
    assert checked_target(BookmarkKind.CONNECTION, "a/b") == "a/b"
    for kind, text in ((BookmarkKind.LOG, "x"), (BookmarkKind.LOG, str(2**63)), (BookmarkKind.EXPERIMENT, "x" * 129)):
        with pytest.raises(ParameterError) as caught:
            checked_target(kind, text)
        assert caught.value.parameter == "target_id"
    with pytest.raises(ParameterError, match="kind: expected log, connection, experiment"):
        checked_kind("logs")


def test_notes_may_have_lines_but_no_nul() -> None:
    assert checked_note("a\nb") == "a\nb"
    for text in ("\0", "\ud800", "x" * 2_001):
        with pytest.raises(InvalidInput):
            checked_note(text)
