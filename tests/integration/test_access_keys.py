"""API keys as their holders meet them: both services over one real PostgreSQL, access control on."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.requests import HTTPConnection
from structlog.testing import capture_logs

from access import directory
from access.accounts import Accounts
from access.authenticator import AccessControl
from access.errors import AccessUnknown, AccountError, Unauthenticated
from access.settings import AccessSettings
from access.tokens import Claims, new_access_token
from db.database import Database
from runtime.clock import Clock, ManualClock, SystemClock
from schemas.errors import DatabaseUnavailable
from tests.access_site import Site, running, soon
from tests.faults.proxy import DatabaseProxy
from tests.faults.relay import Passing

SHOP = {"service_name": "shop", "message": "m"}


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url) as site:
        yield site


def problem(response: httpx.Response, status: int) -> dict[str, object]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers.get("www-authenticate", "").startswith("Bearer") == (status == 401)
    assert ("retry-after" in response.headers) == (status in (429, 503))
    document: dict[str, object] = response.json()
    assert document["status"] == status
    return document


def a_request(token: str, address: str = "127.0.0.1") -> HTTPConnection:
    headers = [(b"authorization", f"Bearer {token}".encode())]
    return HTTPConnection({"type": "http", "headers": headers, "client": (address, 1)})


async def test_a_key_writes_its_services_and_no_other(site: Site) -> None:
    key = (await site.key("write:shop", "write:pay/*")).text
    assert (await site.ask(key, "POST", "/api/v1/logs", json=SHOP)).status_code == 201
    assert (await site.ask(key, "POST", "/api/v1/logs", json={**SHOP, "service_name": "pay/a"})).status_code == 201
    problem(await site.ask(key, "POST", "/api/v1/logs", json={**SHOP, "service_name": "mail"}), 403)
    problem(await site.ask(key, "POST", "/api/v1/logs", json={"message": "which?"}), 422)
    logs = [SHOP, {**SHOP, "service_name": "mail"}, {**SHOP, "service_name": "pay/b"}]
    batch = (await site.ask(key, "POST", "/api/v1/logs/batch", json=logs)).json()
    assert (batch["accepted"], [item["code"] for item in batch["rejected"]]) == (2, ["not_permitted"])
    problem(await site.ask(key, "GET", "/api/v1/logs"), 403)


async def test_a_key_comes_in_the_headers_of_shippers_that_know_no_bearer(site: Site) -> None:
    key = (await site.key("write:shop")).text

    def packed(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    async def status(authorization: str) -> int:
        async with site.client() as client:
            return (await client.post("/api/v1/logs", json=SHOP, headers={"Authorization": authorization})).status_code

    taken = (
        f"Basic {packed(f'anybody:{key}')}",
        f"Basic {packed(f':{key}')}",
        f"ApiKey {packed(f'1:{key}')}",
        f"ApiKey {key}",
    )
    assert [await status(each) for each in taken] == [201] * 4
    refused = (
        f"Basic {packed(key)}",  # a name without a password
        f"Basic {packed(f'{key}:')}",
        f"Basic {packed(f'anybody:{key}x')}",
        f"Basic {key}",
        "Basic !",
        "ApiKey ",
        f"Digest {packed(f'anybody:{key}')}",
    )
    assert [await status(each) for each in refused] == [401] * len(refused)


async def test_the_same_body_of_two_keys_is_two_requests(site: Site) -> None:
    """A body that is its own Idempotency-Key is so for whoever sends it alone."""
    keys = [await site.key("write:shop") for _ in range(2)]
    record = {"timeUnixNano": f"{time.time_ns()}", "body": {"stringValue": "m"}}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    body = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]}

    async def reserved(token: str, **headers: str) -> int:
        answer = await site.ask(token, "POST", "/v1/logs", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return len(await site.database.fetch_all("SELECT FROM id_reservations"))

    assert [await reserved(key.text) for key in (*keys, *keys)] == [1, 2, 2, 2]
    basic = base64.b64encode(f"anybody:{keys[0].text}".encode()).decode()
    assert await reserved(keys[0].text, Authorization=f"Basic {basic}") == 2, "it is the key that counts"


async def test_a_key_of_one_service_need_not_name_it(site: Site) -> None:
    key = (await site.key("write:shop")).text
    # The second of each pair is read log by log, since its metadata may stand in for a correlation id.
    for metadata in ({}, {"connection_id": "c"}):
        log = {"message": "m", "metadata": metadata}
        assert (await site.ask(key, "POST", "/api/v1/logs", json=log)).status_code == 201
        batch = [log, {**log, "service_name": None}, {**log, "service_name": ""}, {**log, "service_name": "pay"}]
        answer = (await site.ask(key, "POST", "/api/v1/logs/batch", json=batch)).json()
        assert (answer["accepted"], [item["code"] for item in answer["rejected"]]) == (
            2,
            ["service_name", "not_permitted"],
        )


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic YTpi", "lf_x", "Bearer lf_x", "Bearer " + "x" * 5_000, "Bearer a.b.c"],
)
async def test_who_says_nothing_of_use_is_told_how(site: Site, header: str | None) -> None:
    async with site.client() as client:
        headers = {} if header is None else {"Authorization": header}
        for method, path in (("GET", "/api/v1/logs"), ("POST", "/api/v1/logs")):
            answer = await client.request(method, path, headers=headers)
            assert problem(answer, 401)["type"] == "urn:logfeed:problem:unauthenticated"


async def test_nothing_but_the_whole_key_opens(site: Site) -> None:
    key, other = await site.key("write:*", "read:*"), await site.key("read:*")
    wrong = [
        key.text[:-1] + ("a" if key.text[-1] != "a" else "b"),
        f"lf_{key.prefix}_{other.text[16:]}",
        key.text.upper(),
        key.text + "x",
        key.prefix,
        f"lf_{'a' * 12}_{key.text[16:]}",
    ]
    details = {str(problem(await site.ask(text, "GET", "/api/v1/services"), 401)["detail"]) for text in wrong[:2]}
    assert len(details) == 1, "wrong and unknown are answered alike"
    for text in wrong:
        problem(await site.ask(text, "GET", "/api/v1/services"), 401)
    async with site.client(key.text) as client:
        twice = [("Authorization", f"Bearer {key.text}"), ("Authorization", f"Bearer {other.text}")]
        problem(await client.get("/api/v1/services", headers=twice), 401)
    headers = {"X-Forwarded-User": "root", "X-Api-Key": key.text, "Cookie": f"key={key.text}"}
    problem(await site.ask(None, "GET", f"/api/v1/services?access_token={key.text}", headers=headers), 401)
    stored = await site.database.fetch_all("SELECT api_keys::text FROM api_keys")
    assert not any(key.text[16:] in text or key.text in text for (text,) in stored)


async def test_a_revoked_key_is_refused_within_seconds_and_a_new_one_let_in(site: Site) -> None:
    key = await site.accounts.create_key("new", ["read:*"], created_by="tests")

    async def status(expected: int) -> bool:
        return (await site.ask(key.text, "GET", "/api/v1/services")).status_code == expected

    await soon(lambda: status(200), "it is known without anybody's help")
    await site.accounts.revoke_key(key.prefix)
    await soon(lambda: status(401), "it is revoked")
    other = await site.key("read:*")
    await site.database.execute("UPDATE api_keys SET grants = '{write:a}' WHERE prefix = %s", (other.prefix,))

    async def may_not_read() -> bool:
        return (await site.ask(other.text, "GET", "/api/v1/services")).status_code == 403

    await soon(may_not_read, "a change by hand acts too")


def _token_of(user_id: int, access: AccessControl, clock: Clock) -> str:
    now_s = clock.now_us() // 1_000_000
    return new_access_token(Claims(user_id, "s" * 22), access.directory.token_secret, now_s=now_s, lives_s=60)


async def test_a_key_and_a_user_that_were_made_elsewhere_are_let_in_at_once_and_guesses_cost_little(
    native_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    class Counted(Database):
        async def fetch_one(self, *arguments: Any, **options: Any) -> Any:
            nonlocal asked
            asked += 1
            return await super().fetch_one(*arguments, **options)

    monkeypatch.setattr(directory, "_ASK_EVERY_S", 3600.0)  # nothing is learnt by the way
    async with running(native_url) as site:
        database = Counted(native_url, application_name="access test", connections_max=2, wait_s=5)
        await database.open()
        clock = SystemClock()
        elsewhere = AccessControl(AccessSettings(), database, clock)
        await elsewhere.open()
        try:
            keys = [await site.accounts.create_key("k", [f"write:s{n}"], created_by="tests") for n in range(3)]
            entered = await asyncio.gather(*(elsewhere.authenticate(a_request(key.text)) for key in keys))
            assert [principal.may_write.permits(f"s{n}") for n, principal in enumerate(entered)] == [True] * 3
            user_id = await site.user("ann", "read:shop")
            token = _token_of(user_id, elsewhere, clock)
            assert (await elsewhere.authenticate(a_request(token))).may_read.permits("shop")
            before, began_s = asked, time.monotonic()
            guesses = [f"lf_{'a' * 12}_{number:043}" for number in range(500)]
            answers = await asyncio.gather(
                *(elsewhere.authenticate(a_request(guess)) for guess in guesses), return_exceptions=True
            )
            assert all(isinstance(answer, Unauthenticated) for answer in answers)
            assert asked - before <= 2 + (time.monotonic() - began_s) / 0.1
        finally:
            await elsewhere.close()
            await database.close()


async def test_a_key_that_somebody_deleted_is_gone_with_the_next_full_reading(native_url: str) -> None:
    async with running(native_url) as site:
        key = await site.key("read:*")
        await site.database.execute("DELETE FROM api_keys")
        await site.access.directory.load()
        problem(await site.ask(key.text, "GET", "/api/v1/services"), 401)


@pytest.mark.parametrize(
    "change",
    [
        "networks = '{10.0.0.1/8}'",
        "networks = '{here}'",
        "networks = '{NULL}'",
        "grants = '{NULL}'",
        "expires_at = '-infinity'",
    ],
)
async def test_a_key_that_somebody_spoilt_by_hand_opens_nothing_and_changes_go_on_acting(
    site: Site, change: str
) -> None:
    spoilt, revoked = await site.key("read:*"), await site.key("read:*")
    await site.database.execute(f"UPDATE api_keys SET {change} WHERE prefix = %s", (spoilt.prefix,))

    async def is_refused(token: str) -> bool:
        return (await site.ask(token, "GET", "/api/v1/services")).status_code in (401, 403)

    await soon(lambda: is_refused(spoilt.text), "what cannot be read grants nothing")
    await site.accounts.revoke_key(revoked.prefix)
    await soon(lambda: is_refused(revoked.text), "it was revoked")


async def test_a_key_without_end_may_say_so(site: Site) -> None:
    key = await site.key("read:*")
    await site.database.execute("UPDATE api_keys SET expires_at = 'infinity' WHERE prefix = %s", (key.prefix,))
    await site.access.directory.load()
    assert (await site.ask(key.text, "GET", "/api/v1/services")).status_code == 200


async def test_revoking_acts_again_after_the_tables_were_gone(site: Site) -> None:
    key = await site.key("read:*")
    with capture_logs() as said:

        async def has_failed() -> bool:
            return any(each["event"] == "who may what cannot be refreshed" for each in said)

        await site.database.execute(
            "ALTER TABLE access_version RENAME TO elsewhere"
        )  # as a backup that comes back does
        await soon(has_failed, "it cannot be read")
    await site.database.execute("ALTER TABLE elsewhere RENAME TO access_version")
    await site.accounts.revoke_key(key.prefix)

    async def is_refused() -> bool:
        return (await site.ask(key.text, "GET", "/api/v1/services")).status_code == 401

    await soon(is_refused, "it was revoked")


async def test_an_expired_key_says_so_to_whoever_has_it(site: Site) -> None:
    key = await site.key("read:*", expires_at=datetime.now(UTC) + timedelta(seconds=1))

    async def is_expired() -> bool:
        return (await site.ask(key.text, "GET", "/api/v1/services")).status_code == 401

    await soon(is_expired, "it expires")
    assert "expired" in str(problem(await site.ask(key.text, "GET", "/api/v1/services"), 401)["detail"])


async def test_a_key_of_a_network_opens_nowhere_else_whatever_a_header_says(site: Site) -> None:
    key = (await site.key("read:*", networks=["10.0.0.0/8", "2001:db8::/32"])).text
    for address, status in (
        ("10.1.2.3", 200),
        ("2001:db8::7", 200),
        ("::ffff:10.1.2.3", 200),
        ("11.0.0.1", 403),
        ("127.0.0.1", 403),
        ("nowhere", 403),
    ):
        async with site.client(key, address=address) as client:
            answer = await client.get("/api/v1/services", headers={"X-Forwarded-For": "10.1.2.3"})
            assert answer.status_code == status, address


@pytest.mark.parametrize(
    ("name", "grants", "networks"),
    [
        ("", ["read:*"], []),
        ("a\nb", ["read:*"], []),
        ("x" * 101, ["read:*"], []),
        ("a", [], []),
        ("a", ["read:*"], ["10.0.0.1/8"]),
        ("a", ["read:*"], ["here"]),
    ],
)
async def test_a_key_that_means_nothing_is_not_made(
    site: Site, name: str, grants: list[str], networks: list[str]
) -> None:
    with pytest.raises(AccountError):
        await site.accounts.create_key(name, grants, created_by="tests", networks=networks)
    with pytest.raises(AccountError):
        await site.accounts.revoke_key("no-such-key")
    assert await site.accounts.keys() == []


async def test_known_keys_outlive_the_database_for_a_bounded_time(native_url: str) -> None:
    async with DatabaseProxy(native_url, application=b"nobody") as proxy:
        direct = Database(native_url, application_name="test")
        await direct.open()
        through = Database(proxy.url, application_name="test", wait_s=1)
        await through.open()
        key = await Accounts(direct).create_key("k", ["write:shop"], created_by="tests")
        clock = ManualClock(SystemClock().now_us())
        access = AccessControl(AccessSettings(offline_s=600), through, clock)
        with pytest.raises(AccessUnknown):
            await access.authenticate(a_request(key.text))
        await access.open()
        assert (await access.authenticate(a_request(key.text))).may_write.permits("shop")
        proxy.turn(Passing.CUT)
        with pytest.raises(DatabaseUnavailable):
            await access.directory.refresh()
        clock.advance(599)
        assert (await access.authenticate(a_request(key.text))).may_write.permits("shop")
        with pytest.raises(Unauthenticated):
            await access.authenticate(a_request(key.text[:-1] + ("b" if key.text[-1] == "a" else "a")))
        with pytest.raises(AccessUnknown):  # it may have been made since
            await access.authenticate(a_request("lf_" + "a" * 12 + "_" + "b" * 43))
        clock.advance(2)
        with pytest.raises(AccessUnknown):
            await access.authenticate(a_request(key.text))
        await access.close()
        await asyncio.gather(direct.close(), through.close())


async def test_letting_in_costs_a_few_microseconds(site: Site) -> None:
    key = await site.key(*[f"write:s{number}" for number in range(20)])
    request = a_request(key.text)
    best_s = float("inf")
    for _ in range(20):
        began_s = time.perf_counter()
        for _ in range(200):
            await site.access.authenticate(request)
        best_s = min(best_s, (time.perf_counter() - began_s) / 200)
    print(f"{best_s * 1e6:.1f} µs")
    assert best_s < 20e-6, "about 4 µs; twice the promise, for busy machines"
