"""Hosts over HTTP: registered by keys of their names, their files read by who may, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import msgspec
import pytest

from schemas.hosts import HostFileList, HostList, HostRegistered
from schemas.scope import AUDIT_SERVICE
from tests.access_site import PASSWORD, Site, running, soon
from tests.app_server import serving
from tests.commands import logfeed
from tests.host_agent import HostAgent, host_agent, problem, whole
from tests.integration.test_audit import published

Json = dict[str, Any]
PATH: Final = "/api/v1/hosts"
FILES: Final = {
    "nginx/access.log": ("nginx", [f"GET /{n} {200 + 300 * (n % 2)}" for n in range(10)]),
    "shop/app.log": ("shop", ["paid", "payment failed"]),
    "shop/app b%2F.log": ("shop", ["odd"]),
}
TRACE: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url, hosts={"check_s": 0.2, "connect_s": 0.5}) as site:
        yield site


@asynccontextmanager
async def registered(site: Site, name: str = "web-1", **agent: Any) -> AsyncIterator[HostAgent]:
    """An agent that the server has heard of. agent: fields of it."""
    async with host_agent(HostAgent(**{"files": dict(FILES), **agent})) as made:
        await put(site, (await site.key(f"host:{name}")).text, name, made.heartbeat())
        yield made


async def put(site: Site, token: str, name: str, heartbeat: Json, status: int = 200) -> Json:
    answer = await site.ask(token, "PUT", f"{PATH}/{name}", json=heartbeat)
    assert answer.status_code == status, answer.text
    document: Json = answer.json()
    return document


async def get(site: Site, token: str, path: str = "", status: int = 200, **options: Any) -> httpx.Response:
    """options: of httpx."""
    answer = await site.ask(token, "GET", PATH + path, **options)
    assert answer.status_code == status, answer.text
    return answer


def lines_of(answer: httpx.Response) -> tuple[list[str], Json]:
    """Lines, and how it ended."""
    *records, end = map(json.loads, answer.text.splitlines())
    return [record["line"] for record in records], end["end"]


async def test_a_host_belongs_to_the_key_that_registered_it_until_it_is_forgotten(site: Site) -> None:
    said = HostAgent(files=dict(FILES), port=8085).heartbeat()
    first, second = (await site.key("host:web-*")).text, (await site.key("host:web-1", "read:*")).text
    reader, admin = (await site.key("read:shop")).text, (await site.key("admin:*")).text
    made = HostRegistered.model_validate(await put(site, first, "web-1", said))
    assert (made.host, made.heartbeat_s) == ("web-1", 10)
    taken = await put(site, second, "web-1", said, 409)
    assert taken["type"] == "urn:logfeed:problem:host-taken"
    await put(site, first, "web-1", {**said, "version": "0.2.0"})
    for token, name in ((second, "web-2"), (first, "db-1"), (first, "web"), (reader, "web-1"), (admin, "web-1")):
        assert (await put(site, token, name, said, 403))["type"] == "urn:logfeed:problem:not-permitted"
    for token in (second, reader, first):
        assert (await site.ask(token, "DELETE", f"{PATH}/web-1")).status_code == 403
    for _ in range(2):
        assert (await site.ask(admin, "DELETE", f"{PATH}/web-1")).status_code == 204
    await put(site, second, "web-1", said)
    await put(site, first, "web-1", said, 409)


async def test_a_key_that_an_administrator_makes_by_the_api_registers_its_host(site: Site) -> None:
    admin = (await site.key("admin:*")).text
    wanted = {"name": "agent of db-1", "permissions": {"host": ["db-1"], "write": ["postgres"]}}
    made = await site.ask(admin, "POST", "/api/v1/keys", json=wanted)
    assert made.status_code == 201, made.text
    await site.access.directory.refresh()
    await put(site, made.json()["key"], "db-1", HostAgent(port=8085).heartbeat())
    shown = await site.ask(made.json()["key"], "GET", "/api/v1/auth/me")
    assert shown.json()["permissions"] == wanted["permissions"]


async def test_a_heartbeat_that_means_nothing_is_refused(site: Site) -> None:
    token = (await site.key("host:*")).text
    said = HostAgent(port=8085).heartbeat()
    wrong: tuple[Json, ...] = (
        *(
            {"address": address}
            for address in ("http://169.254.169.254", "http://8.8.8.8", "ftp://10.0.0.5", "10.0.0.5")
        ),
        *({"address": address} for address in ("http://u:p@10.0.0.5", "http://10.0.0.5/x", "http://10.0.0.5?a=b", "")),
        *({"token": text} for text in ("", "short", "x" * 44, "ä" * 43, "x" * 42 + "\n", None)),
        *({"version": text} for text in ("", "x" * 51, "0.1 0", "\x00")),
        *({"services": services} for services in (["a b"], ["x" * 101], ["a"] * 1001, "nginx", [None])),
        {"more": 1},
    )
    for changes in wrong:
        answer = await put(site, token, "web-1", {**said, **changes}, 422)
        assert next(iter(changes)) in answer["detail"]
    for name in ("-web", "w%20b", "w%00", "x" * 101, "%C3%A4"):
        await put(site, token, name, said, 422)
    headers = {"Content-Type": "text/plain"}
    refused = await site.ask(token, "PUT", f"{PATH}/web-1", content=b"x" * 100_000, headers=headers)
    assert refused.status_code == 422
    assert (await get(site, (await site.key("admin:*")).text)).json()["hosts"] == []


async def test_hosts_are_kept_up_to_a_number(native_url: str) -> None:
    async with running(native_url, hosts={"kept_max": 2}) as site:
        token = (await site.key("host:*")).text
        said = HostAgent(port=8085).heartbeat()
        answers = await asyncio.gather(
            *(site.ask(token, "PUT", f"{PATH}/web-{n % 4}", json=said) for n in range(12)),
        )
        kept = {n % 4 for n, answer in enumerate(answers) if answer.status_code == 200}
        assert len(kept) == 2
        assert {answer.status_code for answer in answers} == {200, 409}
        refused = next(answer for answer in answers if answer.status_code == 409)
        assert refused.json()["type"] == "urn:logfeed:problem:too-many-hosts"


async def test_hosts_are_shown_with_the_services_that_may_be_read_and_with_nothing_that_opens_them(site: Site) -> None:
    key = (await site.key("host:*")).text
    hosts = {"a": ["shop"], "b": ["nginx", "shop"], "c": [], "d": ["other"], "e": ["nginx"]}
    agents = {name: HostAgent(port=8085) for name in hosts}
    for name, services in hosts.items():
        await put(site, key, name, agents[name].heartbeat(services=services))
    await site.database.execute("UPDATE hosts SET last_seen = last_seen - interval '31 s' WHERE host = 'b'")
    everything = await get(site, (await site.key("admin:*")).text)
    shown = HostList.model_validate_json(everything.content)
    assert {host.host: host.services for host in shown.hosts} == hosts
    assert [host.status.value for host in shown.hosts] == ["up", "away", "up", "up", "up"]
    assert all(agent.token not in everything.text for agent in agents.values())
    assert "8085" not in everything.text
    reader = (await site.key("read:shop", "read:nginx*")).text
    pages, cursor = [], None
    while True:
        page = (await get(site, reader, params={"limit": 1} | ({} if cursor is None else {"cursor": cursor}))).json()
        pages.append({host["host"]: host["services"] for host in page["hosts"]})
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert pages == [{"a": ["shop"]}, {"b": ["nginx", "shop"]}, {"e": ["nginx"]}]
    assert (await get(site, (await site.key("read:nobody")).text)).json() == {"hosts": [], "next_cursor": None}
    await get(site, reader, "?cursor=a%00", 400)
    first = (await get(site, reader, "?limit=1")).json()["next_cursor"]
    await get(site, (await site.key("read:shop")).text, f"?cursor={first}", 400)
    await get(site, reader, "?cursor=a", 400)
    away = await get(site, reader, "/b/files", 503)
    assert away.json()["type"] == "urn:logfeed:problem:host-away"
    assert int(away.headers["retry-after"]) == 10


async def test_files_are_read_by_who_may_read_their_service(site: Site) -> None:
    async with registered(site) as agent:
        shop = await site.key("read:shop")
        both, nobody = (await site.key("read:shop", "read:ngi*")).text, (await site.key("read:other")).text
        found = HostFileList.model_validate_json((await get(site, both, "/web-1/files")).content)
        assert [file.name for file in found.files] == sorted(FILES)
        found = HostFileList.model_validate_json((await get(site, shop.text, "/web-1/files")).content)
        assert {file.service_name for file in found.files} == {"shop"}
        # Nobody learns by a name that such a host is there, or what its agent says.
        gone = (await get(site, nobody, "/web-2/files", 404)).json()["detail"].replace("web-2", "web-1")
        asked_before = len(agent.asked)
        for path in ("/web-1/files", "/web-1/files/nginx/access.log", "/web-1/files/no/such.log"):
            assert (await get(site, nobody, path, 404)).json()["detail"] == gone
        assert len(agent.asked) == asked_before
        await site.database.execute("UPDATE hosts SET last_seen = last_seen - interval '1 minute'")
        assert (await get(site, nobody, "/web-1/files", 404)).json()["detail"] == gone
        await site.database.execute("UPDATE hosts SET last_seen = clock_timestamp()")
        headers = {"traceparent": TRACE}
        answer = await get(site, shop.text, "/web-1/files/shop/app%20b%252F.log", headers=headers)
        assert lines_of(answer)[0] == ["odd"]
        asked = agent.asked[-1]
        assert asked.path == "/files/shop/app b%2F.log"
        assert json.loads(asked.parameters["scope"][0]) == {"names": ["shop"], "prefixes": []}
        assert asked.header("x-logfeed-subject") == f"key:{shop.prefix}"
        assert asked.header("traceparent") == TRACE
        assert (agent.asked[-2].header("traceparent") or "").startswith("00-")
        for token in (shop.text, nobody):
            await get(site, token, "/web-1/files/nginx/access.log", 404)
        assert (await get(site, both, "/web-1/files/nginx/access.log?n=1")).text.count("\n") == 2
        await get(site, both, "/web-1/files/nginx/other.log", 404)
        await get(site, both, "/web-2/files", 404)
        assert not any(shop.text in each.head or both in each.head for each in agent.asked)
        # What the agent would say for somebody else is left out here too.
        agent.raw = _lying()
        assert (await get(site, shop.text, "/web-1/files")).json()["files"] == []


def _lying() -> bytes:
    file = {"name": "x", "service_name": "nginx", "bytes": 1, "modified_at": "2026-01-01T00:00:00Z"}
    return whole({"files": [file], "next_cursor": None, "errors": []})


async def test_lines_come_newest_first_and_end_as_the_agent_says(site: Site) -> None:
    async with registered(site) as agent:
        token = (await site.key("read:*")).text
        path = "/web-1/files/nginx/access.log"
        answer = await get(site, token, path, params={"keyword": [" 500", "GET"], "n": 3, "case": "true", "max_s": 9})
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert answer.headers["cache-control"] == "no-store"
        lines, end = lines_of(answer)
        assert lines == ["GET /9 500", "GET /7 500", "GET /5 500"]
        assert end == {"status": "complete", "lines": 3, "scanned_bytes": 345, "error": None}
        asked = dict(agent.asked[-1].parameters)
        del asked["scope"]
        assert asked == {"keyword": [" 500", "GET"], "n": ["3"], "case": ["true"], "max_s": ["9"]}
        text = await get(site, token, path, params={"n": 2, "format": "text", "regex": "."})
        assert text.headers["content-type"] == "text/plain; charset=utf-8"
        assert text.text == "GET /9 500\nGET /8 200\n#logfeed end status=complete lines=2\n"
        for wrong in (
            "n=0",
            "n=x",
            "case=yes",
            "follow=1",
            "format=xml",
            "max_s=100000",
            "keyword=",
            "scope={}",
            "q=a",
        ):
            assert wrong.partition("=")[0] in (await get(site, token, f"{path}?{wrong}", 422)).json()["detail"]
        for name in ("", "/", "a//b", "%2e%2e/metrics", "nginx/%2e%2e/%2e%2e/metrics", "a%0Ab", "x" * 1025, "%2e/a"):
            asked_before = len(agent.asked)
            answer = await site.ask(token, "GET", f"{PATH}/web-1/files/{name}")
            assert answer.status_code in (404, 422), name
            assert len(agent.asked) == asked_before, name


async def test_who_read_which_file_is_written_down(site: Site) -> None:
    async with registered(site):
        key = await site.key("read:shop")
        await get(site, key.text, "/web-1/files")
        await get(site, key.text, "/web-1/files/shop/app.log?keyword=paid")
        found: list[Json] = []

        async def are_there() -> bool:
            lines = [line for line in await published(site) if line.service_name == AUDIT_SERVICE]
            found[:] = [msgspec.json.decode(line.metadata) for line in lines]
            return len(found) >= 3

        await soon(are_there, "they are published")
        shown = [(each["path"].removeprefix(PATH), each["rows"], each.get("phase"), each["subject"]) for each in found]
        who = f"key:{key.prefix}"
        file = "/web-1/files/shop/app.log"
        assert shown == [("/web-1/files", 2, None, who), (file, 0, "begin", who), (file, 1, "end", who)]
        assert found[1]["question"] == "keyword=paid"


async def test_a_file_is_followed_until_the_reader_goes_and_then_the_agents_answer_ends(site: Site) -> None:
    async with registered(site) as agent, serving(site.app) as port:
        headers = {"Authorization": f"Bearer {(await site.key('read:shop')).text}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
            asked = client.stream("GET", f"{PATH}/web-1/files/shop/app.log?follow=true")
            async with asked as answer:
                lines = answer.aiter_lines()
                assert [json.loads(await anext(lines))["line"] for _ in range(2)] == ["paid", "payment failed"]
                agent.written.put_nowait("refunded")
                assert json.loads(await anext(lines))["line"] == "refunded"
                assert agent.streams == 1

        async def has_ended() -> bool:
            return agent.streams == 0

        await soon(has_ended, "the agent goes on although nobody reads")


async def test_a_key_that_is_revoked_reads_no_more_and_is_told(site: Site) -> None:
    async with registered(site) as agent, serving(site.app) as port:
        key = await site.key("read:shop")
        headers = {"Authorization": f"Bearer {key.text}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
            asked = client.stream("GET", f"{PATH}/web-1/files/shop/app.log?follow=true")
            async with asked as answer:
                lines = answer.aiter_lines()
                assert [json.loads(await anext(lines))["line"] for _ in range(2)] == ["paid", "payment failed"]
                await site.accounts.revoke_key(key.prefix)
                async with asyncio.timeout(30):
                    end = json.loads(await anext(lines))["end"]
                assert end["status"] == "error"
                assert "revoked" in end["error"]
                with pytest.raises(StopAsyncIteration):
                    await anext(lines)

        async def has_ended() -> bool:
            return agent.streams == 0

        await soon(has_ended, "the agent goes on although nobody may read")


async def test_a_session_that_ends_takes_what_was_begun_in_it_along(site: Site) -> None:
    async with registered(site), serving(site.app) as port:
        await site.user("ann", "read:shop")
        login = {"name": "ann", "password": PASSWORD}
        tokens = [
            (await site.ask(None, "POST", "/api/v1/auth/login", json=login)).json()["access_token"] for _ in range(2)
        ]
        headers = {"Authorization": f"Bearer {tokens[0]}"}
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False, timeout=30) as client:
            asked = client.stream("GET", f"{PATH}/web-1/files/shop/app.log?follow=true")
            async with asked as answer:
                lines = answer.aiter_lines()
                assert [json.loads(await anext(lines))["line"] for _ in range(2)] == ["paid", "payment failed"]
                signed_out = await site.ask(tokens[1], "DELETE", "/api/v1/users/ann/sessions")
                assert signed_out.status_code == 204
                async with asyncio.timeout(30):
                    end = json.loads(await anext(lines))["end"]
                assert end["status"] == "error"
                assert "session ended" in end["error"]


async def test_an_answer_that_is_cut_on_the_way_is_told_apart(site: Site) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    line = b'{"line":"one","offset":0}\n'
    async with registered(site) as agent:
        token = (await site.key("read:*")).text
        for rest in (
            b"%x\r\n%b\r\n" % (len(line), line),
            b"%x\r\n%b" % (len(line) + 9, line),
            b"1a\r\n" + line + b"\r\n0\r\n\r\n",
        ):
            agent.raw = head + rest
            lines, end = lines_of(await get(site, token, "/web-1/files/nginx/access.log"))
            assert lines == ["one"]
            assert (end["status"], end["error"]) == ("error", "the agent's answer was cut")


async def test_trouble_with_an_agent_is_told_and_goes_no_further(site: Site) -> None:
    async with registered(site) as agent:
        token = (await site.key("read:*")).text
        for path in ("/web-1/files", "/web-1/files/nginx/access.log"):
            for raw, status in (
                (problem(401, "unknown token"), 503),
                (problem(429, "busy"), 503),
                (problem(422, "n: too many"), 422),
                (problem(500, "no"), 502),
                (b"HTTP/1.1 302 Found\r\nLocation: /livez\r\nContent-Length: 0\r\n\r\n", 502),
                (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi", 502),
            ):
                agent.raw = raw
                answer = await get(site, token, path, status)
                assert answer.headers["content-type"] == "application/problem+json"
                assert (status == 503) == ("retry-after" in answer.headers)
            agent.raw, agent.is_silent = None, True
            await get(site, token, path, 504)
            agent.is_silent = False
    await get(site, token, "/web-1/files", 502)


async def test_nobody_has_more_questions_to_hosts_than_their_share(native_url: str) -> None:
    async with running(native_url, hosts={"streams_max": 2, "subject_streams_max": 1}) as site:
        async with registered(site) as agent, serving(site.app) as port:
            tokens = [(await site.key("read:shop")).text for _ in range(3)]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

                async def status(token: str, path: str = "/web-1/files") -> int:
                    headers = {"Authorization": f"Bearer {token}"}
                    return (await client.get(PATH + path, headers=headers)).status_code

                def following(token: str) -> Any:  # httpx has no name for it
                    headers = {"Authorization": f"Bearer {token}"}
                    return client.stream("GET", f"{PATH}/web-1/files/shop/app.log?follow=true", headers=headers)

                async with following(tokens[0]) as first:
                    assert first.status_code == 200
                    assert await status(tokens[0]) == 429
                    assert await status(tokens[1]) == 200
                    async with following(tokens[1]) as second:
                        assert second.status_code == 200
                        assert await status(tokens[2]) == 503
                        assert await status(tokens[2], "") == 200, "a list of hosts asks no agent"

                async def is_free() -> bool:
                    return agent.streams == 0 and await status(tokens[0]) == 200

                await soon(is_free, "a place is free again")


async def test_the_commands_list_hosts_and_files_and_show_lines(site: Site) -> None:
    async with registered(site) as agent, serving(site.app) as port:
        agent.files["nginx/access.log"] = ("nginx", ["one", "\x1b[31mtwo"])
        tokens = {name: (await site.key(grant)).text for name, grant in (("all", "admin:*"), ("shop", "read:shop"))}

        async def run(*arguments: str, who: str = "all") -> tuple[int, str, str]:
            options = ("--url", f"http://127.0.0.1:{port}", "--api-key", tokens[who])
            done = await asyncio.to_thread(logfeed, "hosts", *arguments, *options)
            return done.returncode, done.stdout, done.stderr

        code, shown, _ = await run()
        assert (code, shown.split()[:2]) == (0, ["web-1", "up"])
        assert shown.split()[-2:] == ["nginx", "shop"]
        code, shown, _ = await run("files", "web-1", who="shop")
        assert (code, [line.split()[2] for line in shown.splitlines()]) == (0, ["shop", "shop"])
        code, shown, _ = await run("cat", "web-1", "nginx/access.log", "-n", "5")
        assert (code, shown) == (0, "\\x1b[31mtwo\none\n")
        code, _, told = await run("cat", "web-1", "nginx/access.log", who="shop")
        assert (code, "There is no such file" in told) == (2, True)
        agent.raw = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: 9\r\n\r\n{}"
        code, shown, told = await run("cat", "web-1", "nginx/access.log")
        assert (code, shown, told) == (3, "", "not all was looked at: the agent's answer was cut\n")
        assert (await run("forget", "web-1"))[:2] == (0, "web-1 forgotten\n")
