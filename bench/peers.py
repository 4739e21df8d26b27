"""Another log store on the same machine with the same lines: VictoriaLogs, where somebody has put one.

LOGFEED_BENCH_VICTORIALOGS names its program; without it nothing is measured, and nothing is ever downloaded. It runs on a
free loopback port over a temporary directory, takes the same bodies through /insert/jsonline, and is asked what can be asked
of both. What it accepts is in its memory, not on its disk: it promises less than the figure it stands beside.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Final

import httpx
import orjson

from bench.figures import ProfileFigures
from bench.lines import COMMON_WORDS, moulds, single_lines
from bench.load import Load
from bench.options import Options
from bench.processes import usage
from bench.progress import progress
from bench.quantiles import median, percentile
from infra.fleet import free_port, until

VARIABLE: Final = "LOGFEED_BENCH_VICTORIALOGS"
_NAME: Final = "peer_victorialogs"
_INSERT_PATH: Final = "/insert/jsonline?_msg_field=message&_stream_fields=service_name"
_KNOWN: Final = 60
_SETTLED_S_MAX: Final = 60.0


def program() -> Path | None:
    """The program that the environment names, None without one. Raises FileNotFoundError when it is not there."""
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    if not os.access(name, os.X_OK):
        raise FileNotFoundError(f"{VARIABLE} names {name}, which is no program")
    return Path(name)


async def measure(options: Options, figures: ProfileFigures) -> None:
    """peer_victorialogs_accepted_per_s, _cpu_us_per_log, _peak_mib, _bytes_per_log, and times of questions."""
    found = program()
    if found is None:
        progress(f"no peer: {VARIABLE} names no program")
        return
    with _running(found) as (url, pid, data):
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
            await until(lambda: _answers(client), what="VictoriaLogs answers")
            async with _known_lines(client) as known:
                await _push(url, pid, options, figures)
            await _settle(client, data)
            rows = await _count(client)
            figures.put(f"{_NAME}_rows", rows)
            figures.put(f"{_NAME}_bytes_per_log", _bytes_of(data) / rows)
            await _ask(client, figures, known)


async def _push(url: str, pid: int, options: Options, figures: ProfileFigures) -> None:
    load = Load([url], connections=options.connections, seconds=options.peer_s, path=_INSERT_PATH, seed=110)
    async with load:
        cpu_s = usage([pid]).cpu_s
        load.go()
        report = await load.report()
    # What it still owes its disk is part of its work.
    await asyncio.sleep(5)
    used = usage([pid])
    per_s = report.accepted_logs / report.took_s
    cpu_us = (used.cpu_s - cpu_s) / report.accepted_logs * 1e6
    figures.put(f"{_NAME}_accepted_per_s", per_s)
    figures.put(f"{_NAME}_cpu_us_per_log", cpu_us)
    figures.put(f"{_NAME}_peak_mib", used.peak_mib)
    progress(f"VictoriaLogs accepts {per_s:,.0f} logs/s, {cpu_us:.1f} µs a log")


@contextlib.asynccontextmanager
async def _known_lines(client: httpx.AsyncClient) -> AsyncIterator[list[str]]:
    """Correlation ids of lines sent before and after the load."""
    known: list[str] = []
    lines = single_lines(moulds(1, seed=111))

    async def send() -> None:
        some = [next(lines) for _ in range(_KNOWN // 2)]
        known.extend(orjson.loads(line)["correlation_id"] for line in some)
        (await client.post(_INSERT_PATH, content=b"\n".join(some))).raise_for_status()

    await send()
    yield known
    await send()


async def _settle(client: httpx.AsyncClient, data: Path) -> None:
    """On disk, merged, and no longer changing size."""
    for what in ("force_flush", "force_merge"):
        (await client.get(f"/internal/{what}")).raise_for_status()
    deadline_s, size = time.monotonic() + _SETTLED_S_MAX, -1
    while size != _bytes_of(data) and time.monotonic() < deadline_s:
        size = _bytes_of(data)
        await asyncio.sleep(3)


async def _ask(client: httpx.AsyncClient, figures: ProfileFigures, known: Sequence[str]) -> None:
    questions = {
        "correlation_present": [f'correlation_id:="{each}"' for each in known],
        "correlation_absent": [f'correlation_id:="{each[::-1]}"' for each in known],
        "common_word": [
            f'"{COMMON_WORDS[number % len(COMMON_WORDS)]}" | sort by (_time desc) limit 100' for number in range(_KNOWN)
        ],
        "errors": [
            f'service_name:="shop-{"abcdefghi"[number % 9]}" level:=ERROR | sort by (_time desc) limit 100'
            for number in range(_KNOWN)
        ],
    }
    for kind, each in questions.items():
        times_ms = []
        for text in each:
            began_s = time.monotonic()
            answer = await client.get("/select/logsql/query", params={"query": text})
            answer.raise_for_status()
            times_ms.append((time.monotonic() - began_s) * 1000)
            if kind == "correlation_present" and not answer.content:
                raise RuntimeError(f"VictoriaLogs does not find {text}")
        figures.put(f"{_NAME}_p50_ms.{kind}", median(times_ms))
        figures.put(f"{_NAME}_p99_ms.{kind}", percentile(times_ms, 0.99))


async def _count(client: httpx.AsyncClient) -> int:
    answer = await client.get("/select/logsql/query", params={"query": "* | stats count() rows"})
    answer.raise_for_status()
    return int(orjson.loads(answer.content)["rows"])


async def _answers(client: httpx.AsyncClient) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return (await client.get("/health")).status_code == 200
    return False


def _bytes_of(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


@contextlib.contextmanager
def _running(found: Path) -> Iterator[tuple[str, int, Path]]:
    """(base URL, process id, data directory)."""
    data = Path(tempfile.mkdtemp(prefix="logfeed-bench-peer-"))
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [str(found), f"-storageDataPath={data}/data", f"-httpListenAddr={address}", "-loggerLevel=ERROR"],
        cwd=data,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )
    try:
        yield f"http://{address}", process.pid, data / "data"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(data, ignore_errors=True)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
