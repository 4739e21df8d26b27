"""`make bench`: logs a second accepted and stored, both profiles, beside the floor of the same run.

Everything runs on this machine at once: generator, ingest, broker, two writers, database. Absolute figures belong to the
machine and the minute; the ratios are what may be compared. Results go to bench/results/latest.json.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import shutil
import sys
import tempfile
import time
from pathlib import Path

import httpx
import orjson

from bench.floor import rows_per_second
from bench.lines import bodies
from infra.fleet import EMBEDDED, FULL, Fleet, until

LOGS_PER_REQUEST = 1_000
CONNECTIONS = 4
RESULTS = Path(__file__).parent / "results" / "latest.json"


async def _post_all(url: str, requests: list[bytes]) -> None:
    queue = list(reversed(requests))

    async def client_loop(client: httpx.AsyncClient) -> None:
        while queue:
            body = queue.pop()
            while True:
                answer = await client.post("/api/v1/logs/batch", content=body)
                if answer.status_code == 201:
                    break
                if answer.status_code not in (429, 503):
                    raise RuntimeError(f"{answer.status_code}: {answer.text}")
                await asyncio.sleep(0.05)

    headers = {"Content-Type": "application/x-ndjson"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
        await asyncio.gather(*(client_loop(client) for _ in range(CONNECTIONS)))


def _generate(url: str, requests: list[bytes]) -> None:
    asyncio.run(_post_all(url, requests))


async def _stored(url: str) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        answer = await client.get(f"{url}/api/v1/ledger", params={"start_time": "-1h"})
        answer.raise_for_status()
        return sum(orjson.loads(answer.content)["totals"]["stored"].values())


async def _until_stored(url: str, count: int) -> None:
    async def all_stored() -> bool:
        return await _stored(url) >= count

    await until(all_stored, what="everything accepted is stored", timeout_s=600)


def measure(profile: str, logs: int) -> dict[str, float]:
    """One profile: accepted and stored logs a second while everything runs, and the floor."""
    directory = Path(tempfile.mkdtemp(prefix="logfeed-bench-"))
    directory.chmod(0o711)
    fleet = Fleet(profile, directory)
    try:
        fleet.start_servers()
        fleet.role("serve")
        for number in range(2):
            fleet.role("write", label=f"writer-{number}")
        asyncio.run(fleet.ready("serve"))
        warm_up = list(bodies(5, logs=LOGS_PER_REQUEST, seed=1))
        requests = list(bodies(logs // LOGS_PER_REQUEST, logs=LOGS_PER_REQUEST, seed=2))
        floor = rows_per_second(fleet.database_url, requests[:100])
        _generate(fleet.url("serve"), warm_up)
        asyncio.run(_until_stored(fleet.url("serve"), len(warm_up) * LOGS_PER_REQUEST))
        generator = multiprocessing.get_context("spawn").Process(target=_generate, args=(fleet.url("serve"), requests))
        began_s = time.monotonic()
        generator.start()
        generator.join()
        if generator.exitcode:
            raise RuntimeError(f"the generator failed:\n{fleet.failures()}")
        accepted_s = time.monotonic() - began_s
        asyncio.run(_until_stored(fleet.url("serve"), (len(warm_up) + len(requests)) * LOGS_PER_REQUEST))
        stored_s = time.monotonic() - began_s
    finally:
        fleet.stop_everything()
        shutil.rmtree(directory, ignore_errors=True)
    count = len(requests) * LOGS_PER_REQUEST
    return {
        "floor_rows_per_s": floor,
        "accepted_per_s": count / accepted_s,
        "stored_per_s": count / stored_s,
        "accepted_ratio": count / accepted_s / floor,
        "stored_ratio": count / stored_s / floor,
    }


def main() -> None:
    """Run, print a table, write the results."""
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
