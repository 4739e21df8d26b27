"""Lines that say the same are written once a minute, and nothing new waits for them."""

from __future__ import annotations

import logging

import pytest
import structlog

from runtime.sparing import KINDS_MAX, Sparing, SparingFilter, SparingLog


def test_same_line_is_due_once_a_minute_and_tells_how_many_were_left_out() -> None:
    sparing = Sparing()
    assert [sparing.due("away", tenth / 10) for tenth in range(1300)] == [
        0 if tenth == 0 else 599 if tenth in (600, 1200) else None for tenth in range(1300)
    ]


def test_another_line_is_due_at_once() -> None:
    sparing = Sparing()
    assert (sparing.due("away", 0.0), sparing.due("refused", 0.1), sparing.due("away", 0.2)) == (0, 0, None)


def test_our_own_repeated_lines_are_left_out_unless_their_error_changes() -> None:
    with structlog.testing.capture_logs() as lines:
        repeated = SparingLog(structlog.get_logger())
        for number in range(10):
            repeated.info("made anew")
            repeated.warning("not told", error="away", attempt=number)
            repeated.warning("row refused", error=f"row {number}", kind="")
            repeated.exception("failed", ValueError(number % 2))
    assert [
        (line["event"], line.get("error"), line.get("exc_info")) for line in lines if line["event"] != "failed"
    ] == [
        ("made anew", None, None),
        ("not told", "away", None),
        ("row refused", "row 0", None),
    ]
    assert [repr(line["exc_info"]) for line in lines if line["event"] == "failed"] == ["ValueError(0)", "ValueError(1)"]


def test_repeated_lines_of_a_library_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("runtime.sparing.time.monotonic", lambda: now_s)
    written: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: written.append(record.getMessage())  # type: ignore[method-assign]  # the listener
    handler.addFilter(SparingFilter())
    library = logging.Logger("library")
    library.addHandler(handler)

    def fail(number: int) -> None:
        try:
            if number % 2:
                raise KeyError(number)
            raise KeyError(number)  # another place
        except KeyError:
            library.exception("failed")

    for number in range(10):
        library.error("no connection to node %d: %s", number % 2, "refused")
        fail(number)
    assert written == ["no connection to node 0: refused", "failed", "no connection to node 1: refused", "failed"]
    now_s = 60.0
    library.error("no connection to node %d: %s", 1, "refused")
    assert written[4:] == ["no connection to node 1: refused (4 more like this were left out)"]


def test_ever_different_lines_take_bounded_memory() -> None:
    sparing = Sparing()
    for number in range(10 * KINDS_MAX):
        assert sparing.due(number, 0.0) == 0
    assert len(sparing._said) == KINDS_MAX
