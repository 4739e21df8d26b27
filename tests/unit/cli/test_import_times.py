"""`--time`: what is refused before the first line, and what times come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.importing.prepare import Choices, Job, prepare
from cli.importing.sources import Source, SourceError
from cli.importing.state import Options, StateError, save
from cli.importing.timeline import DAY_US, Found, PastRetention, Span, TimeMode, Times, show_time, warn_of_future
from schemas.errors import InvalidInput

NOW_US = 1_795_000_000_000_000
"""2026-11-18T11:06:40Z"""


def choices(
    time: TimeMode = TimeMode.KEEP,
    *,
    service: str | None = "svc",
    restart: bool = False,
    together: bool = False,
    retention_days: int = 400,
) -> Choices:
    options = Options(service, time, "UTC", "auto", True, None, {})
    return Choices(options, "http://127.0.0.1:1", restart, together, retention_days)


def prepared(paths: list[Path], asked: Choices, *, now_us: int = NOW_US) -> list[Job]:
    sources = [(Source(str(path)), path.with_suffix(".state")) for path in paths]
    return prepare(sources, asked, now_us=now_us, salt="salt", scanning=lambda _source, _done: None)


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_keep_past_the_retention_is_refused_and_says_what_lifts_it(tmp_path: Path) -> None:
    old = write(tmp_path / "old.log", "2026-11-17 08:00:00 INFO new", "2005-12-04 04:47:44 INFO old")
    with pytest.raises(PastRetention) as refused:
        prepared([old], choices())
    message = str(refused.value)
    assert "line 2" in message
    assert "retention of 400 days" in message
    assert "ingest.retention_days" in message
    assert "--time shift or --time now" in message
    days = int(message.partition("--retention-days ")[2].split(",")[0])
    assert prepared([old], choices(retention_days=days))


def test_keep_looks_at_the_end_and_the_middle_of_large_files(tmp_path: Path) -> None:
    new = "2026-11-17 08:00:00 INFO new"
    large = write(tmp_path / "large.log", *[new] * 20_000, *["2005-12-04 04:47:44 INFO old"] * 2_000, *[new] * 20_000)
    with pytest.raises(PastRetention, match="a line is of 2005-12-04"):
        prepared([large], choices())


def test_nothing_of_any_file_is_prepared_when_one_is_refused(tmp_path: Path) -> None:
    good = write(tmp_path / "good.log", "2026-11-17 08:00:00 INFO new")
    old = write(tmp_path / "old.log", "2005-12-04 04:47:44 INFO old")
    with pytest.raises(PastRetention):
        prepared([good, old], choices())


def test_shift_makes_the_newest_line_now_wherever_it_stands(tmp_path: Path) -> None:
    path = write(tmp_path / "a.log", "2005-12-04 04:00:00 a", "2005-12-04 05:00:00 b", "2005-12-04 04:30:00 c")
    (job,) = prepared([path], choices(TimeMode.SHIFT))
    times = job.state.times(NOW_US)
    newest_us = 1_133_672_400_000_000
    assert times.place(newest_us, last_us=None, line=1) == NOW_US
    assert times.place(newest_us - 5, last_us=None, line=1) == NOW_US - 5


def test_together_keeps_files_in_step(tmp_path: Path) -> None:
    first = write(tmp_path / "a.log", "2005-12-04 04:00:00 a")
    second = write(tmp_path / "b.log", "2005-12-04 05:00:00 b")
    apart = [job.state.shift_us for job in prepared([first, second], choices(TimeMode.SHIFT))]
    together = [job.state.shift_us for job in prepared([first, second], choices(TimeMode.SHIFT, together=True))]
    assert apart[0] - apart[1] == 3_600_000_000
    assert together == [apart[1], apart[1]]


def test_shift_over_a_span_past_the_retention_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.log", "2001-01-01 00:00:00 a", "2005-12-04 05:00:00 b")
    with pytest.raises(PastRetention, match="--time now"):
        prepared([path], choices(TimeMode.SHIFT))


def test_shift_without_any_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="--time now"):
        prepared([write(tmp_path / "a.log", "no time")], choices(TimeMode.SHIFT))


def test_now_takes_anything(tmp_path: Path) -> None:
    (job,) = prepared([write(tmp_path / "a.log", "2001-01-01 00:00:00 a")], choices(TimeMode.NOW))
    assert job.state.times(NOW_US).place(1, last_us=1, line=3) == NOW_US + 3


def test_plain_lines_need_a_service(tmp_path: Path) -> None:
    path = write(tmp_path / "a.log", "2026-11-17 08:00:00 INFO a")
    with pytest.raises(InvalidInput, match="--service"):
        prepared([path], choices(service=None))
    named = write(tmp_path / "b.log", '{"service":"x","message":"m"}')
    assert prepared([named], choices(service=None))


def test_resume_with_other_options_or_another_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.log", "2026-11-17 08:00:00 INFO a")
    (job,) = prepared([path], choices())
    assert job.state_path is not None
    save(job.state_path, job.state)
    with pytest.raises(StateError, match="time"):
        prepared([path], choices(TimeMode.NOW))
    (again,) = prepared([path], choices(), now_us=NOW_US + 5)
    assert again.state == job.state
    write(path, "2026-11-17 08:00:00 INFO a", "2026-11-17 08:00:01 INFO b")
    (grown,) = prepared([path], choices(), now_us=NOW_US + 5)
    assert [extent.now_us for extent in grown.state.extents] == [NOW_US, NOW_US + 5]
    write(path, "2026-11-17 08:00:00 INFO other")
    with pytest.raises(StateError, match="--restart"):
        prepared([path], choices())
    (fresh,) = prepared([path], choices(restart=True))
    assert fresh.state.salt == "salt"


@pytest.mark.parametrize(("minutes", "warns"), [(0, False), (9, False), (120, True)])
def test_times_ahead_of_now_are_warned_of(minutes: int, warns: bool) -> None:
    newest = Found(1, NOW_US + minutes * 60_000_000)
    warning = warn_of_future("f", newest, Times(TimeMode.KEEP, NOW_US, 0))
    assert (warning is not None) is warns
    if warning is not None:
        assert "120 minutes ahead" in warning
        assert "--tz" in warning


def test_span_widens() -> None:
    span = Span(Found(1, 5), Found(1, 5)).widen(Found(2, 3)).widen(Found(3, 9))
    assert span == Span(Found(2, 3), Found(3, 9))


def test_times_outside_the_calendar_are_shown_at_its_bounds() -> None:
    assert show_time(-(10**20)).startswith("0001-01-01")
    assert Times(TimeMode.SHIFT, NOW_US, 10**19).place(5, last_us=None, line=1) < 253_402_300_800_000_000
    assert DAY_US == 86_400 * 1_000_000


@pytest.mark.parametrize(
    ("name", "content", "problem"), [("d", None, "is a directory"), ("u", "\ufeffa".encode("utf-16"), "UTF-16")]
)
def test_what_cannot_be_imported_says_what_to_do(
    tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=problem):
        Source(str(path))
    with pytest.raises(SourceError, match="No such file"):
        Source(str(tmp_path / "absent"))
