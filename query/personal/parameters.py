"""What names, notes and addresses may be. Pure."""

from __future__ import annotations

import re
from typing import Final

from query.params import Items, Parameter, Values, parse_log_id
from schemas.errors import InvalidInput
from search.params import ParameterError
from store.personal.kept import BookmarkKind

NAME_CHARS_MAX: Final = 100
NOTE_CHARS_MAX: Final = 2_000
ADDRESS_CHARS_MAX: Final = 4_096
TARGET_CHARS_MAX: Final = 128
BOOKMARKS: Final = (
    Parameter("kind", "Only of this kind.", {"type": "string", "enum": [str(each) for each in BookmarkKind]}),
)
_UNSTORABLE: Final = re.compile(r"[\x00\ud800-\udfff]")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def parse_kind(items: Items) -> BookmarkKind | None:
    """Of `GET /api/v1/bookmarks`. Raises ParameterError."""
    text = Values(items, BOOKMARKS).one("kind")
    return None if text is None else checked_kind(text)


def checked_kind(text: str) -> BookmarkKind:
    """Raises ParameterError."""
    if text not in list(BookmarkKind):
        raise ParameterError("kind", f"expected {', '.join(BookmarkKind)}, got {text[:40]!r}")
    return BookmarkKind(text)


def checked_target(kind: BookmarkKind, text: str) -> str:
    """The id of what is bookmarked; it need not exist. Raises ParameterError."""
    if kind is BookmarkKind.LOG:
        try:
            return str(parse_log_id(text))
        except ParameterError as error:
            raise ParameterError("target_id", error.message) from error
    if not 1 <= len(text) <= TARGET_CHARS_MAX or _CONTROLS.search(text):
        raise ParameterError("target_id", f"expected 1..{TARGET_CHARS_MAX} characters, none of control")
    return text


def checked_name(text: str) -> str:
    """Of a view. Raises ParameterError."""
    if not 1 <= len(text) <= NAME_CHARS_MAX or _CONTROLS.search(text) or text != text.strip():
        raise ParameterError("name", f"expected 1..{NAME_CHARS_MAX} characters, none of control, no space at its ends")
    return text


def checked_note(text: str) -> str:
    """Raises InvalidInput."""
    if len(text) > NOTE_CHARS_MAX or _UNSTORABLE.search(text):
        raise InvalidInput(f"note: expected at most {NOTE_CHARS_MAX} characters, none of them NUL")
    return text


def checked_address(text: str) -> str:
    """A path of this site and its query: nothing that a browser takes for another site's. Raises InvalidInput."""
    is_path = text.startswith("/") and not text.startswith(("//", "/\\")) and not _CONTROLS.search(text)
    if not is_path or len(text) > ADDRESS_CHARS_MAX:
        raise InvalidInput(
            f"address: expected a path of this site with its query, such as /?query=error, of at most {ADDRESS_CHARS_MAX}"
            " characters"
        )
    return text
