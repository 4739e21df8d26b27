"""How patterns are shown in a terminal, and which of them a query names."""

from __future__ import annotations

from typing import Any

import pytest

from cli.patterns import bars, change_text, footnote, level_of, one_lines, table_lines
from search.language import QueryError, parse, pattern_ids
from store.patterns.reading import Span

PATTERN: dict[str, Any] = {
    "id": "5f2a77c01d9be630",
    "template": "fuse <num> blown \x1b[31m",
    "services": ["shop", "mail"],
    "services_count": 2,
    "levels": {"INFO": 3, "ERROR": 1},
    "count": 1_204,
    "count_before": 0,
    "change": None,
    "first_seen": "2026-01-31T12:00:00.000000Z",
    "last_seen": "2026-01-31T13:00:00.000000Z",
    "samples": ["1", "2"],
}
ANSWER: dict[str, Any] = {
    "start": "2026-01-31T12:00:00.000000Z",
    "end": "2026-01-31T13:00:00.000000Z",
    "counted_from": "2026-01-31T12:30:00.000000Z",
    "counted_through": "2026-01-31T13:00:00.000000Z",
    "complete": False,
    "count": 1_300,
    "other": 2,
}


def test_a_row_says_it_all_and_commands_nothing() -> None:
    (row,) = table_lines([PATTERN], is_gone=False, is_colourful=False)
    assert row.startswith("5f2a77c01d9be630  1,204  new  ERROR  shop +1  fuse <num> blown ")
    assert "\x1b" not in row
    lines = one_lines({**ANSWER, "pattern": PATTERN, "series": [{"count": 1}, {"count": 8}]}, is_colourful=False)
    assert "\x1b" not in "".join(lines)
    assert "ERROR 1  INFO 3" in lines[2]
    assert lines[-1].endswith("|▁█| 2026-01-31T13:00:00Z")


@pytest.mark.parametrize(
    ("count", "change", "text"),
    [(5, None, "new"), (5, 0.094, "+9%"), (0, -1.0, "-100%"), (300, 29.0, "x30"), (0, None, ""), (5, 0.0, "+0%")],
)
def test_change_against_the_time_before(count: int, change: float | None, text: str) -> None:
    assert change_text({"count": count, "change": change}) == text


def test_the_gravest_level_is_shown() -> None:
    assert level_of({"levels": {"DEBUG": 3, "WARN": 1}}) == "WARN"
    assert level_of({"levels": {}}) == ""


def test_bars_are_sixty_at_most_and_show_every_line() -> None:
    assert bars([0, 1, 8, 4]) == " ▁█▄"
    assert len(bars([1] * 500)) <= 60
    assert bars([0] * 59 + [1]).strip() == "█"
    assert bars([]) == ""


def test_what_figures_are_worth_is_said() -> None:
    said = footnote(ANSWER)
    assert "1,300 lines; 2 of patterns that were not kept" in said
    assert "incomplete (counted since 2026-01-31T12:30:00Z)" in said
    assert "run `logfeed mine`" in footnote({**ANSWER, "counted_from": None})


def test_a_query_says_which_patterns_it_names() -> None:
    one, two = "5f2a77c01d9be630", "00000000000000aa"
    assert pattern_ids(f"level:error (pattern:{one} OR -PATTERN:{two})") == {int(one, 16), int(two, 16)}
    assert pattern_ids(f'pattern:"{one}" metadata.pattern:{one} "pattern:{one}"') == set()
    assert pattern_ids("no mistake: here (pattern") == set()
    with pytest.raises(QueryError) as caught:
        parse(f"a pattern:{one}")
    assert caught.value.column == 11


def test_spans_are_whole_and_by_the_hour_where_there_are_no_minutes() -> None:
    minute = 60_000_000
    assert Span.of(10 * minute + 1, 12 * minute + 1, minutes_from_us=0) == Span(10, 13, 1)
    assert Span.of(61 * minute, 62 * minute, minutes_from_us=61 * minute) == Span(1, 2, 60), "minutes before are gone"
    assert Span.of(0, 181 * minute, minutes_from_us=-(10**15)) == Span(0, 4, 60)
    assert Span(10, 13, 1).before == 7
