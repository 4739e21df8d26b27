"""A program that logs without end through the Python client: `python -m bench.client_program URL KEY LOGS`, a report as JSON.

Each log has arguments, two fields of its own, a field that is bound, and a correlation id. The handler waits for room
(`block_s`), so that nothing is dropped and the server's acknowledgements set the pace.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Final

import msgspec

_DEADLINE_S: Final = 300.0


class Report(msgspec.Struct, frozen=True):
    """Of all logs of one program, in seconds."""

    caller_cpu_s: float
    """Of the thread that logs."""
    handler_cpu_s: float
    """Of that, what it would not use without the handler."""
    process_cpu_s: float
    """Of all threads, until everything is acknowledged."""
    took_s: float


def run(url: str, key: str, logs: int) -> Report:
    """Raises RuntimeError when not everything was accepted."""
    # Not installed where benchmarks run: on the path of this program alone.
    from logfeed_client import LogfeedHandler, bind, correlation

    handler = LogfeedHandler(url, service_name="bench/client", api_key=key or None, block_s=_DEADLINE_S)
    logger = logging.Logger("bench.orders")
    logger.addHandler(handler)
    with correlation(), bind(region="eu-1"):
        began_s, cpu_s = time.perf_counter(), time.process_time()
        caller_cpu_s = _say(logger, logs)
        is_sent = handler.sender.flush(_DEADLINE_S)
        took_s, process_cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        stats = handler.stats()
        if not is_sent or stats.accepted != logs:
            raise RuntimeError(f"{logs} logs were sent, {stats.accepted} accepted: {stats}")
        logger.removeHandler(handler)
        logger.addHandler(logging.NullHandler())
        plain_cpu_s = _say(logger, logs)
    return Report(caller_cpu_s, caller_cpu_s - plain_cpu_s, process_cpu_s, took_s)


def _say(logger: logging.Logger, logs: int) -> float:
    """CPU seconds of this thread."""
    began_s = time.thread_time()
    for number in range(logs):
        logger.info(
            "order %d of %s paid in %.1f ms",
            number,
            "c-17",
            number * 0.1,
            extra={"order": number, "path": "/v1/orders"},
        )
    return time.thread_time() - began_s


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(run(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
