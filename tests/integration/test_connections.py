"""Connections over HTTP: put, sent, shown, figures; and who sees which."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli.demo_connections import Stream
from cli.main import app
from connections.figures import Figures
from connections.metrics import Side
from connections.series import Point, Series
from db.database import Database
from infra.fleet import EMBEDDED, Fleet
from query.experiments.changes import Change, begun
from schemas.connections import (
    ConnectionList,
    ConnectionModel,
    ConnectionStatistics,
    ConnectionSummary,
    SeriesAnswer,
    TextPut,
)
from schemas.experiments import ExperimentStatus
from schemas.pages import LogPage
from schemas.scope import ALL_SERVICES, ServiceScope
from schemas.times import time_text
from store.connections.reading import ConnectionReader
from store.connections.texts import ConnectionDetails, ConnectionTexts, Pending, TooManyConnections
from store.experiments import ExperimentStore
from store.objects.factory import make_object_store
from store.objects.settings import ObjectSettings
from tests.access_site import Site, holding, running, soon, waiting
from tests.app_server import serving
from tests.s3_server import S3Server

Json = dict[str, Any]
PATH = "/api/v1/connections"
DETAILS = {
    "username": "Ada@example.com",
    "ip": "10.1.2.3",
    "version": "a1b2c3d",
    "last_updated": "2026-07-30T22:40:00Z",
}
TEXT = {"Content-Type": "text/plain; charset=utf-8"}
ALL = ("write:*", "read:*")


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url) as site:
        yield site


async def put(site: Site, token: str, path: str, status: int = 201, /, **arguments: Any) -> Json:
    answer = await site.ask(token, "PUT", PATH + path, **arguments)
    assert answer.status_code == status, answer.text
    document: Json = answer.json()
    return document


async def send(site: Site, token: str, path: str, text: str, status: int = 201, **parameters: Any) -> Json:
    return await put(site, token, path, status, content=text.encode(), headers=TEXT, params=parameters)


async def get(site: Site, token: str, path: str = "", **parameters: Any) -> Json:
    answer = await site.ask(token, "GET", PATH + path, params=parameters)
    assert answer.status_code == 200, answer.text
    document: Json = answer.json()
    return document


def text_of(site: Site, *messages: str) -> str:
    """Lines of now, a second apart."""
    begins = datetime.now(UTC) - timedelta(minutes=5)
    lines = []
    for number, message in enumerate(messages):
        level = "ERROR" if "failed" in message else "WARNING" if "late" in message else "INFO"
        lines.append(f"{begins + timedelta(seconds=number):%Y-%m-%d %H:%M:%S.%f} | {level} | {message}\n")
    return "".join(lines)


SERVER_LINES = (
    "Average Encode Time: 0.005",
    "frame 1 failed",
    "frame 2 failed",
    "Average Encode Size: 100",
    "late by 7 ms",
)
CLIENT_LINES = ("latency: 0.02", "latency=40ms", "Avg Decode Time: 0.004", "latency 0.9s")


async def test_a_connection_from_its_put_to_its_figures(site: Site) -> None:
    token = (await site.key(*ALL)).text
    await put(site, token, "/1001", 201, json=DETAILS)
    await put(site, token, "/1001", 200, json=DETAILS | {"version": "next"})
    lonely = await get(site, token, "/1001/summary")
    ConnectionSummary.model_validate(lonely)
    assert (lonely["server"], lonely["client"], lonely["missing_side"]) == (None, None, "both")
    server = text_of(site, *SERVER_LINES)
    taken = await send(site, token, "/1001/logs/server", server)
    TextPut.model_validate(taken)
    assert (taken["lines"], taken["added"], taken["rejected"]) == (5, 5, 0)
    again = await send(site, token, "/1001/logs/server", server, 200)
    assert (again["lines"], again["added"]) == (5, 0)
    assert (await get(site, token, "/1001/summary"))["missing_side"] == "client"
    client = text_of(site, *CLIENT_LINES)
    await send(site, token, "/1001/logs/client", client[: client.index("\n") + 1])
    assert (await send(site, token, "/1001/logs/client", client))["added"] == 3
    answer = await put(site, token, "/1001/logs/client", 409, content=b"other", headers=TEXT)
    assert answer["type"] == "urn:logfeed:problem:conflict"
    found = await get(site, token, "/1001")
    ConnectionModel.model_validate(found)
    assert (found["username"], found["version"]) == ("Ada@example.com", "next")
    assert found["server"] == {"lines": 5, "errors": 2, "warnings": 1, "error_percent": 40.0, "warning_percent": 20.0}
    assert found["client"]["errors"] == 0
    summary = await get(site, token, "/1001/summary")
    ConnectionSummary.model_validate(summary)
    medians = {
        each["metric"]: (each["median"], each["unit"], each["side"], each["count"]) for each in summary["medians"]
    }
    assert medians == {
        "latency": (0.04, "s", "client", 3),
        "decode_time": (0.004, "s", "client", 1),
        "encode_time": (0.005, "s", "server", 1),
        "encode_size": (100.0, "bytes", "server", 1),
    }
    assert summary["common_errors"] == [{"message": "frame <num> failed", "count": 2}]
    series = await get(site, token, "/1001/series", metric="latency")
    SeriesAnswer.model_validate(series)
    assert [(value, line) for _, value, line in series["points"]] == [(0.02, 1), (0.04, 2), (0.9, 4)]
    assert (series["count"], series["side"], series["unit"]) == (3, "client", "s")
    missing = await get(site, token, "/1001/series", metric="latency", side="server")
    assert (missing["points"], missing["count"]) == ([], 0)
    statistics = await get(site, token, "/statistics")
    ConnectionStatistics.model_validate(statistics)
    assert statistics["common_errors"] == [{"message": "frame <num> failed", "count": 2, "connections": 1}]
    assert statistics["errors_and_latency"] == {"spearman": None, "n": 1}


async def test_lists_page_by_page_by_name_and_by_errors(site: Site) -> None:
    token = (await site.key(*ALL)).text
    for number in range(7):
        about = {"username": f"User_{number % 2}", "last_updated": f"2026-01-0{number + 1}T00:00:00Z"}
        await put(site, token, f"/c{number}", 201, json=DETAILS | about)
    await send(site, token, "/c3/logs/server", text_of(site, "a failed"))
    await send(site, token, "/c4/logs/client", text_of(site, "fine"))
    seen: list[str] = []
    parameters: Json = {"limit": 3}
    while True:
        page = await get(site, token, **parameters)
        ConnectionList.model_validate(page)
        seen += [each["id"] for each in page["connections"]]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert seen == [f"c{number}" for number in range(6, -1, -1)]

    async def ids(**parameters: Any) -> list[str]:
        return [each["id"] for each in (await get(site, token, **parameters))["connections"]]

    assert await ids(username="ser_1") == ["c5", "c3", "c1"]
    assert await ids(username="USER_") == seen
    assert await ids(username="%") == []
    assert await ids(has_errors="true") == ["c3"]
    assert len(await ids(has_errors="false")) == 6
    other = (await site.key("read:*")).text
    answer = await site.ask(other, "GET", PATH, params={"cursor": parameters["cursor"]})
    assert answer.status_code == 400, "of another user"


async def test_each_sees_and_sends_the_sides_that_are_theirs(site: Site) -> None:
    admin = (await site.key(*ALL)).text
    await put(site, admin, "/c", 201, json=DETAILS)
    server = text_of(site, "secret failed", "latency: 7")
    await send(site, admin, "/c/logs/server", server)
    await send(site, admin, "/c/logs/client", text_of(site, "mine failed", "latency: 1"))
    reader = (await site.key("read:connections/client")).text
    found = await get(site, reader, "/c")
    assert (found["server"], found["client"]["lines"]) == (None, 2)
    summary = await get(site, reader, "/c/summary")
    assert (summary["missing_side"], summary["common_errors"]) == (None, [{"message": "mine failed", "count": 1}])
    assert [each["side"] for each in summary["medians"]] == ["client"]
    assert (await get(site, reader, "/c/series", metric="latency", side="server"))["count"] == 0
    statistics = await get(site, reader, "/statistics")
    assert [each["message"] for each in statistics["common_errors"]] == ["mine failed"]
    assert statistics["medians"] == [{"metric": "latency", "unit": "s", "median": 1.0, "connections": 1}]
    both = await get(site, admin, "/statistics")
    assert both["medians"][0]["median"] == 4.0, "what is kept for one is not shown to another"
    stranger = (await site.key("read:shop", "write:shop")).text
    assert await get(site, stranger) == {"connections": [], "next_cursor": None}
    assert (await get(site, stranger, "/statistics"))["connections"] == 0
    for path in ("", "/summary", "/logs", "/series?metric=latency"):
        assert (await site.ask(stranger, "GET", f"{PATH}/c{path}")).status_code == 404
        for nobody in ("c%00", "c%2Fd", "%ED%A0%80"):
            assert (await site.ask(admin, "GET", f"{PATH}/{nobody}{path}")).status_code == 404, nobody
    await put(site, stranger, "/d", 403, json=DETAILS)
    await send(site, stranger, "/c/logs/server", server, 403)
    writer = (await site.key("write:connections/client")).text
    await put(site, writer, "/d", 201, json=DETAILS)
    await send(site, writer, "/d/logs/server", server, 403)
    await send(site, writer, "/d/logs/client", server)
    assert (await site.ask(writer, "GET", f"{PATH}/d")).status_code == 403


async def test_who_puts_connections_without_end_keeps_nobody_out(site: Site) -> None:
    writer = (await site.key("write:connections/*")).text
    other = await site.key("write:connections/*", "read:shop")
    async with holding(site, "LOCK TABLE connections") as holder:
        puts = [asyncio.create_task(site.ask(writer, "PUT", f"{PATH}/c{n}", json=DETAILS)) for n in range(30)]
        await waiting(holder, 2)
        assert (await site.ask(other.text, "GET", "/api/v1/logs")).status_code == 200, (
            "connections to the database are left"
        )
    answers = await asyncio.gather(*puts)
    assert {answer.status_code for answer in answers} == {201}


async def test_whoever_goes_on_with_a_text_stores_none_of_its_lines_twice(site: Site) -> None:
    """Keys of chunks belong to the text, not to the key that sends it."""
    first, second = (await site.key(*ALL)).text, (await site.key(*ALL)).text
    await put(site, first, "/c", 201, json=DETAILS)
    text = text_of(site, *(f"line {number}" for number in range(5_000)))
    taken = await asyncio.gather(
        *(send(site, token, "/c/logs/server", text, 201) for token in (first, second)), return_exceptions=True
    )
    assert any(isinstance(each, dict) for each in taken)
    keys = await site.database.fetch_one("SELECT count(*), count(DISTINCT body_sha256) FROM id_reservations")
    assert keys == (3, 3), "chunks of 2,000 lines"
    assert (await send(site, second, "/c/logs/server", text, 200))["lines"] == 5_000


async def test_what_cannot_be_is_refused_and_named(site: Site) -> None:
    token = (await site.key(*ALL)).text
    await send(site, token, "/none/logs/server", "a", 404)
    await put(site, token, "/c", 201, json=DETAILS)
    for body, field in (
        ({**DETAILS, "x": 1}, "x"),
        ({}, "username"),
        (DETAILS | {"last_updated": "soon"}, "last_updated"),
    ):
        document = await put(site, token, "/c", 422, json=body)
        assert document["errors"][0]["field"] == field
    await put(site, token, "/statistics", 405, json=DETAILS)
    await put(site, token, "/c", 415, content=b"{}", headers=TEXT)
    await put(site, token, "/c", 400, content=b"{", headers={"Content-Type": "application/json"})
    await send(site, token, "/c/logs/both", "a", 422)
    await send(site, token, "/c/logs/server", "a", 422, time="later")
    await put(site, token, "/c/logs/server", 415, content=b"a", headers={"Content-Type": "application/json"})
    await put(site, token, "/c/logs/server", 415, content=b"a", headers=TEXT | {"Content-Encoding": "gzip"})
    old = "2020-01-01 00:00:00 | INFO | a\n"
    document = await send(site, token, "/c/logs/server", old, 422)
    assert "time=shift" in document["detail"]
    for path in (
        "/c/series",
        "/c/series?metric=speed",
        "/c/logs?side=both",
        "?has_errors=yes",
        "/c/series?metric=latency&max_points=3",
    ):
        assert (await site.ask(token, "GET", PATH + path)).status_code == 422, path
    assert (await get(site, token, "/c"))["server"] is None, "nothing was stored"


# --- through the whole chain, with the command --------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Any:
    fleet = Fleet(EMBEDDED, tmp_path_factory.mktemp("connections"))
    fleet.start_servers()
    try:
        fleet.role("serve")
        fleet.role("write")
        yield fleet
    finally:
        fleet.stop_everything()


BEGINS_US = 1_596_148_265_000_000
"""2020: older than logs are kept."""
SIDES: Json = {"1001": ("server", "client"), "1002": ("client",), "1003": ("server",)}


def old_texts(directory: Path) -> dict[tuple[str, str], str]:
    """A manifest with texts; connection and side -> text."""
    texts: dict[tuple[str, str], str] = {}
    entries = []
    for number, (connection_id, sides) in enumerate(SIDES.items()):
        stream = Stream(number, BEGINS_US + number * 3_600_000_000)
        stream.has, stream.texts = sides, dict.fromkeys(sides, "")
        stream.go_on(BEGINS_US + number * 3_600_000_000 + 700_000_000)
        entry = {
            "connection_id": connection_id,
            "username": "ada",
            "ip": "",
            "version": "",
            "server": None,
            "client": None,
        }
        for side, text in stream.texts.items():
            (directory / f"{side}{connection_id}.txt").write_text(text)
            entry[side] = f"{side}{connection_id}.txt"
            texts[connection_id, side] = text
        entries.append(entry | {"last_updated": time_text(stream.at_us)})
    (directory / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return texts


async def test_imported_texts_are_shown_line_by_line(fleet: Fleet, tmp_path: Path) -> None:
    await fleet.ready("serve")
    texts = old_texts(tmp_path)
    lines = sum(text.count("\n") for text in texts.values())
    source = tmp_path
    first = await asyncio.to_thread(
        lambda: CliRunner().invoke(app, ["import-connections", str(source), "--url", fleet.url("serve")])
    )
    assert first.exit_code == 1, first.output
    assert "older than the 400 days" in first.output
    command = ["import-connections", str(source / "manifest.jsonl"), "--time", "shift", "--url", fleet.url("serve")]
    for added in (lines, 0):
        result = await asyncio.to_thread(lambda: CliRunner().invoke(app, command))
        assert result.exit_code == 0, result.output
        assert f"3 connections, 4 texts with {lines:,} lines: added {added:,}," in result.output
    async with httpx.AsyncClient(trust_env=False, base_url=fleet.url("serve"), timeout=30) as client:
        listed = (await client.get(PATH)).json()["connections"]
        assert [each["id"] for each in listed] == ["1003", "1002", "1001"]
        assert [(each["server"] is None, each["client"] is None) for each in listed] == [
            (False, True),
            (True, False),
            (False, False),
        ]
        server, whole = texts["1001", "server"], texts["1001", "client"].splitlines()
        assert {name: listed[2]["server"][name] for name in ("lines", "errors", "warnings")} == {
            "lines": server.count("\n"),
            "errors": server.count("| ERROR |"),
            "warnings": server.count("| WARNING |"),
        }

        async def shown() -> list[Json]:
            logs: list[Json] = []
            parameters = {"side": "client", "limit": "500"}
            while True:
                answer = await client.get(f"{PATH}/1001/logs", params=parameters)
                assert answer.status_code == 200, answer.text
                page = answer.json()
                LogPage.model_validate(page)
                logs += page["logs"]
                if page["next_cursor"] is None:
                    return logs
                parameters["cursor"] = page["next_cursor"]

        async def are_there() -> bool:
            return len(await shown()) >= len(whole)

        await soon(are_there, "every line is there", 60)
        logs = await shown()
        assert [log["metadata"]["line"] for log in logs] == list(range(1, len(whole) + 1)), "each once, in order"
        assert [log["message"] for log in logs] == [line.split(" | ", 2)[2] for line in whole]
        assert {log["service_name"] for log in logs} == {"connections/client"}
        assert logs[0]["metadata"]["time"] == whole[0].split(" | ")[0].replace(" ", "T") + "000Z"
        series = (await client.get(f"{PATH}/1001/series", params={"metric": "latency", "max_points": 50})).json()
        assert series["count"] == sum("latency: " in line for line in whole) > 50
        assert len(series["points"]) <= 50
        point = series["points"][3]
        assert f"latency: {point[1]:.6f}" in whole[point[2] - 1]
        assert point[0] == logs[point[2] - 1]["timestamp"]
        statistics = (await client.get(f"{PATH}/statistics")).json()
        assert statistics["common_errors"][0]["message"].startswith("RenderVideo | Failed to decode frame <num>")
        assert statistics["errors_and_latency"]["n"] == 2
        totals = (await client.get("/api/v1/ledger", params={"start_time": "-10m"})).json()["totals"]
        assert totals["balanced"]


async def test_texts_that_nobody_meant_to_write_harm_nobody(site: Site) -> None:
    """Times at the edge of what there is, numbers past any use, names with what means something to the database."""
    token = (await site.key(*ALL)).text
    for number, username in enumerate(("a%b", "a_b", "axb", "a\\b")):
        await put(site, token, f"/{number}", 201, json=DETAILS | {"username": username})
    for username in ("%", "_", "\\"):
        found = await get(site, token, username=username)
        assert [username in each["username"] for each in found["connections"]] == [True]
    edges = "".join(f"{time} | INFO | m\n" for time in ("0001-01-01 00:00:00+14:00", "9999-12-31 23:59:59-14:00"))
    taken = await send(site, token, "/0/logs/server", text_of(site, "now") + edges)
    assert (taken["lines"], taken["rejected"]) == (1, 0), "they belong to the line before them"
    huge = text_of(site, *(f"latency: {sign}1.7e308" for sign in ("", "-", "", "")), "latency: 1e100")
    for number in range(3):
        await send(site, token, f"/{number}/logs/client", huge)
    of_all = await get(site, token, "/statistics")
    ConnectionStatistics.model_validate(of_all)
    assert of_all["medians"] == [{"metric": "latency", "unit": "s", "median": 1e100, "connections": 3}]
    for number in range(3):
        ConnectionSummary.model_validate(await get(site, token, f"/{number}/summary"))


async def test_figures_that_are_kept_are_shown_to_nobody_who_may_see_less(site: Site) -> None:
    """A text that was sent when its side had another service is of that one still."""
    token = (await site.key(*ALL)).text
    await put(site, token, "/1", 201, json=DETAILS)
    await send(site, token, "/1/logs/server", text_of(site, "frame failed"))
    await site.database.execute("UPDATE connection_sides SET service_name = 'secret'")
    assert (await get(site, token, "/statistics"))["common_errors"]
    less = (await site.key("read:connections/*")).text
    assert (await get(site, less, "/statistics"))["common_errors"] == []


async def test_sources_may_be_names_web_addresses_and_damaged(site: Site, tmp_path: Path) -> None:
    token = (await site.key(*ALL)).text
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "server7.txt").write_text(text_of(site, "by name"))
    (texts / "client_x-1.log").write_text(text_of(site, "by name"))
    (texts / "notes.md").write_text("no log")
    async with serving(site.app) as port, serving(_one_text(text_of(site, "by address").encode())) as web:
        url = f"http://127.0.0.1:{port}"
        environment = {"LOGFEED_API_KEY": token, "LOGFEED_URL": url}

        async def run(source: Path) -> Any:
            return await asyncio.to_thread(
                lambda: CliRunner().invoke(app, ["import-connections", str(source)], env=environment)
            )

        result = await run(texts)
        assert result.exit_code == 0, result.output
        assert {each["id"] for each in (await get(site, token))["connections"]} == {"7", "x-1"}
        manifest = tmp_path / "manifest.jsonl"
        entries = [
            {"connection_id": 8, **DETAILS, "server": f"http://127.0.0.1:{web}/server8.txt", "client": None},
            {
                "connection_id": "9",
                **DETAILS,
                "server": f"http://127.0.0.1:{web}/missing?key=secret",
                "client": "absent.txt",
            },
        ]
        manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        result = await run(manifest)
        assert result.exit_code == 1, result.output
        assert f":{web}/missing: answered 404" in result.output
        assert "secret" not in result.output
        assert "2 connections, 1 texts with 1 lines: added 1" in result.output
        for content in ("[]", '{"connection_id": "a/b"}', "{", json.dumps({"connection_id": "c"})):
            manifest.write_text(content)
            result = await run(manifest)
            assert result.exit_code == 2, result.output
            assert "manifest.jsonl:1:" in result.output


async def test_texts_lie_in_object_storage(
    site: Site, tmp_path: Path, s3_server: S3Server, aws_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (await site.key(*ALL)).text
    bucket = s3_server.make_bucket()
    (tmp_path / "text").write_text(text_of(site, "one", "two failed"))
    store = make_object_store(ObjectSettings(url=f"s3://{bucket}", endpoint=s3_server.endpoint))
    await store.put("texts/server1.txt", tmp_path / "text")
    await store.close()
    manifest = tmp_path / "manifest.jsonl"
    places = {"server": f"s3://{bucket}/texts/server1.txt", "client": f"s3://{bucket}/absent"}
    manifest.write_text(json.dumps({"connection_id": 1, **DETAILS, **places}))
    async with serving(site.app) as port:
        environment = {
            "LOGFEED_API_KEY": token,
            "LOGFEED_URL": f"http://127.0.0.1:{port}",
            "LOGFEED_OBJECTS__ENDPOINT": s3_server.endpoint,
        }
        result = await asyncio.to_thread(
            lambda: CliRunner().invoke(app, ["import-connections", str(manifest)], env=environment)
        )
    assert result.exit_code == 1, result.output
    assert f"s3://{bucket}/absent: there is no such object" in result.output.replace("\n", "")
    assert "1 texts with 2 lines: added 2" in result.output
    assert (await get(site, token, "/1"))["server"]["errors"] == 1


async def test_real_texts_are_taken_whole_and_their_figures_are_those_of_their_lines(
    site: Site, shared_data: Path
) -> None:
    token = (await site.key(*ALL)).text
    source = shared_data / "connections"
    texts = {path.stem: path.read_text() for path in sorted(source.glob("*.txt"))}
    lines = sum(text.count("\n") for text in texts.values())
    async with serving(site.app) as port:
        environment = {"LOGFEED_API_KEY": token, "LOGFEED_URL": f"http://127.0.0.1:{port}"}
        command = ["import-connections", str(source), "--time", "shift"]
        for added in (lines, 0):
            result = await asyncio.to_thread(lambda: CliRunner().invoke(app, command, env=environment))
            assert result.exit_code == 0, result.output
            expected = f"3 connections, 4 texts with {lines:,} lines: added {added:,}, filtered 0, rejected 0; 0 texts"
            assert expected in result.output
    labels = {
        "latency": ("client", "server", r"latency: ([\d.]+)"),
        "decode_time": ("client", "", r"Avg Decode Time: ([\d.]+)"),
        "encode_time": ("", "server", r"Average Encode Time: ([\d.]+)"),
        "encode_size": ("", "server", r"Average Encode Size: ([\d.]+)"),
    }
    for name, text in texts.items():
        side, connection_id = name[:6], name[6:]
        summary = await get(site, token, f"/{connection_id}/summary")
        ConnectionSummary.model_validate(summary)
        assert {each: summary[side][each] for each in ("lines", "errors", "warnings")} == {
            "lines": text.count("\n"),
            "errors": len(re.findall(r"\| (?:ERROR|CRITICAL|FATAL) \|", text)),
            "warnings": text.count("| WARNING |"),
        }
        found = {each["metric"]: (each["count"], each["median"]) for each in summary["medians"] if each["side"] == side}
        wanted = {}
        for metric, (*sides, pattern) in labels.items():
            values = [float(value) for value in re.findall(pattern, text)] if side in sides else []
            if values:
                wanted[metric] = (len(values), pytest.approx(statistics.median(values), rel=1e-9))
        assert found == wanted
        assert found
    by_user = await get(site, token, username="ADA")
    assert [each["id"] for each in by_user["connections"]] == ["1002", "1001"]


def _one_text(text: bytes) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        status = 200 if scope["path"] == "/server8.txt" else 404
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": text if status == 200 else b""})

    return application


# --- the database, of both profiles -------------------------------------------------------------------------------


@pytest.fixture(params=["native", "timescale"])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, application_name="connections test")
    await database.open()
    yield database
    await database.close()


NOW_US = 1_800_000_000_000_000


def texts_in(database: Database, **limits: int) -> ConnectionTexts:
    return ConnectionTexts(database, **({"kept_max": 10, "retention_days": 1, "error_kinds_max": 2} | limits))


async def test_a_text_moves_only_from_where_it_stands(database: Database) -> None:
    texts = texts_in(database)
    assert await texts.state("c", Side.SERVER) is None
    assert await texts.put("c", ConnectionDetails("ada", "", "", NOW_US), now_us=NOW_US)
    await asyncio.gather(*(texts.begin("c", Side.SERVER, service_name="s", shift_us=shift) for shift in (0, 5, 5)))
    state = await texts.state("c", Side.SERVER)
    assert state is not None
    assert (state.is_begun, state.stored_bytes, state.pending) == (True, 0, None)
    other = await texts.state("c", Side.CLIENT)
    assert other is not None
    assert (other.is_begun, other.shift_us) == (False, state.shift_us), "one shift for both"
    pendings = [Pending(end, b"x" * 32, NOW_US) for end in (10, 20)]
    intended = await asyncio.gather(*(texts.intend("c", Side.SERVER, 0, pending) for pending in pendings))
    assert sorted(intended) == [False, True]
    state = await texts.state("c", Side.SERVER)
    assert state is not None
    assert state.pending in pendings
    end = state.pending.end
    figures = Figures(lines=3, errors=2, first_us=NOW_US, last_us=NOW_US + 5)
    figures.error_kinds.update({"a": 5, "b": 1, "c": 3, "d": 2})
    figures.series["latency"] = Series()
    for value in (1.0, 9.0, 2.0):
        figures.series["latency"].add(Point(NOW_US, value, 1))

    async def advance(start: int, end: int) -> bool:
        return await texts.advance(
            "c",
            Side.SERVER,
            start,
            end,
            line_ends=3,
            carried_us=7,
            figures=figures,
            filtered=1,
            rejected=0,
            is_whole=True,
        )

    assert sorted(await asyncio.gather(*(advance(0, end) for _ in range(3)))) == [False, False, True]
    assert not await advance(0, end)
    assert not await advance(end, end + 1), "that was not written down"
    state = await texts.state("c", Side.SERVER)
    assert state is not None
    assert (state.stored_bytes, state.sha256, state.line_ends, state.carried_us) == (end, b"x" * 32, 3, 7)
    assert (state.lines, state.filtered, state.pending) == (3, 1, None)
    await texts.intend("c", Side.SERVER, end, Pending(end + 1, b"y" * 32, NOW_US))
    assert await advance(end, end + 1)
    reader = ConnectionReader(database)
    found = await reader.figures("c", allowed=ALL_SERVICES)
    assert found is not None
    connection, medians, kinds = found
    assert (connection.sides[Side.SERVER].lines, connection.sides[Side.SERVER].errors) == (6, 4)
    assert [(each.points, each.median) for each in medians] == [(6, 2.0)]
    assert kinds == [("a", 10), ("c", 6), ("", 6)]
    assert await reader.figures("c", allowed=ServiceScope(names=frozenset({"t"}))) is not None
    hidden = await reader.one("c", allowed=ServiceScope(names=frozenset({"t"})))
    assert hidden is not None
    assert hidden.sides == {}


async def test_connections_are_bounded_and_go_with_their_logs(database: Database) -> None:
    texts = texts_in(database, kept_max=2)
    details = ConnectionDetails("ada", "", "", NOW_US)
    assert await texts.put("a", details, now_us=NOW_US - 2)
    assert await texts.put("b", details, now_us=NOW_US)
    with pytest.raises(TooManyConnections):
        await texts.put("c", details, now_us=NOW_US + 1)
    assert await texts.state("c", Side.SERVER) is None
    assert not await texts.put("b", details, now_us=NOW_US + 3)
    await texts.begin("a", Side.SERVER, service_name="s", shift_us=0)
    assert await texts.put("c", details, now_us=NOW_US + 86_400_000_000)
    assert await texts.state("a", Side.SERVER) is None
    assert await texts.state("b", Side.SERVER) is not None


@pytest.mark.parametrize("kept", ["connections", "experiments"])
async def test_what_is_changed_as_it_goes_stays_and_holds_nobody_up(database: Database, kept: str) -> None:
    """Who makes a new one takes away what is too old, but for what somebody is changing at this moment."""
    old_us, details = NOW_US - 5 * 86_400_000_000, ConnectionDetails("ada", "", "", NOW_US)
    connections = texts_in(database)
    experiments = ExperimentStore(database, kept_max=10, retention_days=1)
    table, name, moment = (
        ("connections", "connection_id", "put_at")
        if kept == "connections"
        else ("experiments", "experiment_id", "updated_at")
    )

    async def make(of: str, at_us: int) -> None:
        if kept == "connections":
            assert await connections.put(of, details, now_us=at_us)
        else:
            change = Change(ExperimentStatus.QUEUED)
            await experiments.put(of, lambda _: begun(of, change, "s", now_us=at_us))

    await make("old", old_us)
    async with database.transaction() as connection:
        await connection.execute(
            f"UPDATE {table} SET {moment} = to_timestamp(%s) WHERE {name} = 'old'".encode(), (NOW_US / 1e6,)
        )
        await make("new", NOW_US)
    rows = await database.fetch_all(f"SELECT {name} FROM {table} ORDER BY 1")
    assert [row[0] for row in rows] == ["new", "old"]
