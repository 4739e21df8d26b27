"""What a command line asks for, and that one section's failure is not the others'."""

from __future__ import annotations

import pytest

from bench.__main__ import _attempt, parse_arguments
from bench.figures import Figures
from bench.options import SECTIONS, Options, quick
from infra.fleet import EMBEDDED, FULL


def test_by_default_the_full_profile_gets_everything_and_the_embedded_one_its_ratios() -> None:
    task = parse_arguments([])
    assert task.sections_of(FULL) == SECTIONS
    assert task.sections_of(EMBEDDED) == ("floor", "throughput")
    assert task.options == Options()


def test_a_profile_asked_for_alone_gets_everything() -> None:
    task = parse_arguments(["--profile", EMBEDDED])
    assert task.profiles == (EMBEDDED,)
    assert task.sections_of(EMBEDDED) == SECTIONS


def test_sections_and_sizes_are_taken() -> None:
    task = parse_arguments(
        ["--only", "floor,pages", "--minutes", "5", "--rows", "1000", "--runs", "2", "--lag-frames", "0"]
    )
    assert task.sections_of(FULL) == ("floor", "pages")
    assert (task.options.run_s, task.options.rows, task.options.runs, task.options.lag_frames) == (300, 1000, 2, 0)


def test_quick_is_smaller_and_sizes_given_win() -> None:
    assert parse_arguments(["--quick"]).options == quick(Options())
    assert parse_arguments(["--quick", "--rows", "5"]).options.rows == 5


def test_an_unknown_section_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--only", "floor,speed"])
    assert "got 'speed'" in capsys.readouterr().err


def test_a_section_that_fails_is_noted() -> None:
    figures = Figures()

    async def breaks() -> None:
        raise ValueError("no such thing")

    async def works() -> None:
        figures.numbers["fine"] = 1.0

    assert not _attempt("full.floor", breaks(), Options(), figures)
    assert _attempt("full.pages", works(), Options(), figures)
    assert figures.errors == {"full.floor": "ValueError: no such thing"}
    assert figures.numbers == {"fine": 1.0}
