"""Producers that remember what was acknowledged, and the oracle of every fault test.

Each acknowledged (producer, number) is found exactly once by paging the query API, nothing that was never sent appears,
and the ledger adds up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from cli.canary.oracle import judge
from infra.fleet import until


@dataclass
class Producers:
    """Clients that number their logs, retry with the same key until acknowledged, and remember what was."""

    url: Callable[[], str]
    seed: int = 1
    sent: set[tuple[int, int]] = field(default_factory=set)
    acked: set[tuple[int, int]] = field(default_factory=set)
    retries: int = 0
    retry_s: float = 180.0
    before_request: Callable[[int], Awaitable[None]] | None = None
    """Awaited before each request with its number: holds producers back, so that faults fall among their requests."""
    services: tuple[str, ...] = ("gateway", "auth", "orders", "payments", "mail")
    old_every: int = 0
    """Each so many-th log is of a hundred days ago: it comes late, and soon lies in a file. 0: none."""

    async def run(self, *, producers: int, requests: int, logs_per_request: int) -> None:
        """All producers at once, until each request was acknowledged."""
        limits = httpx.Limits(max_connections=producers)
        async with httpx.AsyncClient(trust_env=False, timeout=20.0, limits=limits) as client:
            await asyncio.gather(
                *(self._produce(client, producer, requests, logs_per_request) for producer in range(producers))
            )

    async def acknowledged(self, logs: int) -> None:
        """Wait until so many logs were acknowledged in all: for faults that fall among the requests."""

        async def reached() -> bool:
            return len(self.acked) >= logs

        await until(reached, what=f"{logs} logs are acknowledged", timeout_s=self.retry_s)

    async def _produce(self, client: httpx.AsyncClient, producer: int, requests: int, count: int) -> None:
        producer += self.seed * 100
        chance = random.Random(producer)
        for request in range(requests):
            if self.before_request is not None:
                await self.before_request(request)
            numbers = range(request * count, (request + 1) * count)
            body = b"\n".join(self._line(producer, number, chance) for number in numbers)
            self.sent.update((producer, number) for number in numbers)
            await self._send(client, body, f"{producer}-{request}")
            self.acked.update((producer, number) for number in numbers)

    def _line(self, producer: int, number: int, chance: random.Random) -> bytes:
        log: dict[str, Any] = {
            "service_name": self.services[number % len(self.services)],
            "level": chance.choice(_LEVELS),
            "message": f"request {chance.getrandbits(48):012x} took {chance.random():.4f} s on path /v1/items/{number}",
            "correlation_id": f"{chance.getrandbits(128):032x}",
            "metadata": {"producer": producer, "number": number},
        }
        if self.old_every and number % self.old_every == 0:
            log["timestamp"] = time.time() - _OLD_S
        return orjson.dumps(log)

    async def _send(self, client: httpx.AsyncClient, body: bytes, key: str) -> None:
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": key}
        deadline = time.monotonic() + self.retry_s
        while True:
            try:
                answer = await client.post(f"{self.url()}/api/v1/logs/batch", content=body, headers=headers)
                if answer.status_code == 201:
                    return
                assert answer.status_code in (429, 503), f"{answer.status_code}: {answer.text}"
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline, f"key {key} was not acknowledged within {self.retry_s:.0f} s"
            self.retries += 1
            await asyncio.sleep(0.1)


_LEVELS = ("DEBUG", "INFO", "INFO", "INFO", "WARN", "ERROR")
_OLD_S = 100 * 86_400


async def fetch_all(url: str, **parameters: Any) -> list[dict[str, Any]]:
    """Every log, by following next_cursor to the end."""
    logs: list[dict[str, Any]] = []
    cursor: str | None = None
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
        while True:
            query = {"limit": 1000, **parameters, **({"cursor": cursor} if cursor else {})}
            answer = await client.get(f"{url}/api/v1/logs", params=query)
            if answer.status_code == 503:
                await asyncio.sleep(0.2)
                continue
            assert answer.status_code == 200, answer.text
            page = orjson.loads(answer.content)
            logs += page["logs"]
            cursor = page["next_cursor"]
            if cursor is None:
                return logs


async def ledger_settled(url: str) -> dict[str, Any]:
    """The ledger's answer."""
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
        answer = await client.get(f"{url}/api/v1/ledger", params={"start_time": "-1h"})
        if answer.status_code == 503:
            return {}
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = orjson.loads(answer.content)
        return content


async def assert_exactly_once(url: str, producers: Producers, *, timeout_s: float = 120.0) -> list[dict[str, Any]]:
    """The oracle. Waits until everything published was stored, then compares. Returns the logs."""

    async def drained() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            ledger = await ledger_settled(url)
            return bool(ledger) and not any(ledger["unread"].values())
        return False

    await until(drained, what="everything published is stored", timeout_s=timeout_s)
    logs = await fetch_all(url)
    found = judge(
        sent=producers.sent,
        acknowledged=producers.acked,
        seen=[(log["metadata"]["producer"], log["metadata"]["number"]) for log in logs],
        positions=[(log["timestamp"], int(log["id"])) for log in reversed(logs)],
    )
    assert found.ok, str(found)
    ledger = await ledger_settled(url)
    assert ledger["totals"]["balanced"], ledger
    unbalanced = [row for row in ledger["rows"] if not row["balanced"]]
    assert not unbalanced, unbalanced
    assert sum(ledger["totals"]["stored"].values()) == len(logs)
    return logs
