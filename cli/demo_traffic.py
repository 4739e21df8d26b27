"""Lively sample traffic: a small shop whose requests cross eight services under one correlation id.

`Traffic` decides and is pure but for its own random numbers: the same seed and times make the same logs. `run_demo_traffic`
sends them: first the last half hour, thinner, then the present at a rate that swings slowly, once a second. What the
server does not take is dropped: samples are worth no retry. Memory: the half hour at the start, then requests under way.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import orjson
import structlog

from cli.http_client import Trust, new_client
from runtime.clock import Clock, SystemClock
from runtime.stopping import Stop

log = structlog.get_logger(__name__)

BACKFILL_S: Final = 30 * 60
BACKFILL_LOGS: Final = 4_000
_BATCH_LOGS: Final = 1_000
_TICK_S: Final = 1.0
_CATCH_UP_US_MAX: Final = 10_000_000
"""After a sleep of the machine only so much is made up for: no flood."""
_WAVE_S: Final = 240.0
_WAVE_HEIGHT: Final = 0.6
_BACKGROUND_SHARE: Final = 0.25
"""Share of the logs that belong to no request."""
_LOGS_A_REQUEST: Final = 4.95
"""On the average; measured by a test."""
_TROUBLE_EVERY_S: Final = 300
_TROUBLE_LASTS_S: Final = 40
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Entry = dict[str, Any]
"""A log as the API takes it, with `at_us` instead of a timestamp until it is written."""

_PRODUCTS: Final = ("teapot", "lamp", "notebook", "bicycle bell", "rain coat", "headphones", "desk fan", "thermos")
_WORDS: Final = ("red lamp", "waterproof", "gift under 20", "usb c cable", "garden chair", "tea")
_CITIES: Final = ("Berlin", "Lyon", "Porto", "Graz", "Oslo", "Gdańsk", "Brno")
_CARD_ERRORS: Final = ("insufficient_funds", "card_expired", "issuer_unavailable", "3ds_failed")
_USER_AGENTS: Final = ("Firefox/145", "Chrome/142", "Safari/19", "shop-ios/8.3", "shop-android/8.1")


class Traffic:
    """Makes the shop's logs."""

    def __init__(self, seed: int) -> None:
        """seed: the same one makes the same logs at the same times."""
        self._random = random.Random(seed)
        self._orders = 48_000 + seed % 1_000
        self._kinds: tuple[tuple[int, Callable[[_Request], None]], ...] = (
            (34, self._browse),
            (22, self._search),
            (24, self._order),
            (14, self._log_in),
            (6, self._track_parcel),
        )

    def between(self, start_us: int, end_us: int, logs_per_s: float) -> list[Entry]:
        """About logs_per_s for each second, in order of time. A request may end after end_us."""
        entries: list[Entry] = []
        seconds = (end_us - start_us) / 1e6
        for _ in range(self._count(seconds * logs_per_s * (1 - _BACKGROUND_SHARE) / _LOGS_A_REQUEST)):
            entries += self.request(self._random.randrange(start_us, end_us))
        for _ in range(self._count(seconds * logs_per_s * _BACKGROUND_SHARE)):
            entries.append(self.background(self._random.randrange(start_us, end_us)))
        return sorted(entries, key=lambda entry: int(entry["at_us"]))

    def request(self, at_us: int) -> list[Entry]:
        """One request from its arrival at the gateway to its answer."""
        weights, kinds = zip(*self._kinds, strict=True)
        request = _Request(self._random, at_us)
        self._random.choices(kinds, weights)[0](request)
        return request.entries

    def background(self, at_us: int) -> Entry:
        """Something that no request causes."""
        dice = self._random
        kind = dice.choices(range(6), (30, 20, 16, 20, 10, 4))[0]
        service = dice.choice(("gateway", "auth", "orders", "payments", "inventory", "search", "mail", "shipping"))
        instance = f"{service}-{dice.randrange(3)}"
        if kind == 0:
            used_mb = dice.randrange(180, 900)
            return _entry(
                at_us, service, "DEBUG", f"heartbeat ok, heap {used_mb} MB", instance=instance, heap_mb=used_mb
            )
        if kind == 1:
            pause_ms = round(dice.lognormvariate(1.6, 0.8), 1)
            level = "WARN" if pause_ms > 30 else "DEBUG"
            return _entry(at_us, service, level, f"gc pause {pause_ms} ms", instance=instance, pause_ms=pause_ms)
        if kind == 2:
            depth = int(dice.lognormvariate(2.5, 1.2))
            level = "WARN" if depth > 150 else "INFO"
            return _entry(at_us, "mail", level, f"outbox holds {depth} messages", queue_depth=depth)
        if kind == 3:
            hits = round(dice.uniform(0.82, 0.99), 3)
            return _entry(at_us, "search", "DEBUG", f"cache hit ratio {hits} over the last minute", hit_ratio=hits)
        if kind == 4:
            products = dice.randrange(40, 4000)
            message = f"stock synchronised, {products} products in {products // 9 + 12} ms"
            return _entry(at_us, "inventory", "INFO", message, products=products, duration_ms=products // 9 + 12)
        return _entry(
            at_us, "auth", "INFO", f"signing key rotated, {dice.randrange(2, 5)} keys are valid", instance=instance
        )

    def _count(self, expected: float) -> int:
        whole = int(expected)
        return whole + (self._random.random() < expected - whole)

    def _browse(self, request: _Request) -> None:
        product, product_id = request.dice.choice(_PRODUCTS), request.dice.randrange(100, 999)
        request.arrive("GET", f"/products/{product_id}")
        if request.fails(0.02):
            request.say("inventory", "WARN", f"product {product_id} not found", product_id=product_id)
            request.answer(404)
            return
        request.work(2, 8)
        left = request.dice.randrange(0, 120)
        request.say("inventory", "INFO", f"stock of {product} read: {left} left", product_id=product_id, left=left)
        request.work(1, 4)
        request.say("search", "DEBUG", f"{request.dice.randrange(3, 9)} similar products found for {product_id}")
        request.answer(200)

    def _search(self, request: _Request) -> None:
        words, hits = request.dice.choice(_WORDS), int(request.dice.lognormvariate(3, 1.4))
        request.arrive("GET", "/search")
        terms = len(words.split()) + 1
        request.say("search", "DEBUG", f'query "{words}" rewritten to {terms} terms', terms=terms)
        took_ms = request.work(8, 60, slow=0.04)
        request.say(
            "search", "INFO", f'"{words}" found {hits} products in {took_ms} ms', hits=hits, duration_ms=took_ms
        )
        if took_ms > 300:
            request.say("search", "WARN", f"slow query: {took_ms} ms, shard {request.dice.randrange(8)} answered last")
        request.answer(200)

    def _log_in(self, request: _Request) -> None:
        user = f"user-{request.dice.randrange(1, 4000)}"
        request.arrive("POST", "/login")
        request.work(40, 120)
        if request.fails(0.12):
            address = f"198.51.100.{request.dice.randrange(1, 255)}"
            request.say("auth", "WARN", f"wrong password for {user} from {address}", user=user, address=address)
            request.answer(401)
            return
        request.say("auth", "INFO", f"{user} logged in", user=user, city=request.dice.choice(_CITIES))
        request.answer(200)

    def _order(self, request: _Request) -> None:
        self._orders += 1
        order, user = f"o-{self._orders}", f"user-{request.dice.randrange(1, 4000)}"
        amount = round(request.dice.lognormvariate(3.4, 0.8), 2)
        request.arrive("POST", "/orders")
        request.say("auth", "DEBUG", f"token of {user} accepted", user=user)
        request.work(4, 15)
        request.say("orders", "INFO", f"order {order} of {amount} EUR received", order=order, user=user, amount=amount)
        request.work(3, 12)
        if request.fails(0.03):
            request.say("inventory", "WARN", f"{request.dice.choice(_PRODUCTS)} is sold out", order=order)
            request.say("orders", "INFO", f"order {order} turned down: sold out", order=order)
            request.answer(409)
            return
        request.say("inventory", "INFO", f"{request.dice.randrange(1, 5)} items reserved for {order}", order=order)
        if not self._pay(request, order, amount):
            return
        request.say("orders", "INFO", f"order {order} confirmed", order=order)
        request.say("mail", "INFO", f"confirmation of {order} queued for {user}", order=order)
        request.answer(201)
        request.work(200, 2_000)
        request.say("shipping", "INFO", f"label printed for {order}, to {request.dice.choice(_CITIES)}", order=order)

    def _pay(self, request: _Request, order: str, amount: float) -> bool:
        """Payment: the place where trouble begins and cascades back to the gateway."""
        took_ms = request.work(60, 220, slow=0.05)
        if request.is_in_trouble and request.fails(0.5):
            request.work(2_800, 3_200)
            request.say("payments", "ERROR", "card processor did not answer within 3000 ms", order=order, attempt=1)
            request.work(2_800, 3_200)
            request.say(
                "payments", "ERROR", f"payment of {order} failed after 2 attempts: timeout", order=order, amount=amount
            )
            request.say("orders", "ERROR", f"order {order} cancelled: payments answered 504", order=order)
            request.say("inventory", "INFO", f"reservation for {order} released", order=order)
            if request.fails(0.1):
                request.say("payments", "FATAL", "connection pool exhausted: 64 of 64 in use, restarting", pool=64)
            request.answer(502)
            return False
        if request.fails(0.05):
            reason = request.dice.choice(_CARD_ERRORS)
            request.say("payments", "WARN", f"card declined: {reason}", order=order, reason=reason)
            request.say("inventory", "INFO", f"reservation for {order} released", order=order)
            request.answer(402)
            return False
        request.say(
            "payments", "INFO", f"{amount} EUR charged for {order} in {took_ms} ms", order=order, duration_ms=took_ms
        )
        return True

    def _track_parcel(self, request: _Request) -> None:
        order = f"o-{self._orders - request.dice.randrange(1, 900)}"
        request.arrive("GET", f"/orders/{order}/parcel")
        request.work(10, 50, slow=0.06)
        if request.fails(0.04):
            trace = (
                "Traceback (most recent call last):\n  File \"/app/tracking.py\", line 88, in locate\nKeyError: 'depot'"
            )
            request.say("shipping", "ERROR", f"cannot locate parcel of {order}\n{trace}", order=order)
            request.answer(500)
            return
        request.say("shipping", "INFO", f"parcel of {order} is in {request.dice.choice(_CITIES)}", order=order)
        request.answer(200)


class _Request:
    """One request under way: its clock, its correlation id, its logs."""

    def __init__(self, dice: random.Random, at_us: int) -> None:
        self.dice, self.at_us = dice, at_us
        self.begun_us = at_us
        self.correlation_id = f"{dice.getrandbits(128):032x}"
        self.is_in_trouble = at_us // 1_000_000 % _TROUBLE_EVERY_S < _TROUBLE_LASTS_S
        self.entries: list[Entry] = []
        self._route = ""

    def arrive(self, method: str, route: str) -> None:
        self._route = f"{method} {route}"
        agent = self.dice.choice(_USER_AGENTS)
        self.say("gateway", "DEBUG", f"{self._route} received", method=method, user_agent=agent)
        self.work(1, 3)

    def work(self, least_ms: int, most_ms: int, *, slow: float = 0.0) -> int:
        """Lets time pass; returns the milliseconds. slow: share of cases that take ten times as long."""
        took_ms = self.dice.randint(least_ms, most_ms) * (10 if self.fails(slow) else 1)
        self.at_us += took_ms * 1000 + self.dice.randrange(1000)
        return took_ms

    def fails(self, chance: float) -> bool:
        return self.dice.random() < chance

    def say(self, service: str, level: str, message: str, **metadata: Any) -> None:  # JSON values
        self.entries.append(_entry(self.at_us, service, level, message, self.correlation_id, **metadata))
        self.at_us += self.dice.randrange(50, 900)

    def answer(self, status: int) -> None:
        took_ms = (self.at_us - self.begun_us) // 1000
        level = "ERROR" if status >= 500 else "WARN" if status in (401, 402) or took_ms > 1_000 else "INFO"
        self.say("gateway", level, f"{self._route} {status} in {took_ms} ms", status=status, duration_ms=took_ms)


def _entry(
    at_us: int, service: str, level: str, message: str, correlation_id: str | None = None, /, **metadata: Any
) -> Entry:
    entry: Entry = {"at_us": at_us, "service_name": service, "level": level, "message": message, "metadata": metadata}
    if correlation_id is not None:
        entry["correlation_id"] = correlation_id
    return entry


def rate_at(second: float, rate_per_s: float) -> float:
    """Logs a second at a moment: a slow wave around the rate."""
    return rate_per_s * (1 + _WAVE_HEIGHT * math.sin(2 * math.pi * second / _WAVE_S))


def encode(entries: list[Entry]) -> bytes:
    """The body of a batch request, NDJSON."""
    lines = []
    for entry in entries:
        sent = {**entry, "timestamp": _EPOCH + timedelta(microseconds=entry["at_us"])}
        del sent["at_us"]
        lines.append(orjson.dumps(sent, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE))
    return b"".join(lines)


async def run_demo_traffic(
    base_url: str,
    stop: Stop,
    *,
    rate_per_s: float = 30.0,
    api_key: str | None = None,
    trust: Trust | None = None,
    seed: int | None = None,
    clock: Clock | None = None,
) -> None:
    """Send sample traffic until the stop. A server that is away or refuses is tried again with the next second's logs.

    rate_per_s: logs, on the average. trust: as of new_client. seed: for the same logs again; by chance when None.
    """
    clock = clock or SystemClock()
    traffic = Traffic(random.randrange(1 << 32) if seed is None else seed)
    async with new_client(base_url, connections=1, api_key=api_key, trust=trust) as client:
        now_us = clock.now_us()
        past = traffic.between(now_us - BACKFILL_S * 1_000_000, now_us, BACKFILL_LOGS / BACKFILL_S)
        due = [entry for entry in past if entry["at_us"] <= now_us]
        for batch in _batches(due):
            if stop.is_set:
                return
            await _send(client, batch)
        waiting: list[Entry] = [entry for entry in past if entry["at_us"] > now_us]
        made_us = now_us
        while not await stop.wait(_TICK_S):
            now_us = max(made_us, clock.now_us())
            start_us = max(made_us, now_us - _CATCH_UP_US_MAX)
            if now_us > start_us:
                waiting += traffic.between(start_us, now_us, rate_at(now_us / 1e6, rate_per_s))
                made_us = now_us
            due = [entry for entry in waiting if entry["at_us"] <= now_us]
            waiting = [entry for entry in waiting if entry["at_us"] > now_us]
            for batch in _batches(due):
                await _send(client, batch)


def _batches(entries: list[Entry]) -> Iterator[list[Entry]]:
    for start in range(0, len(entries), _BATCH_LOGS):
        yield entries[start : start + _BATCH_LOGS]


async def _send(client: httpx.AsyncClient, entries: list[Entry]) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    try:
        response = await client.post("/api/v1/logs/batch", content=encode(entries), headers=headers)
    except httpx.TransportError as error:
        log.warning("sample logs not sent", logs=len(entries), error=str(error) or type(error).__name__)
        return
    if not response.is_success:
        log.warning("sample logs refused", logs=len(entries), status=response.status_code)
