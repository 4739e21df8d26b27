"""The load: a process of its own, so that making requests takes no time from what is measured.

    python -m bench.generator URL REQUESTS SEED

makes all bodies first, says so with a line on standard output, waits for a line on standard input, posts everything, and
ends when everything was acknowledged.
"""

from __future__ import annotations

import asyncio
import sys

import httpx

from bench.lines import bodies

LOGS_PER_REQUEST = 1_000
CONNECTIONS = 4


async def post_all(url: str, requests: list[bytes]) -> None:
    """Post every body, retrying what is refused. Raises RuntimeError for any other answer."""
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


def main() -> None:
    """See the module."""
    url, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    requests = list(bodies(count, logs=LOGS_PER_REQUEST, seed=seed))
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(post_all(url, requests))


if __name__ == "__main__":
    main()
