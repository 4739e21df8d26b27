"""Histograms and facets as their users meet them, on a real PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from access.principal import Principal
from schemas.overview import FacetsAnswer, HistogramAnswer
from schemas.pages import LogPage
from schemas.scope import NO_SERVICES, ServiceScope
from tests.integration.test_query_api import Api, now, open_chunks, rows, running

LEVELS = {9: "INFO", 11: "INFO", 17: "ERROR", 21: "FATAL"}


@pytest.fixture
async def api(native_url: str) -> AsyncIterator[Api]:
    async with running(native_url) as api:
        await open_chunks(api.connection)
        yield api


async def with_logs(api: Api) -> list[dict[str, Any]]:
    """Logs of the last quarter of an hour, a few of each second minute."""
    stored = rows(120)
    for n, row in enumerate(stored):
        row["timestamp"] = now() - timedelta(seconds=16 + n * 7)
        row["level"] = (9, 11, 17, 21)[n % 4]
        row["service_name"] = ("shop", "pay", "other/secret")[n % 3]
        row["metadata"] = {"status": (200, "500", None)[n % 3], "user": {"id": n % 7}, "ok": n % 2 == 0}
    await api.put(*stored)
    return stored


def by_level(histogram: dict[str, Any]) -> Counter[str]:
    total: Counter[str] = Counter()
    for bucket in histogram["buckets"]:
        total.update(bucket["counts"])
    return total


async def test_buckets_have_the_logs_that_pages_show(api: Api) -> None:
    stored = await with_logs(api)
    for parameters in ({}, {"level": "error"}, {"service_name": "pa*"}, {"q": "message 1"}, {"query": "-level:info"}):
        asked = {**parameters, "start_time": "-20m"}
        histogram = await api.get("histogram", HistogramAnswer, **asked)
        page = await api.get("logs", LogPage, **asked, limit=1_000)
        assert by_level(histogram) == Counter(log["level"] for log in page["logs"])
        assert (histogram["total"], histogram["counted_from"]) == (page["count"], None)
        starts = [bucket["start_time"] for bucket in histogram["buckets"]]
        assert starts == sorted(starts)
        assert all(bucket["counts"] for bucket in histogram["buckets"])
        for bucket in histogram["buckets"]:
            within = [
                log
                for log in page["logs"]
                if bucket["start_time"] <= log["timestamp"]
                and log["timestamp"] < _plus(bucket["start_time"], histogram["bucket_s"])
            ]
            assert Counter(log["level"] for log in within) == bucket["counts"]
    assert len(stored) == 120


def _plus(time: str, seconds: int) -> str:
    return (datetime.fromisoformat(time) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def test_an_hour_is_asked_for_where_nobody_says_when(api: Api) -> None:
    await api.put(*rows(3), *rows(2, timestamp=now() - timedelta(hours=2)))
    histogram = await api.get("histogram", HistogramAnswer)
    assert histogram["total"] == 3
    assert histogram["bucket_s"] == 120
    assert _plus(histogram["start_time"], 3_600) == histogram["end_time"]


async def test_facets_count_the_values_of_all_logs_that_match(api: Api) -> None:
    stored = await with_logs(api)
    found = await api.get("facets", FacetsAnswer, start_time="-20m")
    assert (found["counted"], found["counted_from"]) == (120, None)
    facets = {facet["field"]: {each["value"]: each["count"] for each in facet["values"]} for facet in found["facets"]}
    assert facets == {
        "service_name": {"shop": 40, "pay": 40, "other/secret": 40},
        "level": {"INFO": 60, "ERROR": 30, "FATAL": 30},
        "metadata.status": {"200": 40, "500": 40},
        "metadata.ok": {"true": 60, "false": 60},
    }
    asked = {"start_time": "-20m", "level": "error", "field": ["metadata.user.id", "level"], "top": 2}
    few = await api.get("facets", FacetsAnswer, **asked)
    users = Counter(str(row["metadata"]["user"]["id"]) for row in stored if LEVELS[row["level"]] == "ERROR")
    best = sorted(users.items(), key=lambda item: (-item[1], item[0]))[:2]
    assert [facet["field"] for facet in few["facets"]] == ["metadata.user.id", "level"]
    assert few["facets"][0] == {
        "field": "metadata.user.id",
        "values": [{"value": value, "count": count} for value, count in best],
        "others": 30 - sum(count for _, count in best),
    }
    for value, logs in facets["metadata.status"].items():
        page = await api.get("logs", LogPage, start_time="-20m", limit=1_000, **{"metadata.status": value})
        assert page["count"] == logs


async def test_a_sample_says_how_far_back_it_reaches(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("query.overview.ROWS_MAX", 50)
    monkeypatch.setattr("query.overview._ROWS_AT_ONCE", 20)
    await with_logs(api)
    found = await api.get("facets", FacetsAnswer, start_time="-20m")
    assert found["counted"] == 50
    page = await api.get("logs", LogPage, limit=50)
    oldest = page["logs"][-1]["timestamp"]
    assert oldest < found["counted_from"] <= page["logs"][-2]["timestamp"]


async def test_nothing_is_counted_that_may_not_be_read(api: Api) -> None:
    await with_logs(api)
    api.act_as(Principal("ann", may_write=NO_SERVICES, may_read=ServiceScope(names=frozenset({"shop"}))))
    assert (await api.get("histogram", HistogramAnswer, start_time="-20m"))["total"] == 40
    assert (await api.get("histogram", HistogramAnswer, start_time="-20m", service_name="pay"))["total"] == 0
    facets = await api.get("facets", FacetsAnswer, start_time="-20m")
    assert facets["counted"] == 40
    assert facets["facets"][0]["values"] == [{"value": "shop", "count": 40}]
    api.act_as(Principal("bob", may_write=NO_SERVICES, may_read=NO_SERVICES))
    for path in ("histogram", "facets"):
        await api.problem(path, 403)


@pytest.mark.parametrize(
    "path, parameters, field",
    [
        ("histogram", {"buckets": "0"}, "buckets"),
        ("histogram", {"buckets": "401"}, "buckets"),
        ("histogram", {"buckets": "x"}, "buckets"),
        ("histogram", {"start_time": "now"}, "start_time"),
        ("histogram", {"start_time": "-1h", "end_time": "-2h"}, "start_time"),
        ("histogram", {"end_time": "soon"}, "end_time"),
        ("histogram", {"limit": "5"}, "limit"),
        ("histogram", {"order": "asc"}, "order"),
        ("histogram", {"bucket": "5"}, "bucket"),
        ("histogram", {"level": "loud"}, "level"),
        ("facets", {"top": "51"}, "top"),
        ("facets", {"field": "message"}, "field"),
        ("facets", {"field": "metadata."}, "field"),
        ("facets", {"field": "metadata.a..b"}, "field"),
        ("facets", {"field": [f"metadata.k{n}" for n in range(21)]}, "field"),
        ("facets", {"query": "level:"}, "query"),
    ],
)
async def test_every_mistake_is_named(api: Api, path: str, parameters: dict[str, Any], field: str) -> None:
    problem = await api.problem(path, 422, **parameters)
    assert problem["errors"][0]["field"] == field


async def test_any_time_there_is_can_be_asked_for(api: Api) -> None:
    await api.put(*rows(3))
    for buckets in (1, 2, 400):
        found = await api.get(
            "histogram", HistogramAnswer, start_time="0001-01-01", end_time="9999-12-31T23:59:59Z", buckets=buckets
        )
        assert (found["total"], len(found["buckets"]), found["counted_from"]) == (3, 1, None)
