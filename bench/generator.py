"""The load: a process of its own, so that making requests takes no time from what is measured.

    python -m bench.generator URL [URL …] [--rate LOGS_PER_S] [--seconds S] [--requests N] [--logs N] [--keyed] [--credit]

makes its moulds, writes the line `ready`, waits for a line on standard input, posts, and writes one JSON line
(`GeneratorReport`) when everything was acknowledged. SIGTERM ends it early, with the report.

Without a rate it is a closed loop: each connection sends its next request when the last one was answered. With a rate it is
an open loop: request k is due at k / rate, whoever is late counts the lateness as latency (no coordinated omission). With
--credit each line on standard input is the number of requests that may have been sent by then: the harness lets the load
run only so far ahead of what is stored. 429 and 503 are retried after Retry-After and counted; any other refusal ends it.

One event loop (uvloop), one task a connection, no locks: the shared counters change between awaits only.
Costs at most 1 µs of CPU a log at 1,000 logs a request, 0.5 µs of it the body.
"""

from __future__ import annotations

import argparse
import asyncio
import binascii
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import uvloop

from bench.lines import LOGS_PER_REQUEST, bodies, moulds, single_lines
from bench.wire import Answer, ConnectionBroken, HttpConnection, Target
from bench.wire_formats import FORMATS, format_moulds

BATCH_PATH: Final = "/api/v1/logs/batch"
SINGLE_PATH: Final = "/api/v1/logs"
MOULDS: Final = 32
FORMAT_MOULDS: Final = 8
"""Of a format that others send: 0.5 s each."""
_RETRIED: Final = (429, 503)
_ACCEPTED: Final = re.compile(rb'"accepted":\s*(\d+)')
_LATENCIES_MAX: Final = 1_000_000


class GeneratorReport(msgspec.Struct):
    """What became of the load. Times in seconds; `began_s` on the machine's monotonic clock."""

    began_s: float
    took_s: float
    requests: int
    accepted_logs: int
    retried: dict[str, int]
    """Status -> answers after which a request was sent again."""
    reconnected: int
    accepted_by_second: list[int]
    """Logs acknowledged in each second since the beginning."""
    latencies_ms: list[float]
    """Of each request, from when it was due (open loop) or sent (closed loop) to its last answer."""
    cpu_s: float
    """User and system time of this process, bodies included."""

    def accepted_points(self) -> list[tuple[float, float]]:
        """(monotonic time, logs accepted by then)."""
        points, total = [(self.began_s, 0.0)], 0
        for second, logs in enumerate(self.accepted_by_second, start=1):
            total += logs
            points.append((self.began_s + second, float(total)))
        return points


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send."""

    urls: tuple[str, ...]
    path: str
    logs_per_request: int = LOGS_PER_REQUEST
    rate: float | None = None
    """Logs a second."""
    seconds: float | None = None
    requests: int | None = None
    connections: int = 4
    keyed: bool = False
    credit: bool = False
    seed: int = 1
    format: str | None = None
    """Of `bench.wire_formats`; None: our own."""


@dataclass(slots=True)
class _Tally:
    began_s: float
    accepted: int = 0
    answered: int = 0
    retried: dict[str, int] = field(default_factory=dict)
    reconnected: int = 0
    by_second: list[int] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    def note(self, logs: int, since_s: float, now_s: float) -> None:
        second = int(now_s - self.began_s)
        while len(self.by_second) <= second:
            self.by_second.append(0)
        self.by_second[second] += logs
        self.accepted += logs
        self.answered += 1
        if len(self.latencies_ms) < _LATENCIES_MAX:
            self.latencies_ms.append((now_s - since_s) * 1000)


class Refused(Exception):
    """The server refused a request for good."""


class Generator:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        """Makes the moulds: 0.02 s each."""
        self._plan = plan
        self._is_single = plan.logs_per_request == 1
        logs = LOGS_PER_REQUEST if self._is_single else plan.logs_per_request
        self._format = None if plan.format is None else FORMATS[plan.format]
        if plan.format is None:
            made = moulds(MOULDS, logs=logs, seed=plan.seed)
        else:
            made = format_moulds(plan.format, FORMAT_MOULDS, logs=logs, seed=plan.seed)
        self._bodies: Iterator[bytes] = single_lines(made) if self._is_single else bodies(made)
        self._sent = 0
        self._credit = 0 if plan.credit else None
        self._more_credit = asyncio.Event()
        self._stopped = False

    def stop(self) -> None:
        """Send no further request."""
        self._stopped = True
        self._more_credit.set()

    def grant(self, requests: int) -> None:
        """So many requests may have been sent, in all."""
        self._credit = requests
        self._more_credit.set()

    async def run(self) -> GeneratorReport:
        """Send all of it. Raises Refused, ConnectionBroken, OSError."""
        plan = self._plan
        tally = _Tally(began_s=time.monotonic())
        cpu_before_s = _cpu_s()
        async with asyncio.TaskGroup() as tasks:
            for number in range(plan.connections):
                target = Target.of(plan.urls[number % len(plan.urls)], plan.path)
                tasks.create_task(self._post_on(target, tally))
        return GeneratorReport(
            began_s=tally.began_s,
            took_s=time.monotonic() - tally.began_s,
            requests=tally.answered,
            accepted_logs=tally.accepted,
            retried=tally.retried,
            reconnected=tally.reconnected,
            accepted_by_second=tally.by_second,
            latencies_ms=[round(latency, 3) for latency in tally.latencies_ms],
            cpu_s=_cpu_s() - cpu_before_s,
        )

    async def _post_on(self, target: Target, tally: _Tally) -> None:
        connection = HttpConnection(target)
        content_type = "application/json" if self._is_single else "application/x-ndjson"
        head = target.post_head(content_type if self._format is None else self._format.content_type)
        plan = self._plan
        interval_s = plan.logs_per_request / plan.rate if plan.rate else 0.0
        end_s = tally.began_s + plan.seconds if plan.seconds is not None else float("inf")
        try:
            while not self._stopped and (plan.requests is None or self._sent < plan.requests):
                due_s = tally.began_s + self._sent * interval_s if interval_s else time.monotonic()
                if due_s >= end_s:
                    return
                if self._credit is not None and self._sent >= self._credit:
                    await self._wait_for_credit(end_s)
                    continue
                self._sent += 1
                if due_s > time.monotonic():
                    await asyncio.sleep(due_s - time.monotonic())
                accepted = await self._post_until_taken(connection, head, next(self._bodies), tally)
                tally.note(accepted, due_s, time.monotonic())
        finally:
            connection.close()

    async def _wait_for_credit(self, end_s: float) -> None:
        self._more_credit.clear()
        try:
            async with asyncio.timeout(max(0.0, min(end_s - time.monotonic(), 60.0))):
                await self._more_credit.wait()
        except TimeoutError:
            return

    async def _post_until_taken(self, connection: HttpConnection, head: bytes, body: bytes, tally: _Tally) -> int:
        """Logs that were accepted."""
        key = b"\r\nIdempotency-Key: " + binascii.hexlify(os.urandom(16)) if self._plan.keyed else b""
        whole_head = b"%b%d%b\r\n\r\n" % (head, len(body), key)
        broken = 0
        while True:
            try:
                answer = await connection.request(whole_head, body)
            except ConnectionBroken:
                # A server closes idle connections, at worst while the next request is on its way.
                broken += 1
                tally.reconnected += 1
                if broken > 3:
                    raise
                continue
            if answer.status not in _RETRIED:
                if self._format is not None and not self._format.is_whole(answer):
                    raise Refused(f"{answer.status}: {answer.body[:500].decode(errors='replace')}")
                return accepted_logs(answer, self._plan.logs_per_request)
            status = str(answer.status)
            tally.retried[status] = tally.retried.get(status, 0) + 1
            await asyncio.sleep(answer.retry_after_s if answer.retry_after_s is not None else 1.0)


def accepted_logs(answer: Answer, sent: int) -> int:
    """Logs that an answer acknowledges. Raises Refused unless it acknowledges all that were sent."""
    if not 200 <= answer.status < 300:
        raise Refused(f"{answer.status}: {answer.body[:500].decode(errors='replace')}")
    found = _ACCEPTED.search(answer.body)
    if found is not None and int(found[1]) != sent:
        raise Refused(
            f"{sent} logs were sent, {found[1].decode()} accepted: {answer.body[:500].decode(errors='replace')}"
        )
    return sent


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _run(plan: Plan) -> None:
    generator = Generator(plan)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, generator.stop)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print("ready", flush=True)
    await commands.readline()

    async def take_credit() -> None:
        while line := await commands.readline():
            generator.grant(int(line))

    taking = asyncio.create_task(take_credit())
    report = await generator.run()
    taking.cancel()
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.flush()


def parse_arguments(arguments: Sequence[str] | None = None) -> Plan:
    """The plan that a command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench.generator", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("urls", nargs="+", metavar="URL", help="http://host:port; connections take them in turn")
    parser.add_argument("--path", help=f"default {BATCH_PATH}, or {SINGLE_PATH} with --logs 1")
    parser.add_argument("--logs", type=int, default=LOGS_PER_REQUEST, help="logs a request (default 1,000)")
    parser.add_argument("--rate", type=float, help="logs a second (open loop); default: as fast as it goes")
    parser.add_argument("--seconds", type=float, help="how long")
    parser.add_argument("--requests", type=int, help="how many requests")
    parser.add_argument("--connections", type=int, default=4, help="requests under way at once (default 4)")
    parser.add_argument("--format", choices=FORMATS, help="what other shippers send (default: our own)")
    parser.add_argument("--keyed", action="store_true", help="an Idempotency-Key on every request")
    parser.add_argument("--credit", action="store_true", help="wait for credit on standard input")
    parser.add_argument("--seed", type=int, default=1, help="of the moulds (default 1)")
    given = parser.parse_args(arguments)
    return Plan(
        urls=tuple(given.urls),
        path=given.path
        or (FORMATS[given.format].path if given.format else SINGLE_PATH if given.logs == 1 else BATCH_PATH),
        logs_per_request=given.logs,
        rate=given.rate,
        seconds=given.seconds,
        requests=given.requests,
        connections=given.connections,
        keyed=given.keyed,
        credit=given.credit,
        seed=given.seed,
        format=given.format,
    )


def main() -> None:
    """See the module."""
    plan = parse_arguments()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run(plan))
        except* (Refused, ConnectionBroken, OSError) as group:
            sys.exit(f"the load ended: {group.exceptions[0]}")


if __name__ == "__main__":
    main()
