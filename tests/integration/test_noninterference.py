"""What others have changes nothing of what somebody is answered (INV-5): the same questions before it is there and after."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

import pytest

from tests.access_site import Site, running
from tests.host_agent import HostAgent

Json = Any
MINE: Final = "shop"
THEIRS: Final = "other/secret"
TOLD: Final = frozenset({"next_cursor", "prev_cursor", "tail", "visible_through", "withheld", "unread"})
"""Sealed, or what SECURITY.md says that readers see of others."""


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url, audit=False, query={"services_ttl_s": 0}) as site:
        yield site


def shown(content: Json) -> Json:
    """A document without what is told of others."""
    if isinstance(content, dict):
        return {name: shown(value) for name, value in content.items() if name not in TOLD}
    return [shown(each) for each in content] if isinstance(content, list) else content


async def fill(site: Site, service: str, number: int, *names: str) -> list[int]:
    """Logs, sums, patterns and all else that is somebody's. names: of metadata, and of experiments."""
    ids = await site.put(
        [
            {
                "service_name": service,
                "correlation_id": ("story", f"{service} {n}")[n % 2],
                "message": f"{service} said {n % 3} words",
                "metadata": dict.fromkeys(names, f"{service} {n % 4}") | {"n": n, "experiment_id": "exp.mine"},
            }
            for n in range(number)
        ]
    )
    for outcome in ("received", "stored"):
        await site.database.execute(
            "INSERT INTO ledger (minute, service_name, level, outcome, reason, count)"
            " VALUES (date_trunc('minute', clock_timestamp()), %s, 9, %s, '', %s)",
            (service, outcome, number),
        )
    for pattern_id, template in ((1, "the same words of all"), (ids[0], f"words of {service}")):
        await site.database.execute(
            "WITH one AS (INSERT INTO pattern_templates (service_name, pattern_id, template, first_minute, last_minute)"
            " VALUES (%s, %s, %s, 0, 0) RETURNING key)"
            " INSERT INTO pattern_minutes SELECT key, extract(epoch FROM clock_timestamp()) / 60 - 1, 9, %s, %s FROM one",
            (service, pattern_id, template, number, ids[:1]),
        )
    writer = (await site.key(f"write:{service}", f"host:{names[0]}", f"alert:{service}")).text
    for path, body in (
        (f"experiments/{names[0]}", {"status": "queued", "service_name": service}),
        (f"hosts/{names[0]}", HostAgent(port=8085).heartbeat(services=[service])),
    ):
        answer = await site.ask(writer, "PUT", f"/api/v1/{path}", json=body)
        assert answer.is_success, answer.text
    rule = {"name": names[0], "query": f"service_name:{quote(service)}", "condition": {"count": {"at_least": 1}}}
    answer = await site.ask(writer, "POST", "/api/v1/alerts/rules", json=rule | {"window": "5m"})
    assert answer.status_code == 201, answer.text
    return ids


def questions(mine: list[int], now: datetime) -> list[str]:
    """Paths, with all that names something."""
    span = f"start_time={(now - timedelta(hours=1)).isoformat()[:19]}Z&end_time={(now + timedelta(hours=1)).isoformat()[:19]}Z"
    seconds = f"start={now.timestamp() - 3600:.0f}&end={now.timestamp() + 3600:.0f}"
    conditions = (
        "",
        "service_name=other/secret",
        "q=said",
        "metadata.mine=shop%201",
        "metadata.theirs=other/secret%201",
        "query=n%3E2",
        "query=pattern:0000000000000001",
        "correlation_id=story",
        "order=asc",
        f"around={mine[3]}",
    )
    selectors = ("{}", '{service_name!="x"}', '{service_name=~".%2B"} |= "said"', '{app=~"other.*"}')
    paths = [f"logs?limit=7&{span}&{each}" for each in conditions]
    paths += [f"{what}?{span}&{each}" for what in ("histogram", "facets") for each in conditions[:-2]]
    paths += [
        "services",
        f"ledger?{span}",
        f"ledger?{span}&service_name=other/secret",
        f"logs/{mine[2]}",
        f"logs/{mine[2]}/context?before=5&after=5",
        "correlations/story/logs?limit=4",
        "correlations/other%2Fsecret%201/logs",
        f"patterns?{span}",
        f"patterns?{span}&sort=new",
        f"patterns/0000000000000001?{span}",
        "experiments",
        "experiments/exp.mine",
        "experiments/exp.mine/logs?limit=5",
        "experiments?q=theirs",
        "hosts",
        "hosts?limit=1",
        "alerts",
        "alerts/rules",
        "alerts/silences",
        "alerts/breakers",
        "alerts/notifications",
        "connections",
        "connections/statistics",
        "topics",
        "bookmarks",
        "views",
        f"export?{span}",
    ]
    loki = [f"query_range?{seconds}&limit=9&query={each}" for each in selectors]
    loki += [
        f"query_range?{seconds}&step=60&query=sum by (service_name) (count_over_time({each}[5m]))" for each in selectors
    ]
    loki += [f"labels?{seconds}", f"series?{seconds}", f"series?{seconds}&match[]={selectors[2]}"]
    loki += [f"label/{name}/values?{seconds}" for name in ("service_name", "level", "mine", "theirs", "n")]
    loki += [f"index/stats?{seconds}&query={{}}", f"detected_fields?{seconds}&query={{}}"]
    return [f"/api/v1/{path}" for path in paths] + [f"/loki/api/v1/{path}" for path in loki]


async def test_nothing_that_somebody_is_answered_changes_with_what_others_have(site: Site) -> None:
    mine = await fill(site, MINE, 20, "exp.mine", "mine")
    reader = (await site.key(*(f"{right}:{MINE}" for right in ("read", "tail", "export", "alert")))).text
    asked = questions(mine, datetime.now(UTC))

    async def answers() -> dict[str, Json]:
        found = {}
        for path in asked:
            answer = await site.ask(reader, "GET", path, headers={"Cache-Control": "no-cache"})
            is_json = answer.headers["content-type"].startswith(("application/json", "application/problem"))
            found[path] = answer.status_code, shown(answer.json()) if is_json else answer.text
        return found

    before = await answers()
    understood = {path: status for path, (status, _) in before.items() if status not in (200, 404)}
    assert understood == {}, before
    await fill(site, THEIRS, 200, "exp.theirs", "theirs", "exp.mine", "mine")
    after = await answers()
    changed = {path: (before[path], after[path]) for path in asked if before[path] != after[path]}
    assert changed == {}
    everybody = await site.ask((await site.key("read:*")).text, "GET", asked[0])
    assert THEIRS in everybody.text, "it is there"
