"""What an export shows on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cli.exporting.progress import Screen, size_text

NOW_US = 1_795_687_200_000_000
"""2026-11-26T10:00:00Z"""


def shown(*, terminal: bool, start: str | None = "-2h", quiet: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, highlight=False)
    screen = Screen("out\x1b.csv", quiet=quiet, start=start, end=None, now_us=NOW_US, console=console)
    with screen:
        screen.show(
            logs=1_234_567, bytes=3 << 20, first="2026-11-26T08:30:00.000000Z", reached="2026-11-26T09:00:00.000000Z"
        )
    screen.note("a note")
    screen.warn("a warning")
    return file.getvalue()


@pytest.mark.parametrize("start", ["-2h", None])
def test_terminal_shows_logs_bytes_and_the_time_reached(start: str | None) -> None:
    text = shown(terminal=True, start=start)
    assert "1,234,567 logs, 3.0 MiB, at 2026-11-26T09:00:00" in text
    assert "out\\x1b.csv" in text
    assert "a note" in text


def test_elsewhere_there_are_notes_alone_and_in_quiet_warnings() -> None:
    assert shown(terminal=False) == "a note\na warning\n"
    assert shown(terminal=False, quiet=True) == "a warning\n"


def test_sizes_are_for_people() -> None:
    assert [size_text(size) for size in (0, 1023, 1024, 5 << 30, 9 << 50)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 GiB",
        "9216.0 TiB",
    ]
