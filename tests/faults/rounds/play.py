"""One round: producers that retry with keys and a canary with a live tail, a schedule of faults among them, and the oracle.

The oracle: each acknowledged (producer, number) is found exactly once by paging, in order; nothing that was not sent appears;
the canary saw each of its logs by pages and by its tail; the ledger adds up to what was found; nothing was put aside; no role
ended by itself or took more memory than it may.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, Final

import httpx

from cli.canary.oracle import Verdict, judge
from cli.canary.probe import Plan, Probe
from infra.fleet import until
from runtime.clock import SystemClock
from runtime.stopping import Stop
from tests.faults.producers import Producers, fetch_all, ledger_settled
from tests.faults.rounds.schedule import Event, Schedule
from tests.faults.rounds.site import Site

SETTLED_S: Final = 120.0
CANARY_LOGS: Final = 20
CANARY_RATE: Final = 10.0
OLD_EVERY: Final = 7


@dataclass(frozen=True)
class Outcome:
    """Of a round that held."""

    logs: int
    retries: int


async def play(site: Site, schedule: Schedule) -> Outcome:
    """The round; AssertionError says what did not hold."""
    services = tuple(f"round-{schedule.seed}/{name}" for name in ("gateway", "auth", "orders"))
    producers = Producers(
        lambda: site.fleet.url("ingest"), seed=schedule.seed, services=services, old_every=OLD_EVERY, retry_s=SETTLED_S
    )

    async def pause(_request: int) -> None:
        await asyncio.sleep(schedule.pause_s)

    producers.before_request = pause
    canary = asyncio.create_task(_canary(site, schedule.seed))
    sending = asyncio.create_task(
        producers.run(
            producers=schedule.producers, requests=schedule.requests, logs_per_request=schedule.logs_per_request
        )
    )
    hurting = [asyncio.create_task(_when_due(site, event, producers, schedule)) for event in schedule.events]
    try:
        await asyncio.gather(sending, *hurting)
        await site.settle()
        verdict = await canary
    finally:
        for task in (sending, canary, *hurting):
            task.cancel()
        await asyncio.gather(sending, canary, *hurting, return_exceptions=True)
    await _check(site, producers, services, verdict)
    return Outcome(len(producers.acked) + verdict.acknowledged, producers.retries)


async def _when_due(site: Site, event: Event, producers: Producers, schedule: Schedule) -> None:
    await producers.acknowledged(int(event.after * schedule.logs))
    await site.hurt(event)


async def _canary(site: Site, seed: int) -> Verdict:
    """Logs a request each, read back by pages and by a tail that is resumed as often as it is cut."""
    plan = Plan(f"round-{seed}", rate=CANARY_RATE, count=CANARY_LOGS, lost_after_s=60, give_up_after_s=SETTLED_S)
    async with (
        httpx.AsyncClient(trust_env=False, base_url=site.fleet.url("ingest"), timeout=20) as sending,
        httpx.AsyncClient(trust_env=False, base_url=site.fleet.url("query"), timeout=20) as asking,
    ):
        probe = Probe(plan, sending=sending, asking=asking, with_tail=True, clock=SystemClock(), tell=lambda _: None)
        return await probe.run(Stop())


async def _check(site: Site, producers: Producers, services: tuple[str, ...], verdict: Verdict) -> None:
    url = site.fleet.url("query")
    await until(lambda: _is_drained(url), what="everything published is stored", timeout_s=SETTLED_S)
    assert not verdict.problems, (verdict.problems, verdict)
    logs = await fetch_all(url, service_name=list(services))
    found = judge(
        sent=producers.sent,
        acknowledged=producers.acked,
        seen=[(log["metadata"]["producer"], log["metadata"]["number"]) for log in logs],
        positions=[(log["timestamp"], int(log["id"])) for log in reversed(logs)],
    )
    assert found.ok, str(found)
    site.found += len(logs) + verdict.acknowledged
    await _check_ledger(url, site.found)
    assert site.dead_letters() == 0
    site.check_memory()


async def _is_drained(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        ledger = await ledger_settled(url)
        return bool(ledger) and not any(ledger["unread"].values())
    return False


async def _check_ledger(url: str, found: int) -> None:
    """Each minute of each service adds up, and all that was stored is what all rounds found."""
    ledger: dict[str, Any] = await ledger_settled(url)
    assert ledger["totals"]["balanced"], ledger["totals"]
    unbalanced = [row for row in ledger["rows"] if not row["balanced"]]
    assert not unbalanced, unbalanced
    stored = sum(ledger["totals"]["stored"].values())
    assert stored == found, f"the ledger says that {stored} logs were stored, {found} are there"
