"""`make bench`: logs a second accepted and stored, both profiles, beside the floor of the same run.

Everything runs on this machine at once: generator, ingest, broker, two writers, database. Absolute figures belong to the
machine and the minute; the ratios are what may be compared. Results go to bench/results/latest.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson

from bench.floor import rows_per_second
from bench.generator import LOGS_PER_REQUEST, post_all
from bench.lines import bodies
from infra.fleet import EMBEDDED, FULL, Fleet, until
from runtime.telemetry import configure_logging

DEADLINE_S = 600
RESULTS = Path(__file__).parent / "results" / "latest.json"


async def _stored(url: str) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        answer = await client.get(f"{url}/api/v1/ledger", params={"start_time": "-1h"})
        answer.raise_for_status()
        return sum(orjson.loads(answer.content)["totals"]["stored"].values())


async def _until_stored(url: str, count: int) -> None:
    async def all_stored() -> bool:
        return await _stored(url) >= count

    await until(all_stored, what="everything accepted is stored", timeout_s=DEADLINE_S)


@contextlib.contextmanager
def _generator(url: str, requests: int) -> Iterator[subprocess.Popen[bytes]]:
    """A generator with its bodies made, waiting for the word."""
    command = [sys.executable, "-m", "bench.generator", url, str(requests), "2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def measure(profile: str, logs: int) -> dict[str, float]:
    """One profile: accepted and stored logs a second while everything runs, and the floor."""
    directory = Path(tempfile.mkdtemp(prefix="logfeed-bench-"))
    directory.chmod(0o711)
    fleet = Fleet(profile, directory)
    requests = logs // LOGS_PER_REQUEST
    try:
        fleet.start_servers()
        fleet.role("serve")
        for number in range(2):
            fleet.role("write", label=f"writer-{number}")
        asyncio.run(fleet.ready("serve"))
        url = fleet.url("serve")
        warm_up = list(bodies(5, logs=LOGS_PER_REQUEST, seed=1))
        floor = rows_per_second(fleet.database_url, list(bodies(100, logs=LOGS_PER_REQUEST, seed=3)))
        asyncio.run(post_all(url, warm_up))
        asyncio.run(_until_stored(url, len(warm_up) * LOGS_PER_REQUEST))
        with _generator(url, requests) as generator:
            began_s = time.monotonic()
            generator.communicate(b"go\n", timeout=DEADLINE_S)
            accepted_s = time.monotonic() - began_s
            if generator.returncode:
                raise RuntimeError(f"the generator failed:\n{fleet.failures()}")
        asyncio.run(_until_stored(url, (len(warm_up) + requests) * LOGS_PER_REQUEST))
        stored_s = time.monotonic() - began_s
    finally:
        fleet.stop_everything()
        shutil.rmtree(directory, ignore_errors=True)
    count = requests * LOGS_PER_REQUEST
    return {
        "floor_rows_per_s": floor,
        "accepted_per_s": count / accepted_s,
        "stored_per_s": count / stored_s,
        "accepted_ratio": count / accepted_s / floor,
        "stored_ratio": count / stored_s / floor,
    }


def main() -> None:
    """Run, print a table, write the results."""
    configure_logging(level="warning")
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--logs", type=int, default=300_000, help="logs per profile (default 300,000)")
    parser.add_argument("--profile", choices=[EMBEDDED, FULL], action="append", help="only this one (may repeat)")
    arguments = parser.parse_args()
    results: dict[str, float] = {}
    print("| profile | floor rows/s | accepted/s | stored/s | accepted/floor | stored/floor |")
    print("|---|---|---|---|---|---|")
    for profile in arguments.profile or [EMBEDDED, FULL]:
        figures = measure(profile, arguments.logs)
        results |= {f"{profile}.{name}": round(value, 3) for name, value in figures.items()}
        print(
            f"| {profile} | {figures['floor_rows_per_s']:,.0f} | {figures['accepted_per_s']:,.0f}"
            f" | {figures['stored_per_s']:,.0f} | {figures['accepted_ratio']:.2f} | {figures['stored_ratio']:.2f} |"
        )
        sys.stdout.flush()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2))
    print(f"\nwritten to {RESULTS}")


if __name__ == "__main__":
    main()
