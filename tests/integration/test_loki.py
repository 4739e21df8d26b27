"""Loki's API on a real server: what is pushed is stored once and found again, in the words of its protocol.

Requests are written down from the sources of their clients: grafana/grafana (pkg/tsdb/loki, public/app/plugins/datasource/loki)
and grafana/loki (pkg/logcli, clients/pkg/promtail).
"""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import websockets

from access.principal import RateLimits
from infra.fleet import REPOSITORY
from tests.fleets import Fleets
from tests.loki_bodies import Streams, json_push, protobuf_push, snappy
from tests.loki_site import LokiSite, loki_site, new_service

pytestmark = pytest.mark.timeout(300)  # the first test starts servers

Json = dict[str, Any]
CATEGORIZED = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
MINUTE_S = 60


@pytest.fixture(scope="module")
def site(fleets: Fleets) -> Iterator[LokiSite]:
    with loki_site(fleets) as site:
        yield site


def now_ns() -> int:
    return time.time_ns()


def lines(service: str, count: int, **labels: str) -> Streams:
    first = now_ns() - count * 1_000_000
    return [({"app": service, **labels}, [(first + n * 1_000_000, f"line {n}", None) for n in range(count)])]


# Push


async def test_what_is_pushed_in_any_form_is_204_and_stored(site: LokiSite) -> None:
    service = new_service("push")
    key = await site.key(f"write:{service}", f"read:{service}")
    at = now_ns()
    forms: list[tuple[bytes, dict[str, str]]] = []
    for number in range(6):
        streams: Streams = [
            (
                {"app": service, "level": "warn", "pod": "p-1"},
                [(at + number * 1000, f"line {number}", {"trace_id": "4bf9", "n": "1"})],
            )
        ]
        protobuf = snappy(protobuf_push(streams))
        forms.append(
            [
                (json_push(streams), {"content_type": "application/json"}),
                (json_push(streams), {"content_type": "application/json; charset=utf-8"}),
                (gzip.compress(json_push(streams)), {"content_encoding": "gzip"}),
                (protobuf, {"content_type": "application/x-protobuf"}),
                (protobuf, {"content_type": "application/x-protobuf", "content_encoding": "snappy"}),
                (protobuf, {"content_type": "text/anything"}),
            ][number]
        )
    for body, headers in forms:
        answer = await site.push(key, body, **headers)
        assert (answer.status_code, answer.content) == (204, b""), answer.text
    logs = await site.settled(key, service, 6)
    assert [log["message"] for log in logs] == [f"line {n}" for n in range(6)]
    for log in logs:
        assert (log["level"], log["correlation_id"]) == ("WARN", "4bf9")
        assert log["metadata"] == {"pod": "p-1", "n": "1"}


async def test_a_body_that_is_sent_again_is_stored_once(site: LokiSite) -> None:
    service = new_service("again")
    key = await site.key(f"write:{service}", f"read:{service}")
    body = json_push(lines(service, 3))
    answers = await asyncio.gather(*(site.push(key, body) for _ in range(5)))
    answers.append(await site.push(key, gzip.compress(body), content_encoding="gzip"))
    assert {answer.status_code for answer in answers} == {204}
    assert len(await site.settled(key, service, 3)) == 3


async def test_an_older_path_takes_the_same(site: LokiSite) -> None:
    service = new_service("older")
    key = await site.key(f"write:{service}", f"read:{service}")
    old = {"labels": f'{{job="{service}"}}', "entries": [{"ts": "2026-11-20T10:00:00Z", "line": "old"}]}
    async with site.client(key) as client:
        answer = await client.post("/api/prom/push", json={"streams": [old]})
    assert answer.status_code == 204, answer.text
    (log,) = await site.stored(key, service, 1)
    assert (log["message"], log["timestamp"]) == ("old", "2026-11-20T10:00:00.000000Z")


async def test_a_bad_entry_is_said_and_costs_no_other(site: LokiSite) -> None:
    service = new_service("bad")
    key = await site.key(f"write:{service}", f"read:{service}")
    at = now_ns()
    values = [[str(at), "good"], [str(at), 5], ["7000000000000000000", "of 2191"], [str(at + 1000), "good too"]]
    body = json.dumps({"streams": [{"stream": {"app": service}, "values": values}]}).encode()
    answer = await site.push(key, body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith("2 of 4 entries were not taken, the others were; the first, number 2: ")
    assert [log["message"] for log in await site.settled(key, service, 2)] == ["good", "good too"]


async def test_refusals_are_sentences_in_plain_text(site: LokiSite) -> None:
    service = new_service("refused")
    writer = await site.key(f"write:{service}")
    reader = await site.key(f"read:{service}")
    body = json_push(lines(service, 1))
    for key, sent, headers, status in (
        (None, body, {}, 401),
        ("lf_" + "a" * 12 + "_" + "b" * 43, body, {}, 401),
        (reader, body, {}, 403),
        (writer, json_push(lines("other", 1)), {}, 403),
        (writer, b"{", {}, 400),
        (writer, body, {"content_type": "application/x-protobuf"}, 400),
        (writer, b"\xff" * 50, {"content_type": "application/x-protobuf"}, 400),
        (writer, body, {"content_encoding": "br"}, 415),
        (writer, b" " * (9 * 1024 * 1024), {}, 413),
        (writer, snappy(bytes(9 * 1024 * 1024)), {"content_type": "application/x-protobuf"}, 413),
    ):
        answer = await site.push(key, sent, **headers)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.text.endswith("\n")
        assert "{" not in answer.text[:1]
        assert ("www-authenticate" in answer.headers) == (status == 401)


async def test_a_key_that_sends_too_fast_is_told_to_wait(site: LokiSite) -> None:
    service = new_service("fast")
    key = await site.key(f"write:{service}", f"read:{service}", rates=RateLimits(logs_per_s=0.1))
    assert (await site.push(key, json_push(lines(service, 5)))).status_code == 204
    answer = await site.push(key, json_push(lines(service, 1)))
    assert (answer.status_code, answer.headers["content-type"]) == (429, "text/plain; charset=utf-8")
    assert int(answer.headers["retry-after"]) >= 1
    assert len(await site.settled(key, service, 5)) == 5


async def test_a_key_of_one_service_needs_no_label(site: LokiSite) -> None:
    service = new_service("only")
    key = await site.key(f"write:{service}", f"read:{service}")
    assert (await site.push(key, json_push([({"env": "prod"}, [(now_ns(), "m", None)])]))).status_code == 204
    (log,) = await site.stored(key, service, 1)
    assert log["metadata"] == {"env": "prod"}
    every = await site.key("write:*", "read:unknown_service")
    assert (await site.push(every, json_push([({"env": "prod"}, [(now_ns(), "m", None)])]))).status_code == 204
    await site.stored(every, "unknown_service", 1)


async def test_keys_come_as_passwords_too(site: LokiSite) -> None:
    service = new_service("basic")
    key = await site.key(f"write:{service}")
    async with httpx.AsyncClient(base_url=site.url, trust_env=False, auth=("anybody", key)) as client:
        answer = await client.post(
            "/loki/api/v1/push", content=json_push(lines(service, 1)), headers={"content-type": "application/json"}
        )
    assert answer.status_code == 204


async def test_it_says_when_it_is_ready(site: LokiSite) -> None:
    answer = await site.ask(None, "/ready")
    assert (answer.status_code, answer.text) == (200, "ready\n")
    assert answer.headers["content-type"].startswith("text/plain")


# Questions


class Asked:
    """Two services with logs of known times, and a key that may read both."""

    def __init__(self, site: LokiSite, key: str, shop: str, mail: str, start_ns: int) -> None:
        self.site, self.key, self.shop, self.mail = site, key, shop, mail
        self.start_ns = start_ns

    @property
    def end_ns(self) -> int:
        return self.start_ns + 300_000_000_000

    async def get(self, path: str, headers: dict[str, str] | None = None, /, **parameters: Any) -> Json:
        answer = await self.site.ask(self.key, f"/loki/api/v1/{path}", headers, **parameters)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        found: Json = answer.json()
        return found

    async def range(self, query: str, headers: dict[str, str] | None = None, /, **parameters: Any) -> Json:
        times = {"start": self.start_ns, "end": self.end_ns}
        data: Json = (await self.get("query_range", headers, query=query, **{**times, **parameters}))["data"]
        return data

    async def lines(self, query: str, **parameters: Any) -> list[str]:
        data = await self.range(query, **parameters)
        assert data["resultType"] == "streams"
        found = [value for stream in data["result"] for value in stream["values"]]
        is_forward = parameters.get("direction", "").lower() == "forward"
        return [line for _, line in sorted(found, reverse=not is_forward)]


@pytest.fixture(scope="module")
def asked(site: LokiSite) -> Asked:
    """Five minutes: every second one of shop, of every fifth an error with fields; every ten seconds one of mail."""

    async def fill() -> Asked:
        shop, mail = new_service("shop"), new_service("mail")
        key = await site.key(f"write:{shop}", f"write:{mail}", f"read:{shop}", f"read:{mail}", f"tail:{shop}")
        start_ns = (now_ns() // 60_000_000_000 - 10) * 60_000_000_000
        normal = [(start_ns + n * 1_000_000_000, f"tick {n}", None) for n in range(300) if n % 5]
        errors = [
            (
                start_ns + n * 1_000_000_000,
                json.dumps({"n": n, "status": 500 + n % 2, "path": "/Buy"}),
                {"trace_id": f"t{n}", "pod": f"p-{n % 3}"},
            )
            for n in range(0, 300, 5)
        ]
        sent = [(start_ns + n * 10_000_000_000, f"at={n} took={n}ms to=ann", None) for n in range(30)]
        streams: Streams = [
            ({"app": shop}, normal),
            ({"app": shop, "level": "error"}, errors),
            ({"app": mail, "env": "prod"}, sent),
        ]
        answer = await site.push(key, snappy(protobuf_push(streams)), content_type="application/x-protobuf")
        assert answer.status_code == 204, answer.text
        await site.stored(key, shop, 300)
        await site.stored(key, mail, 30)
        return Asked(site, key, shop, mail, start_ns)

    return asyncio.run(fill())


async def test_logs_come_the_newest_first_up_to_a_limit(asked: Asked) -> None:
    query = f'{{app="{asked.shop}"}} |= "tick"'
    assert await asked.lines(query, limit=3) == ["tick 299", "tick 298", "tick 297"]
    assert await asked.lines(query, limit=3, direction="FORWARD") == ["tick 1", "tick 2", "tick 3"]
    assert len(await asked.lines(f'{{service_name="{asked.shop}"}}')) == 100
    assert len(await asked.lines(f'{{service_name="{asked.shop}"}}', limit=5000)) == 300


async def test_start_is_inclusive_and_end_exclusive(asked: Asked) -> None:
    at = asked.start_ns + 7_000_000_000
    query = f'{{app="{asked.shop}"}}'
    assert await asked.lines(query, start=at, end=at + 1_000_000_000) == ["tick 7"]
    assert await asked.lines(query, start=at, end=at) == []


async def test_labels_are_told_apart_where_a_client_asks_for_it(asked: Asked) -> None:
    query = f'{{app="{asked.shop}", level="error"}} | json'
    plain = (await asked.range(query, limit=1))["result"]
    labels = {
        "level": "error",
        "service_name": asked.shop,
        "correlation_id": "t295",
        "pod": "p-1",
        "n": "295",
        "status": "501",
        "path": "/Buy",
    }
    assert [stream["stream"] for stream in plain] == [labels]
    data = await asked.range(query, CATEGORIZED, limit=1)
    assert data["encodingFlags"] == ["categorize-labels"]
    (stream,) = data["result"]
    assert stream["stream"] == {"level": "error", "service_name": asked.shop}
    ((at, line, categories),) = stream["values"]
    assert at == str(asked.start_ns + 295_000_000_000)
    assert json.loads(line)["n"] == 295
    assert categories == {
        "structuredMetadata": {"correlation_id": "t295", "pod": "p-1"},
        "parsed": {"n": "295", "status": "501", "path": "/Buy"},
    }


async def test_conditions_on_lines_and_labels_find_what_they_say(asked: Asked) -> None:
    shop = f'app="{asked.shop}"'
    for query, count in (
        (f'{{{shop}}} |= "Buy"', 60),
        (f'{{{shop}}} |= "buy"', 0),
        (f'{{{shop}}} |~ "(?i)buy"', 60),
        (f'{{{shop}}} |~ "tick 1[0-9]$"', 8),
        (f'{{{shop}, pod="p-1"}}', 20),
        (f'{{{shop}, pod=~"p-[01]"}}', 40),
        (f"{{{shop}}} | json | status = 501", 30),
        (f"{{{shop}}} | json | status > 500 and n < 100", 10),
        (f'{{{shop}}} | trace_id = "t15"', 1),
        (f'{{app="{asked.mail}", env="prod"}} | logfmt | took >= 20ms', 10),
        (f'{{service_name=~"{asked.shop}|{asked.mail}"}}', 330),
        (f'{{service_name=~"{asked.mail[:-1]}.+"}}', 30),
    ):
        assert len(await asked.lines(query, limit=5000)) == count, query


async def test_grafanas_health_check_gets_its_two(asked: Asked) -> None:
    found = await asked.get("query", query="vector(1)+vector(1)", direction="backward", time=4_000_000_000)
    assert found["data"]["resultType"] == "vector"
    assert found["data"]["result"] == [{"metric": {}, "value": [4_000_000_000, "2"]}]


async def test_explores_histogram_counts_every_log_once(asked: Asked) -> None:
    query = f'sum by (level, detected_level) (count_over_time({{app="{asked.shop}"}} | drop __error__[1m]))'
    data = await asked.range(
        query, {"X-Query-Tags": "Source=logvolhist"}, step="60000ms", direction="backward", limit=1000
    )
    assert data["resultType"] == "matrix"
    found = {series["metric"]["level"]: series["values"] for series in data["result"]}
    start_s = asked.start_ns // 1_000_000_000
    assert found == {
        "error": [[start_s + 60 * n, "12"] for n in range(1, 6)],
        "info": [[start_s + 60 * n, "48"] for n in range(1, 6)],
    }
    assert all(series["metric"]["detected_level"] == series["metric"]["level"] for series in data["result"])


async def test_measures_are_summed_by_labels(asked: Asked) -> None:
    async def sums(query: str, **parameters: Any) -> dict[tuple[str, ...], float]:
        found = await asked.get("query", query=query, time=asked.end_ns, **parameters)
        return {
            tuple(each["metric"][name] for name in sorted(each["metric"])): float(each["value"][1])
            for each in found["data"]["result"]
        }

    both = f'{{service_name=~"{asked.shop}|{asked.mail}"}}'
    assert await sums(f"sum (count_over_time({both}[5m]))") == {(): 330}
    assert await sums(f"sum by (service_name) (count_over_time({both}[5m]))") == {(asked.shop,): 300, (asked.mail,): 30}
    assert await sums(f"count_over_time({both}[5m])") == {
        ("error", asked.shop): 60,
        ("info", asked.shop): 240,
        ("info", asked.mail): 30,
    }
    assert await sums(f"sum by (pod) (count_over_time({both} | pod != `` [5m]))") == {
        ("p-0",): 20,
        ("p-1",): 20,
        ("p-2",): 20,
    }
    assert await sums(f'sum by (status) (count_over_time({both} |= "status" | json [5m]))') == {
        ("500",): 30,
        ("501",): 30,
    }
    assert await sums(f"sum (rate({both}[5m]))") == {(): pytest.approx(330 / 300)}
    ticks = f'{{app="{asked.shop}"}} |= "tick"'
    assert await sums(f"sum (bytes_over_time({ticks}[5m]))") == {(): sum(len(f"tick {n}") for n in range(300) if n % 5)}


async def test_labels_values_series_and_fields_are_those_of_the_time(asked: Asked) -> None:
    times = {"start": asked.start_ns, "end": asked.end_ns}
    names = (await asked.get("labels", **times))["data"]
    assert {"service_name", "level", "correlation_id", "pod", "env"} <= set(names)
    assert (await asked.get("labels", query=f'{{app="{asked.mail}"}}', **times))["data"] == [
        "env",
        "level",
        "service_name",
    ]
    assert (await asked.get("label/service_name/values", **times))["data"] == sorted([asked.shop, asked.mail])
    assert (await asked.get("label/level/values", **times))["data"] == ["info", "error"]
    assert (await asked.get("label/pod/values", **times))["data"] == ["p-0", "p-1", "p-2"]
    assert (await asked.get("label/app/values", query=f'{{app="{asked.mail}"}}', **times))["data"] == [asked.mail]
    assert (await asked.get("label/nothing/values", **times))["data"] == []
    series = [{"level": "error", "service_name": asked.shop}]
    for name in ("match[]", "match"):
        found = await asked.get("series", **{name: f'{{app="{asked.shop}", level="error"}}'}, **times)
        assert found == {"status": "success", "data": series}
    fields = (await asked.get("detected_fields", query=f'{{app="{asked.shop}"}} | json', limit=1000, **times))["fields"]
    found_fields = {field["label"]: (field["type"], field["cardinality"]) for field in fields}
    assert found_fields["status"] == ("int", 2)
    assert found_fields["pod"] == ("string", 3)
    assert (await asked.get("index/stats", query=f'{{app="{asked.shop}"}}', **times))["entries"] == 300
    assert (await asked.get("status/buildinfo"))["version"].startswith("3.")


async def test_what_is_not_understood_is_400_and_says_where(asked: Asked) -> None:
    for path, parameters, said in (
        (
            "query_range",
            {"query": '{app="a"} | line_format "x"'},
            "query: column 13: line_format is not supported here",
        ),
        ("query_range", {}, "query: is missing"),
        ("query_range", {"query": "{}", "limit": 5001}, "max entries limit per query exceeded"),
        ("query_range", {"query": "{}", "start": "soon"}, "start: "),
        (
            "query_range",
            {"query": "rate({}[1m])", "start": 1, "end": 9_000_000_000, "step": "1s"},
            "exceeded maximum resolution",
        ),
        ("query", {"query": "{}"}, "log queries are not supported as an instant query type"),
        ("series", {"match[]": "rate({}[1m])"}, "match[]: column 1"),
        ("index/stats", {"query": "{"}, "query: column 2"),
        ("labels", {"query": "{"}, "query: column 2"),
    ):
        answer = await asked.site.ask(asked.key, f"/loki/api/v1/{path}", **parameters)
        assert answer.status_code == 400, answer.text
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert said in answer.text


async def test_only_logs_that_may_be_read_count_and_show(asked: Asked) -> None:
    other = await asked.site.key(f"read:{asked.mail}")
    mine = Asked(asked.site, other, asked.shop, asked.mail, asked.start_ns)
    times = {"start": asked.start_ns, "end": asked.end_ns}
    assert len(await mine.lines("{}", limit=5000)) == 30
    assert await mine.lines(f'{{app="{asked.shop}"}}') == []
    assert await mine.lines(f'{{service_name=~"{asked.shop[:4]}.+"}}') == []
    assert set(await mine.lines(f'{{service_name!="{asked.mail}x"}}', limit=5000)) == set(
        await mine.lines("{}", limit=5000)
    )
    assert (await mine.get("label/service_name/values", **times))["data"] == [asked.mail]
    assert "pod" not in (await mine.get("labels", **times))["data"]
    assert (await mine.get("label/pod/values", **times))["data"] == []
    assert (await mine.get("series", **times))["data"] == [{"level": "info", "service_name": asked.mail}]
    assert (await mine.get("index/stats", query="{}", **times))["entries"] == 30
    for query in ("sum (count_over_time({}[5m]))", "sum (bytes_over_time({} | env=`prod` [5m])) / 1"):
        answer = await asked.site.ask(other, "/loki/api/v1/query", query=query.removesuffix(" / 1"), time=asked.end_ns)
        assert answer.status_code == 200, answer.text
    counted = await mine.get("query", query="sum by (service_name) (count_over_time({}[5m]))", time=asked.end_ns)
    assert [each["metric"] for each in counted["data"]["result"]] == [{"service_name": asked.mail}]
    writer = await asked.site.key(f"write:{asked.shop}")
    for key, status in ((None, 401), (writer, 403)):
        for path in (
            "query_range",
            "query",
            "labels",
            "series",
            "status/buildinfo",
            "label/x/values",
            "index/stats",
            "detected_fields",
        ):
            answer = await asked.site.ask(key, f"/loki/api/v1/{path}", query="{}")
            assert answer.status_code == status
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"


async def test_who_asked_is_written_down(asked: Asked) -> None:
    marker = new_service("asked")
    await asked.lines(f'{{app="{asked.shop}"}} != "{marker}"', limit=7)
    (entry,) = await asked.site.audited("/loki/api/v1/query_range", marker.replace("/", "%2F"))
    assert entry["rows"] == 7


DASHBOARD = REPOSITORY / "infra" / "grafana" / "dashboards" / "logs.json"


async def test_every_panel_of_the_dashboard_is_answered(asked: Asked) -> None:
    """As Grafana sends them, its variables filled in."""
    dashboard = json.loads(await asyncio.to_thread(DASHBOARD.read_text))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            assert (
                await asked.get(f"label/{variable['query']['label']}/values", start=asked.start_ns, end=asked.end_ns)
            )["data"]
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    assert targets
    for target in targets:
        query = target["expr"]
        for placeholder, value in (
            ("$service", ".+"),
            ("$level", ".+"),
            ("$search", ""),
            ("$__range", "300s"),
            ("$__auto", "60s"),
        ):
            query = query.replace(placeholder, value)
        assert "$" not in query
        if target["queryType"] == "instant":
            found = (await asked.get("query", query=query, time=asked.end_ns, direction="backward"))["data"]
        else:
            found = await asked.range(query, CATEGORIZED, step="60000ms", limit=1000, direction="backward")
        assert found["result"], query


# Tail


async def _until(opened: websockets.ClientConnection, number: int) -> list[tuple[Json, list[Any]]]:
    """(labels of the stream, value) of so many lines."""
    found: list[tuple[Json, list[Any]]] = []
    async with asyncio.timeout(60):
        while len(found) < number:
            message = json.loads(await opened.recv())
            assert "dropped_entries" not in message
            found += [(stream["stream"], value) for stream in message["streams"] for value in stream["values"]]
    return found


async def test_a_tail_shows_what_was_and_what_comes_each_once(site: LokiSite) -> None:
    service = new_service("tail")
    key = await site.key(f"write:{service}", f"read:{service}", f"tail:{service}")
    assert (await site.push(key, json_push(lines(service, 5)))).status_code == 204
    await site.stored(key, service, 5)
    # logcli's parameters.
    async with site.tail(
        key, query=f'{{app="{service}"}}', limit=3, delay_for=0, start=now_ns() - 3_600_000_000_000
    ) as opened:
        assert [value[1] for _, value in await _until(opened, 3)] == ["line 2", "line 3", "line 4"]
        (begin,) = await site.audited("/loki/api/v1/tail", service.replace("/", "%2F"))
        assert (begin["phase"], begin["rows"]) == ("begin", 3)
        for number in range(10):
            streams: Streams = [({"app": service, "level": "error"}, [(now_ns(), f"new {number}", {"n": str(number)})])]
            assert (await site.push(key, json_push(streams))).status_code == 204
        found = await _until(opened, 10)
        assert sorted(value[1] for _, value in found) == [f"new {n}" for n in range(10)]
        assert {(labels["service_name"], labels["level"]) for labels, _ in found} == {(service, "error")}


async def test_a_tail_applies_the_whole_query(site: LokiSite) -> None:
    service = new_service("tailed")
    key = await site.key(f"write:{service}", f"tail:{service}")
    query = f'{{app="{service}"}} |= "n" | json | n > 3'
    async with site.tail(key, query=query, start=now_ns()) as opened:
        entries = [(now_ns(), json.dumps({"n": n}), None) for n in range(6)]
        assert (await site.push(key, json_push([({"app": service}, entries)]))).status_code == 204
        assert sorted(value[1] for _, value in await _until(opened, 2)) == ['{"n": 4}', '{"n": 5}']


async def test_a_tail_shows_of_the_past_what_may_be_read_and_of_what_comes_what_may_be_tailed(site: LokiSite) -> None:
    both, tailed, read = new_service("both"), new_service("tailed"), new_service("read")
    writer = await site.key(*(f"{right}:{service}" for right in ("write", "read") for service in (both, tailed, read)))
    key = await site.key(f"read:{both}", f"read:{read}", f"tail:{both}", f"tail:{tailed}")
    only = await site.key(f"tail:{both}", f"tail:{tailed}")
    for service in (both, tailed, read):
        assert (await site.push(writer, json_push(lines(service, 1)))).status_code == 204
        await site.stored(writer, service, 1)
    since = now_ns() - 3_600_000_000_000
    async with site.tail(key, query="{}", start=since) as opened, site.tail(only, query="{}", start=since) as blind:
        assert [labels["service_name"] for labels, _ in await _until(opened, 1)] == [both]
        for service in (read, tailed, both):
            streams: Streams = [({"app": service}, [(now_ns(), "new", None)])]
            assert (await site.push(writer, json_push(streams))).status_code == 204
        for tail in (opened, blind):
            shown = [(labels["service_name"], value[1]) for labels, value in await _until(tail, 2)]
            assert sorted(shown) == sorted([(both, "new"), (tailed, "new")])


async def test_a_tail_is_refused_in_words_and_shows_nothing_of_others(site: LokiSite, asked: Asked) -> None:
    service = new_service("mine")
    key = await site.key(f"write:{service}", f"tail:{service}")
    reader = await site.key(f"read:{service}")
    for credentials, query, status in (
        (None, "{}", 401),
        (reader, "{}", 403),
        (key, "{", 400),
        (key, "rate({}[1m])", 400),
    ):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with site.tail(credentials, query=query):
                pass
        assert refused.value.response.status_code == status
        assert refused.value.response.headers["content-type"].startswith("text/plain")
    async with site.tail(key, query="{}", start=asked.start_ns, limit=5000) as opened:
        assert (await site.push(key, json_push([({"app": service}, [(now_ns(), "own", None)])]))).status_code == 204
        ((labels, value),) = await _until(opened, 1)
        assert (labels["service_name"], value[1]) == (service, "own")
