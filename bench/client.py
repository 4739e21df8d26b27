"""The Python client: what a log costs the program that logs it. The program is a process of its own
(bench/client_program.py)."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final
from urllib.parse import urlsplit

import msgspec

from bench.client_program import Report
from bench.figures import ProfileFigures
from bench.options import Options
from bench.progress import progress
from bench.quantiles import median
from bench.site import Site
from bench.watch import opened_store
from infra.fleet import REPOSITORY

_REPETITIONS: Final = 3


async def measure(site: Site, options: Options, figures: ProfileFigures) -> None:
    """client_caller_us (of `logger.info`), client_handler_us (of it, the handler's part), client_cpu_us (of the whole program),
    client_logs_per_cpu_s, client_logs_per_s (acknowledged)."""
    await site.start_pipeline()
    async with opened_store(site.fleet) as store:
        reports = []
        for _ in range(_REPETITIONS):
            reports.append(await _run(site.ingest_urls[0], options.client_logs))
            await site.drained(store)
    logs = options.client_logs
    cpu_s = median([report.process_cpu_s for report in reports])
    figures.put("client_caller_us", median([report.caller_cpu_s for report in reports]) / logs * 1e6)
    figures.put("client_handler_us", median([report.handler_cpu_s for report in reports]) / logs * 1e6)
    figures.put("client_cpu_us", cpu_s / logs * 1e6)
    figures.put("client_logs_per_cpu_s", logs / cpu_s)
    figures.put("client_logs_per_s", logs / median([report.took_s for report in reports]))
    progress(f"the Python client: {cpu_s / logs * 1e6:.1f} µs a log of the program")


async def _run(url: str, logs: int) -> Report:
    """One program to its end. url: with a key, as sites have it."""
    parsed = urlsplit(url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.client_program"),
        *(f"{parsed.scheme}://{parsed.hostname}:{parsed.port}", parsed.username or "", str(logs)),
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "clients" / "python")},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the program with the client ended with {process.returncode}")
    return msgspec.json.decode(output, type=Report)
