"""What tails cost: a thousand clients with a hundred different questions, each of one service, while 5,000 logs/s come in.

First the matching alone, in this process: a thousand predicates of which a tenth names each service, against each by itself.
Then real tails of a real query process, over WebSockets; its processor time is taken for the stretch in which they are served.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
import orjson

from bench.figures import ProfileFigures
from bench.lines import COMMON_WORDS, ORDER_KEY, ORDER_VALUES, SERVICES, bodies, moulds
from bench.load import Load
from bench.options import Options
from bench.processes import usage
from bench.progress import progress
from bench.site import Site
from bench.tails import TailsReport
from broker.factory import make_topics
from broker.settings import BrokerSettings
from db.database import Database
from infra.fleet import REPOSITORY
from live.events import Batch
from query.params import parse_tail
from routes.settings import RouteSettings, RoutingSettings
from routes.table import RouteTable
from schemas.levels import band
from schemas.record import Log
from search.many import ManyMatcher
from search.match import compile_match
from search.predicate import Contains, CorrelationIs, MetaEquals, MinLevel, Predicate, ServiceIn, all_of

PREDICATES: Final = 1_000
QUESTIONS: Final = 100
_SERVICES_NAMED: Final = 10
_MATCHED_LOGS: Final = 4_000
_PLAIN_LOGS: Final = 200
_ROUTES: Final = 20
_PUBLISHED_TIMES: Final = 10
_LOGS_PER_REQUEST: Final = 100
_PATH: Final = "/api/v1/tail"
_BEGIN_S_MAX: Final = 120.0


async def measure(site: Site, options: Options, figures: ProfileFigures) -> None:
    """match_us_per_log, match_plain_us_per_log, match_ratio; route_us_per_log, route_us_per_record,
    route_publish_us_per_record; tail_clients, tail_cores (of query), tail_logs_shown_per_s,
    tail_shown_share (of what matched), tail_cpu_us_per_log_shown, tail_frames_per_s, tail_skips, tail_cut,
    tail_peak_mib, tail_beside_per_s."""
    _measure_matching(figures)
    await _measure_routing(site, figures)
    await site.start_pipeline()
    await site.start_query()
    await _measure_tails(site, options, figures)


def _measure_matching(figures: ProfileFigures) -> None:
    chance = random.Random(3)
    logs = _logs(_MATCHED_LOGS)
    predicates = [_predicate(chance, SERVICES[number % _SERVICES_NAMED], logs) for number in range(PREDICATES)]
    matcher = ManyMatcher(predicates)
    # The logs of those services alone: each meets a tenth of the predicates.
    logs = [log for log in logs if log.service_name in SERVICES[:_SERVICES_NAMED]]
    for log in logs:
        matcher.matches(log)
    began_s = time.process_time()
    found = sum(len(matcher.matches(log)) for log in logs)
    together_us = (time.process_time() - began_s) / len(logs) * 1e6
    tests = list(map(compile_match, predicates))
    began_s = time.process_time()
    for log in logs[:_PLAIN_LOGS]:
        sum(test(log) for test in tests)
    plain_us = (time.process_time() - began_s) / min(_PLAIN_LOGS, len(logs)) * 1e6
    figures.put("match_us_per_log", together_us)
    figures.put("match_plain_us_per_log", plain_us)
    figures.put("match_ratio", together_us / plain_us)
    progress(f"{PREDICATES} predicates: {together_us:.1f} µs a log, by themselves {plain_us:.0f} µs, {found} matches")


async def _measure_routing(site: Site, figures: ProfileFigures) -> None:
    """Logs to records of 20 routes that each match a service's warnings, and one of all logs: alone, then published and
    acknowledged, a piece at a time."""
    logs = _logs(_MATCHED_LOGS)
    routes = {
        f"bench-{number}": RouteSettings(query=f"service:{service} level>=warn", topic=f"bench.{number}")
        for number, service in enumerate(SERVICES[:_ROUTES])
    }
    routes["bench-all"] = RouteSettings(query="", topic="bench.all")
    table = RouteTable(routes, RoutingSettings())
    batch = Batch(0, 0, 1, 0, logs)
    list(table.records(batch))
    began_s = time.process_time()
    records = [record for each in table.records(batch) for record in each]
    spent_us = (time.process_time() - began_s) * 1e6
    database = Database(site.fleet.database_url, application_name="bench", connections_max=2)
    await database.open()
    kafka = site.fleet.kafka
    place = {"kind": "queue"} if kafka is None else {"kind": "kafka", "bootstrap": kafka.bootstrap}
    topics = make_topics(BrokerSettings.model_validate(place), database)
    try:
        await topics.ensure(table.fixed)
        await topics.publish(records)
        began_s = time.perf_counter()
        for _ in range(_PUBLISHED_TIMES):
            await topics.publish(records)
        publish_us = (time.perf_counter() - began_s) * 1e6 / _PUBLISHED_TIMES / len(records)
    finally:
        await topics.close()
        await database.close()
    figures.put("route_us_per_log", spent_us / len(logs))
    figures.put("route_us_per_record", spent_us / len(records))
    figures.put("route_publish_us_per_record", publish_us)
    progress(
        f"{len(logs):,} logs to {len(records):,} records: {spent_us / len(logs):.1f} µs a log, published in"
        f" {publish_us:.1f} µs a record"
    )


def _logs(number: int) -> list[Log]:
    text = b"\n".join(body for body, _ in zip(bodies(moulds(4)), range(number // 1_000 + 1), strict=False))
    logs = []
    for index, line in enumerate(text.splitlines()[:number]):
        log = orjson.loads(line)
        level = band(log["level"])[0]
        metadata = log.get("metadata", {})
        logs.append(Log(index, index, level, log["service_name"], log["message"], log.get("correlation_id"), metadata))
    return logs


def _predicate(chance: random.Random, service: str, logs: Sequence[Log]) -> Predicate:
    parts: list[Predicate] = [ServiceIn(frozenset({service}))]
    match chance.randrange(5):
        case 0:
            parts.append(MinLevel(chance.choice((13, 17))))
        case 1:
            parts.append(MetaEquals((ORDER_KEY,), str(chance.randrange(ORDER_VALUES))))
        case 2:
            parts.append(CorrelationIs(chance.choice(logs).correlation_id or "-"))
        case 3:
            message = chance.choice(logs).message
            at = chance.randrange(max(1, len(message) - 12))
            parts.append(Contains(message[at : at + 12] or "-"))
        case _:
            parts += [MinLevel(9), Contains(chance.choice(COMMON_WORDS))]
    return all_of(*parts)


async def _measure_tails(site: Site, options: Options, figures: ProfileFigures) -> None:
    questions = _questions()
    paths = [questions[number % len(questions)] for number in range(options.tail_clients)]
    clients = await _begun(site, paths)
    load = Load(
        site.ingest_urls,
        connections=options.connections,
        logs=_LOGS_PER_REQUEST,
        rate=options.tail_rate,
        seed=71,
    )
    try:
        async with load:
            load.go()
            await asyncio.sleep(options.warm_up_s)
            _say(clients, "go")
            before, began_s = usage(site.roles()["query"]), time.monotonic()
            await asyncio.sleep(options.tail_s)
            after, took_s = usage(site.roles()["query"]), time.monotonic() - began_s
            report = await _report(clients)
            load.stop()
            sent = await load.report()
    finally:
        if clients.returncode is None:
            clients.kill()
            await clients.wait()
    site.check()
    cpu_s = after.cpu_s - before.cpu_s
    figures.put("tail_clients", len(paths))
    figures.put("tail_cores", cpu_s / took_s)
    figures.put("tail_logs_shown_per_s", report.logs / took_s)
    # Below one where the machine had no time left for query.
    figures.put("tail_shown_share", report.logs / took_s / _expected_per_s(paths, options.tail_rate))
    figures.put("tail_cpu_us_per_log_shown", cpu_s / max(1, report.logs) * 1e6)
    figures.put("tail_frames_per_s", report.frames / took_s)
    figures.put("tail_skips", report.skips)
    figures.put("tail_cut", report.cut)
    figures.put("tail_peak_mib", after.peak_mib)
    figures.put("tail_beside_per_s", sent.accepted_logs / sent.took_s)
    progress(
        f"{len(paths):,} tails: {cpu_s / took_s:.2f} cores of query for {report.logs / took_s:,.0f} logs/s shown"
        f" ({report.least_logs / took_s:.0f}–{report.most_logs / took_s:.0f} a client), {report.frames / took_s:,.0f}"
        f" frames/s, {report.skips} skips, {sent.accepted_logs / sent.took_s:,.0f} logs/s coming in"
    )


def _questions() -> list[str]:
    """Different ones, each of one service."""
    filters: list[dict[str, str]] = [
        *({"q": word} for word in COMMON_WORDS),
        {"min_level": "warn"},
        # Nearly half of a service's logs: some 45 a second.
        *({"query": f"-level:info OR {word} OR {COMMON_WORDS[0]}"} for word in COMMON_WORDS),
    ]
    asked = [{"service_name": service, **one} for one in filters for service in SERVICES]
    random.Random(5).shuffle(asked)
    return [f"{_PATH}?{urlencode(question)}" for question in asked[:QUESTIONS]]


def _expected_per_s(paths: Sequence[str], rate: float) -> float:
    """Logs that all these clients together match, of so many a second."""
    logs = _logs(_MATCHED_LOGS)
    matches = {
        path: sum(map(compile_match(parse_tail(parse_qsl(urlsplit(path).query), now_us=0).predicate), logs))
        for path in set(paths)
    }
    return sum(matches[path] for path in paths) / len(logs) * rate


async def _begun(site: Site, paths: Sequence[str]) -> Process:
    clients = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.tails", site.query_url, cwd=REPOSITORY, stdin=PIPE, stdout=PIPE
    )
    for path in (*paths, ""):
        _say(clients, path)
    assert clients.stdout is not None
    async with asyncio.timeout(_BEGIN_S_MAX):
        if await clients.stdout.readline() != b"ready\n":
            raise RuntimeError("the clients did not begin; standard error says why")
    return clients


async def _report(clients: Process) -> TailsReport:
    _say(clients, "end")
    assert clients.stdout is not None
    return msgspec.json.decode(await clients.stdout.readline(), type=TailsReport)


def _say(clients: Process, line: str) -> None:
    assert clients.stdin is not None
    clients.stdin.write(f"{line}\n".encode())
