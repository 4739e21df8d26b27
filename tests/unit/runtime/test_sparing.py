"""Lines that say the same are written once a minute, and nothing new waits for them."""

from __future__ import annotations

from runtime.sparing import KINDS_MAX, Sparing


def test_same_line_is_due_once_a_minute_and_tells_how_many_were_left_out() -> None:
    sparing = Sparing()
    assert [sparing.due("away", tenth / 10) for tenth in range(1300)] == [
        0 if tenth == 0 else 599 if tenth in (600, 1200) else None for tenth in range(1300)
    ]


def test_another_line_is_due_at_once_and_so_is_the_same_one_after_it_went_well() -> None:
    sparing = Sparing()
    assert (sparing.due("away", 0.0), sparing.due("refused", 0.1), sparing.due("away", 0.2)) == (0, 0, None)
    sparing.forget()
    assert sparing.due("away", 0.3) == 0


def test_ever_different_lines_take_bounded_memory() -> None:
    sparing = Sparing()
    for number in range(10 * KINDS_MAX):
        assert sparing.due(number, 0.0) == 0
    assert len(sparing._said) == KINDS_MAX
