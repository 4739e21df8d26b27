"""The queue refuses what does not fit before anything changes, wakes its reader, and hangs nobody."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from logfeed_client.sending.line_queue import LineQueue

LINE = b"x" * 36  # 100 with what a line costs besides
DEADLINE_S = 30.0


def queue(**options: Any) -> LineQueue:
    sizes: dict[str, Any] = {
        "logs_max": 10,
        "bytes_max": 10_000,
        "batch_logs": 4,
        "batch_bytes": 5_000,
        "linger_s": 60.0,
    }
    return LineQueue(**{**sizes, **options})


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> None:
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_lines_come_out_in_order_in_batches() -> None:
    found = queue()
    for number in range(9):
        assert found.put(b"%d" % number)
    assert [found.take() for _ in range(4)] == [[b"0", b"1", b"2", b"3"], [b"4", b"5", b"6", b"7"], [b"8"], []]
    assert (len(found), found.bytes, found.put_count) == (0, 0, 9)


def test_number_and_bytes_are_bounded() -> None:
    few = queue()
    assert [few.put(LINE) for _ in range(12)] == [True] * 10 + [False] * 2
    small = queue(bytes_max=250)
    assert [small.put(LINE) for _ in range(3)] == [True, True, False]
    assert small.bytes == 200
    small.take()
    assert small.put(b"y" * 1_000), "what is longer than all of it has room where nothing else is"


def test_batches_are_bounded_in_bytes() -> None:
    found = queue(batch_bytes=250)
    for _ in range(3):
        found.put(LINE)
    found.put(b"z" * 400)
    assert [len(found.take()) for _ in range(3)] == [2, 1, 1]


def test_who_waits_for_room_has_it_when_lines_are_taken() -> None:
    found = queue(logs_max=4)
    for _ in range(4):
        found.put(LINE)
    results: list[bool] = []
    waiting = [in_thread(lambda: results.append(found.put(LINE, DEADLINE_S))) for _ in range(2)]
    while found._waiting_for_room < 2:
        time.sleep(0.001)
    found.take()
    for thread in waiting:
        ended(thread)
    assert results == [True, True]
    assert not found.put(LINE, 0.0) or len(found) <= 4


def test_nobody_waits_longer_than_asked_nor_past_the_end() -> None:
    found = queue(logs_max=4)
    for _ in range(4):
        found.put(LINE)
    assert not found.put(LINE, 0.01)
    results: list[bool] = []
    waiting = in_thread(lambda: results.append(found.put(LINE, DEADLINE_S)))
    while not found._waiting_for_room:
        time.sleep(0.001)
    found.close()
    ended(waiting)
    assert results == [False]
    assert not found.put(LINE)
    assert found.is_due(), "what was taken in is to be sent"


def test_the_reader_is_woken_by_a_full_batch_by_time_and_by_who_wants_everything() -> None:
    found = queue()
    waiting = in_thread(lambda: found.wait(None, for_lines=True))
    for _ in range(4):
        assert waiting.is_alive() or len(found) >= 4
        found.put(LINE)
    ended(waiting)
    assert found.is_due()
    found.take()
    found.put(LINE)
    assert not found.is_due()
    waiting = in_thread(lambda: found.wait(None, for_lines=True))
    assert found.want_all() == 5
    ended(waiting)
    assert found.is_due()
    found.take()
    hasty = queue(linger_s=0.01)
    hasty.put(LINE)
    waiting = in_thread(lambda: hasty.wait(None, for_lines=True))
    ended(waiting)
    assert hasty.is_due()


def test_a_reader_that_wants_no_lines_waits_for_time_or_the_end() -> None:
    found = queue()
    for _ in range(10):
        found.put(LINE)
    found.wait(0.01, for_lines=False)
    waiting = in_thread(lambda: found.wait(None, for_lines=False))
    found.close()
    ended(waiting)


def test_lines_put_back_are_the_oldest_again() -> None:
    found = queue()
    for number in range(5):
        found.put(b"%d" % number)
    taken = found.take()
    found.put_back(taken[1:])
    assert found.take() == [b"1", b"2", b"3", b"4"]
    assert (found.bytes, len(found), found.put_count) == (0, 0, 5)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_a_signal_handler_that_logs_amid_a_log_hangs_nobody() -> None:
    found = queue(logs_max=10**9, bytes_max=10**12)
    count = 0

    def interrupt(*_: Any) -> None:
        nonlocal count
        found.put(LINE)
        found.want_all()
        count += 1

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    put = 0
    ends_s = time.monotonic() + DEADLINE_S
    try:
        while count < 300 and time.monotonic() < ends_s:
            found.put(LINE)
            put += 1
            if put % 1000 == 0:
                found.take()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert count >= 300, os.getpid()
    assert found.put_count == put + count
    lines = len(found)
    assert found.bytes == lines * (len(LINE) + 64)


def test_threads_lose_nothing() -> None:
    found = queue(logs_max=10**6, bytes_max=10**9, linger_s=0.0)
    taken: list[bytes] = []

    def read() -> None:
        while not (found.is_closed and not len(found)):
            found.wait(0.05, for_lines=True)
            taken.extend(found.take())

    reading = in_thread(read)

    def write(who: int) -> None:
        for number in range(2_000):
            found.put(b"%d-%d" % (who, number))

    writers = [in_thread(partial(write, who)) for who in range(4)]
    for thread in writers:
        ended(thread)
    found.close()
    ended(reading)
    assert sorted(taken) == sorted(b"%d-%d" % (who, n) for who in range(4) for n in range(2_000))
    for who in range(4):
        mine = [int(line.split(b"-")[1]) for line in taken if line.startswith(b"%d-" % who)]
        assert mine == sorted(mine)
