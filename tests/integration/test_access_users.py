"""Logging in as people meet it, over one real PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest

from access.passwords import hash_password
from db.database import connect
from tests.access_site import PASSWORD, Site, holding, running, soon, waiting

COOKIE = "logfeed_refresh"


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url) as site:
        yield site


@pytest.fixture
async def client(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with site.client() as client:
        yield client


async def log_in(client: httpx.AsyncClient, name: str = "ann", password: str = PASSWORD) -> httpx.Response:
    return await client.post("/api/v1/auth/login", json={"name": name, "password": password})


async def refresh(client: httpx.AsyncClient, token: str | None = None) -> httpx.Response:
    if token is None:
        return await client.post("/api/v1/auth/refresh")
    client.cookies.clear()
    return await client.post("/api/v1/auth/refresh", headers={"Cookie": f"{COOKIE}={token}"})


def token_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    token: str = response.json()["access_token"]
    return token


async def test_a_user_logs_in_and_reads_what_is_theirs(site: Site, client: httpx.AsyncClient) -> None:
    await site.put([{"service_name": "pay/a"}, {"service_name": "shop"}])
    user_id = await site.user("ann", "read:pay/*")
    answer = await log_in(client)
    token = token_of(answer)
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 600)
    assert answer.headers["cache-control"] == "no-store"
    cookie = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
    assert (cookie["httponly"], cookie["secure"], cookie["samesite"].lower()) == (True, True, "strict")
    assert cookie["path"] == "/api/v1/auth"
    page = (await site.ask(token, "GET", "/api/v1/logs")).json()
    assert [log["service_name"] for log in page["logs"]] == ["pay/a"]
    assert (
        await site.ask(token, "POST", "/api/v1/logs", json={"service_name": "pay/a", "message": "m"})
    ).status_code == 403
    me = (await site.ask(token, "GET", "/api/v1/auth/me")).json()
    assert me == {"subject": f"user:{user_id}", "name": "ann", "permissions": {"read": ["pay/*"]}}
    stored = str(await site.database.fetch_all("SELECT sessions::text FROM sessions"))
    assert cookie.value.partition(".")[2] not in stored
    assert cookie.value.partition(".")[2] not in token


async def test_wrong_names_and_passwords_are_answered_alike_and_as_slowly(
    site: Site, client: httpx.AsyncClient
) -> None:
    await site.user("ann", "read:*")
    await site.user("gone", "read:*")
    await site.accounts.disable_user("gone")
    answers, seconds = [], []
    for name, password in (("ann", "wrong password"), ("nobody", PASSWORD), ("gone", PASSWORD), ("ann\0", PASSWORD)):
        began_s = time.perf_counter()
        answers.append(await log_in(client, name, password))
        seconds.append(time.perf_counter() - began_s)
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert all("set-cookie" not in answer.headers for answer in answers)
    assert min(seconds) > 0.02, "each costs a hash"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "application/json"),
        (b"{}", "application/json"),
        (b'{"name":1,"password":"x"}', "application/json"),
        (b'{"name":"ann","password":""}', "application/json"),
        (b'{"name":"ann","password":"x","admin":true}', "application/json"),
        (b"[" * 5_000, "application/json"),
        (b'{"name":"ann","password":"\xff"}', "application/json"),
        (b'{"name":"ann","password":"' + b"x" * 9_000 + b'"}', "application/json"),
        (b"name=ann&password=x", "application/x-www-form-urlencoded"),
        (b'{"name":"ann","password":"secret words"}', "text/plain"),
    ],
)
async def test_what_is_no_login_is_refused_without_repeating_it(
    client: httpx.AsyncClient, content: bytes, kind: str
) -> None:
    answer = await client.post("/api/v1/auth/login", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 422, answer.text
    assert "secret words" not in answer.text


async def test_guessing_passwords_is_slowed_down(site: Site, client: httpx.AsyncClient) -> None:
    await site.user("ann", "read:*")
    answers = await asyncio.gather(*(log_in(client, "ann", f"wrong guess {n}") for n in range(12)))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(401) == 5
    assert statuses.count(429) == 7
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 429)


async def test_a_refresh_token_is_good_once_and_its_reuse_ends_the_session(
    site: Site, client: httpx.AsyncClient
) -> None:
    await site.user("ann", "read:*")
    first = await log_in(client)
    stolen = client.cookies[COOKIE]
    second = await refresh(client)
    newest = client.cookies[COOKIE]
    assert newest != stolen
    for token in (token_of(first), token_of(second)):
        assert (await site.ask(token, "GET", "/api/v1/services")).status_code == 200
    other = token_of(await log_in(client))
    assert (await refresh(client, stolen)).status_code == 401
    assert (await refresh(client, newest)).status_code == 401, "the session has ended for both"
    for token in (token_of(first), token_of(second)):
        assert (await site.ask(token, "GET", "/api/v1/services")).status_code == 401
    assert (await site.ask(other, "GET", "/api/v1/services")).status_code == 200, "another session goes on"


async def test_of_two_refreshes_at_once_one_wins(site: Site, client: httpx.AsyncClient) -> None:
    await site.user("ann", "read:*")
    await log_in(client)
    cookie = {"Cookie": f"{COOKIE}={client.cookies[COOKIE]}"}
    client.cookies.clear()
    answers = await asyncio.gather(*(client.post("/api/v1/auth/refresh", headers=cookie) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]


@pytest.mark.parametrize("token", ["", "x", ".", "a.b", "\\x00.b", "a" * 5_000])
async def test_what_is_no_refresh_token_is_refused(client: httpx.AsyncClient, token: str) -> None:
    assert (await refresh(client, token)).status_code == 401
    assert (await client.post("/api/v1/auth/logout", headers={"Cookie": f"{COOKIE}={token}"})).status_code == 204


async def test_logging_out_ends_everything_of_the_session(site: Site, client: httpx.AsyncClient) -> None:
    await site.user("ann", "read:*")
    token = token_of(await log_in(client))
    cookie = client.cookies[COOKIE]
    answer = await client.post("/api/v1/auth/logout")
    assert answer.status_code == 204
    assert 'logfeed_refresh=""' in answer.headers["set-cookie"]
    assert (await site.ask(token, "GET", "/api/v1/services")).status_code == 401
    assert (await refresh(client, cookie)).status_code == 401


async def _disable(site: Site) -> None:
    await site.accounts.disable_user("ann")


async def _new_password(site: Site) -> None:
    await site.accounts.set_password("ann", hash_password("another long one"))


async def _no_permissions(site: Site) -> None:
    await site.database.execute("UPDATE users SET grants = '{read:other}' WHERE name = 'ann'")


@pytest.mark.parametrize(("change", "refreshes"), [(_disable, 401), (_new_password, 401), (_no_permissions, 200)])
async def test_changes_of_a_user_act_within_seconds_in_every_process(
    native_url: str, change: Any, refreshes: int
) -> None:
    async with running(native_url) as site, running(native_url, is_first=False) as other, site.client() as client:
        await site.put([{"service_name": "shop"}])
        await site.user("ann", "read:shop")
        token = token_of(await log_in(client))

        async def reads(where: Site) -> bool:
            answer = await where.ask(token, "GET", "/api/v1/logs")
            return answer.status_code == 200 and answer.json()["count"] == 1

        async def reads_not(where: Site) -> bool:
            return not await reads(where)

        await soon(lambda: reads(other), "the other process lets them in")
        await change(site)
        for each in (site, other):
            await soon(lambda each=each: reads_not(each), "it acts")  # type: ignore[misc]  # mypy infers no type for it
        assert (await refresh(client)).status_code == refreshes


async def test_sessions_end_with_their_time(native_url: str) -> None:
    async with running(native_url) as site, site.client() as client:
        await site.user("ann", "read:*")
        await log_in(client)
        await site.database.execute("UPDATE sessions SET refreshed_at = refreshed_at - interval '8 days'")
        assert (await refresh(client)).status_code == 401
        await log_in(client)
        await site.database.execute("UPDATE sessions SET expires_at = clock_timestamp() - interval '2 days'")
        assert (await refresh(client)).status_code == 401
        await log_in(client)
        assert await site.database.fetch_one("SELECT count(*) FROM sessions") == (1,), "old ones are removed"


async def test_no_session_of_the_old_password_outlives_its_change(
    site: Site, client: httpx.AsyncClient, native_url: str
) -> None:
    await site.user("ann", "read:*")
    new_hash = hash_password("another battery staple")
    other = await connect(native_url, application_name="changes a password")
    login = None
    try:
        await other.execute("BEGIN")
        # What set_password does, while somebody logs in between its statements and its commit.
        await other.execute("UPDATE users SET password_hash = %s WHERE name = 'ann'", (new_hash,))
        await other.execute("UPDATE sessions SET ended_at = now(), ended_why = 'password' WHERE ended_at IS NULL")
        login = asyncio.create_task(log_in(client))

        async def waits_or_is_in() -> bool:
            assert login is not None
            query = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%INTO sessions%%'"
            return login.done() or bool(await site.database.fetch_all(query))

        await soon(waits_or_is_in, "it begins a session")
        await other.execute("COMMIT")
        answer = await login
    finally:
        await other.close()
        if login is not None:
            login.cancel()
    assert answer.status_code == 401, "the password that it was given is not the user's any more"
    assert await site.database.fetch_all("SELECT FROM sessions") == []


async def test_attempts_that_nobody_judged_lock_nobody_out(site: Site, client: httpx.AsyncClient) -> None:
    await site.user("ann", "read:*")
    checks = site.access.sessions.passwords
    waiting, checks._waiting = checks._waiting, 1_000
    try:
        answers = [await log_in(client) for _ in range(8)]
    finally:
        checks._waiting = waiting
    assert {answer.status_code for answer in answers} == {429}
    assert "at this moment" in answers[-1].json()["detail"], "the server is busy, nobody failed"
    assert (await log_in(client)).status_code == 200


async def test_who_refreshes_without_end_keeps_no_question_out(site: Site, client: httpx.AsyncClient) -> None:
    (log_id,) = await site.put([{"service_name": "shop"}])
    reader = (await site.key("read:shop")).text
    path = f"/api/v1/logs/{log_id}"
    assert (await site.ask(reader, "GET", path)).status_code == 200
    strangers = []
    async with holding(site, "LOCK TABLE sessions") as holder:
        for number in range(40):
            verb = ("refresh", "logout")[number % 2]
            cookie = {"Cookie": f"{COOKIE}={number:032x}.{'x' * 43}"}
            strangers.append(asyncio.create_task(site.ask(None, "POST", f"/api/v1/auth/{verb}", headers=cookie)))
        await waiting(holder, 2)
        fresh = await site.ask(reader, "GET", path, headers={"Cache-Control": "no-cache"})
        assert fresh.status_code == 200, fresh.text
    answers = await asyncio.gather(*strangers)
    assert {answer.status_code for answer in answers} <= {401, 204}
