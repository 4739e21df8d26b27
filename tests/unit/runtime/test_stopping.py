"""Orderly stop: one event, two signals, loops that end with it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from runtime.stopping import Stop, every

WAITS = """
import asyncio, sys, time
from runtime.stopping import Stop, listen_for_signals
async def main():
    stop = Stop()
    listen_for_signals(stop, **({"ends_within_s": 0.2} if sys.argv[1] == "hung" else {}))
    print("listening", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    if sys.argv[1] == "slow":
        await asyncio.sleep(60)
    if sys.argv[1] == "hung":
        time.sleep(60)
asyncio.run(main())
"""


async def test_wait_ends_with_the_stop() -> None:
    stop = Stop()
    waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(stop.wait(60.0))]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    stop.set()
    stop.set()
    assert await asyncio.gather(*waiting) == [True, True]
    assert stop.is_set
    assert await stop.wait(0.0)


async def test_wait_without_a_stop_ends_with_its_time() -> None:
    stop = Stop()
    assert await stop.wait(0.001) is False
    assert await stop.wait(0.0) is False


async def test_every_runs_now_and_until_the_stop() -> None:
    stop, runs = Stop(), 0

    async def action() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            stop.set()

    await asyncio.wait_for(every(0.001, action, stop), 10)
    assert runs == 3
    await every(0.001, action, stop)
    assert runs == 3, "nothing runs after the stop"


async def test_stop_does_not_wait_for_the_next_round() -> None:
    stop, ran = Stop(), asyncio.Event()

    async def action() -> None:
        ran.set()

    task = asyncio.create_task(every(3600.0, action, stop))
    await ran.wait()
    stop.set()
    await asyncio.wait_for(task, 10)


async def test_unexpected_error_of_an_action_ends_the_loop() -> None:
    async def action() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await every(0.001, action, Stop())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("inherited", [signal.SIG_DFL, signal.SIG_IGN], ids=["terminal", "background"])
def test_first_signal_stops_in_order_and_the_second_at_once(number: signal.Signals, inherited: signal.Handlers) -> None:
    """Also where a script started the process with `&`, which leaves SIGINT ignored."""
    for how, code in (("quick", 0), ("slow", 130)):
        with subprocess.Popen(
            [sys.executable, "-c", WAITS, how],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, inherited),
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            process.send_signal(number)
            assert process.stdout.readline() == "stopping\n"
            if how == "slow":
                process.send_signal(number)
            assert process.wait(30) == code


def test_stop_that_hangs_ends_in_its_time() -> None:
    """Also where the event loop itself is held up."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITS, "hung"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
        assert "the stop takes too long" in process.stdout.read()
