"""Query parameters of the agent's API, read strictly: an unknown or repeated one is refused. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final

from agent.errors import QuestionInvalid
from agent.reading.matching import Conditions
from agent.reading.reader import LINES_MAX, Question
from agent.reading.records import Form
from agent.roots import NAME_CHARS_MAX
from agent.scope import read_scope
from schemas.scope import ServiceScope

FILES_DEFAULT: Final = 1_000
_FLAGS: Final = {"true": True, "false": False, "1": True, "0": False}
_CASES: Final = {**_FLAGS, "sensitive": True, "insensitive": False}


@dataclass(frozen=True, slots=True)
class ListQuestion:
    """after: the last name of the page before."""

    scope: ServiceScope
    limit: int
    after: str | None


@dataclass(frozen=True, slots=True)
class FileQuestion:
    """max_s: seconds until it ends with `deadline`."""

    scope: ServiceScope
    question: Question
    max_s: float


def parse_list(items: Sequence[tuple[str, str]]) -> ListQuestion:
    """items: (name, value) as decoded from the query string. Raises QuestionInvalid."""
    given = _Given(items, {"scope", "limit", "cursor"})
    cursor = given.one("cursor")
    return ListQuestion(
        read_scope(given.one("scope")),
        given.number("limit", FILES_DEFAULT, 1, FILES_DEFAULT),
        None if cursor is None else read_cursor(cursor),
    )


def parse_file(items: Sequence[tuple[str, str]], *, read_s_max: float, follow_s_max: float) -> FileQuestion:
    """items: as above. read_s_max, follow_s_max: most seconds of an answer. Raises QuestionInvalid."""
    given = _Given(
        items, {"scope", "n", "keyword", "regex", "case", "across_lines", "follow", "format", "max_s"}, {"keyword"}
    )
    follow = given.flag("follow", _FLAGS)
    form = given.one("format") or Form.NDJSON.value
    if form not in list(Form):
        raise QuestionInvalid("format", f"expected ndjson or text, got {form!r:.50}")
    conditions = Conditions(
        keywords=tuple(given.every("keyword")),
        regex=given.one("regex"),
        is_case_sensitive=given.flag("case", _CASES),
        across_lines=given.flag("across_lines", _FLAGS),
    )
    longest_s = follow_s_max if follow else read_s_max
    return FileQuestion(
        read_scope(given.one("scope")),
        Question(conditions, given.number("n", 100, 0 if follow else 1, LINES_MAX), follow, Form(form)),
        min(given.number("max_s", int(longest_s), 1, 7 * 86_400), longest_s),
    )


def write_cursor(name: str) -> str:
    """What goes on behind this name."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def read_cursor(text: str) -> str:
    """Raises QuestionInvalid."""
    try:
        if len(text) > 2 * NAME_CHARS_MAX:
            raise ValueError
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise QuestionInvalid("cursor", "is none that a list gave") from error


class _Given:
    def __init__(self, items: Sequence[tuple[str, str]], known: set[str], repeatable: Set[str] = frozenset()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in items:
            if name not in known:
                raise QuestionInvalid(
                    f"{name:.50}", f"there is no such parameter; there are {', '.join(sorted(known))}"
                )
            if name in self._values and name not in repeatable:
                raise QuestionInvalid(name, "is given more than once")
            self._values.setdefault(name, []).append(value)

    def one(self, name: str) -> str | None:
        return self.every(name)[0] if name in self._values else None

    def every(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def number(self, name: str, default: int, least: int, most: int) -> int:
        text = self.one(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
            raise QuestionInvalid(name, f"expected a whole number, {least}..{most}, got {text!r:.50}")
        return int(text)

    def flag(self, name: str, spellings: dict[str, bool]) -> bool:
        text = self.one(name)
        if text is None:
            return False
        if text not in spellings:
            raise QuestionInvalid(name, f"expected {' or '.join(spellings)}, got {text!r:.50}")
        return spellings[text]
