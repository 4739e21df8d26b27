"""Keys and users over HTTP: who may change what, what is told once, and what nobody can do by accident."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import msgspec
import pytest

from schemas.accounts import KeyList, MadeKey, SessionList, UserList, UserModel
from schemas.scope import AUDIT_SERVICE
from tests.access_site import PASSWORD, Site, holding, running, soon, waiting
from tests.integration.test_audit import published

ANOTHER = "another battery staple"


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url) as site:
        yield site


async def logged_in(site: Site, name: str, password: str = PASSWORD) -> str:
    answer = await site.ask(None, "POST", "/api/v1/auth/login", json={"name": name, "password": password})
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


async def admin(site: Site) -> str:
    """A token of the user `root`."""
    await site.user("root", "admin:*")
    return await logged_in(site, "root")


def problem(answer: httpx.Response, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert all(word in answer.json()["detail"] for word in words), answer.text


async def test_a_key_is_made_shown_once_used_and_revoked(site: Site) -> None:
    token = await admin(site)
    soon_over = (datetime.now(UTC) + timedelta(days=90)).isoformat()
    wanted = {
        "name": "shop-production",
        "permissions": {"write": ["shop", "pay/*"], "read": ["shop"]},
        "expires_at": soon_over,
        "networks": ["127.0.0.0/8"],
        "logs_per_s": 5000,
        "bytes_per_s": "none",
        "burst_s": 10,
    }
    made = await site.ask(token, "POST", "/api/v1/keys", json=wanted)
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    MadeKey.model_validate(made.json())
    key, prefix = made.json()["key"], made.json()["prefix"]
    assert key.startswith(f"lf_{prefix}_")
    log = {"service_name": "pay/a", "message": "m"}
    assert (await site.ask(key, "POST", "/api/v1/logs", json=log)).status_code == 201, "it acts here at once"
    assert (await site.ask(key, "POST", "/api/v1/logs", json={**log, "service_name": "mail"})).status_code == 403

    listed = await site.ask(token, "GET", "/api/v1/keys")
    KeyList.model_validate(listed.json())
    (shown,) = listed.json()["keys"]
    assert key not in listed.text
    assert shown == {name: value for name, value in made.json().items() if name != "key"}
    assert shown["permissions"] == {"read": ["shop"], "write": ["pay/*", "shop"]}
    assert (shown["state"], shown["logs_per_s"], shown["bytes_per_s"], shown["burst_s"]) == ("good", 5000, "none", 10)
    assert shown["created_by"].startswith("root (user:")
    assert datetime.fromisoformat(shown["expires_at"]) == datetime.fromisoformat(soon_over)

    for _ in range(2):
        assert (await site.ask(token, "DELETE", f"/api/v1/keys/{prefix}")).status_code == 204
    assert (await site.ask(key, "POST", "/api/v1/logs", json=log)).status_code == 401
    assert (await site.ask(token, "GET", "/api/v1/keys")).json() == {"keys": [], "next_cursor": None}
    (gone,) = (await site.ask(token, "GET", "/api/v1/keys?all=true")).json()["keys"]
    assert gone["state"] == "revoked"
    problem(await site.ask(token, "DELETE", "/api/v1/keys/aaaaaaaaaaaa"), 404, "no key")


async def test_lists_are_walked_and_narrowed(site: Site) -> None:
    token = await admin(site)
    for number in range(5):
        await site.key("write:shop")
        await site.user(f"user{number}", "read:shop")
    for path, name, by in (("keys", "test", "prefix"), ("users", "user", "name")):
        shown: list[str] = []
        cursor = None
        while True:
            parameters = {"limit": "2", "name": name, **({} if cursor is None else {"cursor": cursor})}
            page = (await site.ask(token, "GET", f"/api/v1/{path}", params=parameters)).json()
            shown += [each[by] for each in page[path]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
            problem(await site.ask(token, "GET", f"/api/v1/{path}", params={"cursor": cursor}), 400)
        assert len(set(shown)) == len(shown) == 5, "each once"
    assert (await site.ask(token, "GET", "/api/v1/keys?name=TEST&limit=500")).json()["next_cursor"] is None
    one = (await site.ask(token, "GET", "/api/v1/keys")).json()["keys"][3]
    found = (await site.ask(token, "GET", "/api/v1/keys", params={"name": one["prefix"]})).json()["keys"]
    assert found == [one]
    users = (await site.ask(token, "GET", "/api/v1/users?name=ROO")).json()
    UserList.model_validate(users)
    assert [each["name"] for each in users["users"]] == ["root"]
    for path in ("keys?levle=x", "keys?all=maybe", "keys?limit=0", "users?all=true", "keys?cursor="):
        problem(await site.ask(token, "GET", f"/api/v1/{path}"), 422)


async def test_a_user_is_made_changed_disabled_and_let_in_again(site: Site) -> None:
    token = await admin(site)
    wanted: dict[str, Any] = {"name": "ann", "permissions": {"read": ["pay/*"]}, "password": PASSWORD}
    made = await site.ask(token, "POST", "/api/v1/users", json=wanted)
    assert made.status_code == 201, made.text
    UserModel.model_validate(made.json())
    assert PASSWORD not in made.text
    problem(await site.ask(token, "POST", "/api/v1/users", json=wanted), 409, "ann")
    ann = await logged_in(site, "ann")
    me = "/api/v1/auth/me"
    changed = await site.ask(token, "PATCH", "/api/v1/users/ann", json={"permissions": {"tail": ["shop"]}})
    assert changed.json()["permissions"] == {"tail": ["shop"]}
    assert (await site.ask(ann, "GET", me)).json()["permissions"] == {"tail": ["shop"]}, "her session goes on"
    disabled = await site.ask(token, "PATCH", "/api/v1/users/ann", json={"disabled": True})
    assert (disabled.json()["state"], disabled.json()["permissions"]) == ("disabled", {"tail": ["shop"]})
    assert (await site.ask(ann, "GET", me)).status_code == 401
    back = await site.ask(token, "PATCH", "/api/v1/users/ann", json={"disabled": False})
    assert (back.json()["state"], back.json()["disabled_at"]) == ("good", None)
    assert (await site.ask(ann, "GET", me)).status_code == 401, "a session that has ended does not come back"
    ann = await logged_in(site, "ann")
    set_by_admin = await site.ask(token, "POST", "/api/v1/users/ann/password", json={"password": ANOTHER})
    assert (set_by_admin.status_code, set_by_admin.content) == (204, b"")
    assert (await site.ask(ann, "GET", me)).status_code == 401
    await logged_in(site, "ann", ANOTHER)
    for path in ("nobody", "nobody%00", "x" * 3_000):
        problem(await site.ask(token, "PATCH", f"/api/v1/users/{path}", json={"disabled": True}), 404)
        problem(await site.ask(token, "POST", f"/api/v1/users/{path}/password", json={"password": ANOTHER}), 404)


async def test_everybody_changes_their_own_password_who_knows_it_and_guessing_is_slowed_down(site: Site) -> None:
    await site.user("ann", "read:shop")
    await site.user("bob", "read:shop")
    ann = await logged_in(site, "ann")
    path = "/api/v1/users/ann/password"
    problem(await site.ask(ann, "POST", path, json={"password": ANOTHER}), 422, "current_password")
    problem(await site.ask(ann, "POST", path, json={"password": "short", "current_password": PASSWORD}), 422)
    wrong = await site.ask(ann, "POST", path, json={"password": ANOTHER, "current_password": "a wrong guess"})
    problem(wrong, 422, "not your password")
    assert "a wrong guess" not in wrong.text
    of_another = {"password": ANOTHER, "current_password": PASSWORD}
    problem(await site.ask(ann, "POST", "/api/v1/users/bob/password", json=of_another), 403, "admin")
    problem(await site.ask(ann, "POST", "/api/v1/users/nobody/password", json=of_another), 403, "admin")
    done = await site.ask(ann, "POST", path, json=of_another)
    assert done.status_code == 204, done.text
    assert (await site.ask(ann, "GET", "/api/v1/auth/me")).status_code == 401, "all sessions end with it"
    ann = await logged_in(site, "ann", ANOTHER)
    guesses = [
        await site.ask(ann, "POST", path, json={"password": PASSWORD, "current_password": f"wrong guess {n}"})
        for n in range(7)
    ]
    assert [guess.status_code for guess in guesses] == [422] * 5 + [429] * 2
    assert "retry-after" in guesses[-1].headers
    login = {"name": "ann", "password": ANOTHER}
    assert (await site.ask(None, "POST", "/api/v1/auth/login", json=login)).status_code == 429, "one count of both"
    # A key that is called like a user is not that user.
    key = await site.accounts.create_key("bob", ["read:shop"], created_by="tests")
    await site.access.directory.refresh()
    problem(await site.ask(key.text, "POST", "/api/v1/users/bob/password", json=of_another), 403)


async def test_nobody_takes_the_last_admin_away_or_themselves_by_accident(site: Site) -> None:
    token, key = await admin(site), await site.key("admin:*")
    no_longer = {"permissions": {"read": ["*"]}}
    problem(await site.ask(token, "PATCH", "/api/v1/users/root", json={"disabled": True}), 409, "yourself")
    problem(await site.ask(token, "PATCH", "/api/v1/users/root", json=no_longer), 409, "yourself")
    problem(await site.ask(key.text, "DELETE", f"/api/v1/keys/{key.prefix}"), 409, "asking with")
    problem(await site.ask(key.text, "PATCH", "/api/v1/users/root", json={"disabled": True}), 409, "last user")
    problem(await site.ask(key.text, "PATCH", "/api/v1/users/root", json=no_longer), 409, "last user")
    assert (await site.ask(token, "GET", "/api/v1/auth/me")).status_code == 200, "nothing was changed"
    await site.user("second", "admin:*")
    second = await logged_in(site, "second")
    # Each disables the other at the same moment: one of them stays.
    answers = await asyncio.gather(
        site.ask(token, "PATCH", "/api/v1/users/second", json={"disabled": True}),
        site.ask(second, "PATCH", "/api/v1/users/root", json={"disabled": True}),
    )
    assert sorted(answer.status_code for answer in answers) in ([200, 401], [200, 409])
    states = [each["state"] for each in (await site.ask(key.text, "GET", "/api/v1/users")).json()["users"]]
    assert sorted(states) == ["disabled", "good"]


async def test_the_last_key_that_administers_stays_where_no_user_does(site: Site) -> None:
    lasting = await site.key("admin:*")
    passing = await site.key("admin:*", expires_at=datetime.now(UTC) + timedelta(hours=1))
    problem(await site.ask(passing.text, "DELETE", f"/api/v1/keys/{lasting.prefix}"), 409, "last key")
    await site.user("root", "admin:*")
    assert (await site.ask(passing.text, "DELETE", f"/api/v1/keys/{lasting.prefix}")).status_code == 204


@pytest.mark.parametrize(
    "grants", [("read:*", "write:*", "tail:*", "alert:*", "export:*"), ("admin:pay/*", "admin:pay")]
)
async def test_who_administers_less_than_everything_changes_and_sees_nothing(
    site: Site, grants: tuple[str, ...]
) -> None:
    await site.user("ann", "read:pay/a")
    key = await site.key(*grants)
    for method, path, body in (
        ("GET", "keys", None),
        ("POST", "keys", {"name": "mine", "permissions": {"read": ["pay/a"]}}),
        ("DELETE", f"keys/{key.prefix}", None),
        ("GET", "users", None),
        ("POST", "users", {"name": "eve", "permissions": {"read": ["pay/a"]}, "password": PASSWORD}),
        ("PATCH", "users/ann", {"disabled": True}),
        ("PATCH", "users/nobody", {"disabled": True}),
        ("POST", "users/ann/password", {"password": ANOTHER}),
    ):
        problem(await site.ask(key.text, method, f"/api/v1/{path}", json=body), 403, "admin on all services")
    assert [each.name for each in await site.accounts.users()] == ["ann"]
    assert len(await site.accounts.keys()) == 1
    await logged_in(site, "ann")


async def test_a_right_over_the_audit_log_is_given_by_who_has_it(site: Site) -> None:
    token = await admin(site)
    auditor = {"name": "eve", "permissions": {"admin": [AUDIT_SERVICE]}}
    problem(await site.ask(token, "POST", "/api/v1/keys", json=auditor), 403, AUDIT_SERVICE)
    with_password = {**auditor, "password": PASSWORD}
    problem(await site.ask(token, "POST", "/api/v1/users", json=with_password), 403, AUDIT_SERVICE)
    everything = {"permissions": {"admin": ["*", AUDIT_SERVICE]}}
    problem(await site.ask(token, "PATCH", "/api/v1/users/root", json=everything), 403, AUDIT_SERVICE)
    await site.user("auditor", f"admin:{AUDIT_SERVICE}")
    taken_over = {"password": ANOTHER}
    problem(await site.ask(token, "POST", "/api/v1/users/auditor/password", json=taken_over), 403, AUDIT_SERVICE)
    more = {"permissions": {"admin": [AUDIT_SERVICE], "read": ["shop"]}}
    assert (await site.ask(token, "PATCH", "/api/v1/users/auditor", json=more)).status_code == 200, (
        "what is kept is not given"
    )
    both = await site.key("admin:*", f"admin:{AUDIT_SERVICE}")
    assert (await site.ask(both.text, "POST", "/api/v1/keys", json=auditor)).status_code == 201
    assert (await site.ask(both.text, "POST", "/api/v1/users/auditor/password", json=taken_over)).status_code == 204


@pytest.mark.parametrize("change", ["given", "taken away"])
async def test_a_right_over_the_audit_log_that_changes_at_this_moment_is_not_passed_by(site: Site, change: str) -> None:
    token = await admin(site)
    before, after = ["read:shop"], ["read:shop", f"admin:{AUDIT_SERVICE}"]
    if change == "taken away":
        before, after = after, before
    await site.user("eve", *before)
    body: dict[str, Any]
    if change == "given":  # whoever has the password then has the right
        path, method, body = "/api/v1/users/eve/password", "POST", {"password": ANOTHER}
    else:  # what is not there any more would be given
        path, method, body = "/api/v1/users/eve", "PATCH", {"permissions": {"read": ["shop"], "admin": [AUDIT_SERVICE]}}
    changes = "UPDATE users SET grants = %s WHERE name = 'eve'"
    async with holding(site, changes, (after,)) as holder:
        asked = asyncio.create_task(site.ask(token, method, path, json=body))
        await waiting(holder)
        await holder.execute("COMMIT")
    problem(await asked, 403, AUDIT_SERVICE)
    row = await site.database.fetch_one("SELECT grants FROM users WHERE name = 'eve'")
    assert row == (after,)


async def test_sessions_are_seen_and_ended_by_the_user_and_who_administers(site: Site) -> None:
    root = await admin(site)
    await site.user("ann", "read:*")
    await site.user("bob", "read:*")
    key = (await site.accounts.create_key("ann", ["read:*"], created_by="tests")).text
    await site.access.directory.refresh()
    path = "/api/v1/users/ann/sessions"
    async with site.client() as browser:
        login = {"name": "ann", "password": PASSWORD}
        first = (await browser.post("/api/v1/auth/login", json=login)).json()["access_token"]
        second, bob = await logged_in(site, "ann"), await logged_in(site, "bob")
        shown = await site.ask(first, "GET", path)
        SessionList.model_validate(shown.json())
        sessions = shown.json()["sessions"]
        assert len(sessions) == 2
        assert all(each["began_at"] <= each["refreshed_at"] < each["ends_at"] for each in sessions)
        assert (await site.ask(root, "GET", path)).json() == shown.json()
        for token in (bob, key):
            for method in ("GET", "DELETE"):
                for name in ("ann", "nobody"):
                    problem(await site.ask(token, method, f"/api/v1/users/{name}/sessions"), 403, "admin")
        for method in ("GET", "DELETE"):
            problem(await site.ask(root, method, "/api/v1/users/nobody/sessions"), 404, "no user")
        for _ in range(2):
            assert (await site.ask(root, "DELETE", path)).status_code == 204
        for token in (first, second):
            assert (await site.ask(token, "GET", path)).status_code == 401
        assert (await browser.post("/api/v1/auth/refresh")).status_code == 401
        assert (await site.ask(bob, "GET", "/api/v1/auth/me")).status_code == 200
        third = await logged_in(site, "ann")
        assert len((await site.ask(third, "GET", path)).json()["sessions"]) == 1
        assert (await site.ask(third, "DELETE", path)).status_code == 204
        assert (await site.ask(third, "GET", "/api/v1/auth/me")).status_code == 401


async def test_when_a_key_was_used_last_is_shown_and_written_once_a_minute(native_url: str) -> None:
    async def written(site: Site) -> Any:
        query = "SELECT last_used_at, changed FROM api_keys WHERE prefix = %s"
        return await site.database.fetch_one(query, (prefix,))

    async with running(native_url, audit=False) as site, running(native_url, audit=False, is_first=False) as other:
        token = await admin(site)
        key = await site.key("read:*")
        prefix = key.prefix
        path = f"/api/v1/keys?name={prefix}"

        async def shown() -> Any:
            return (await site.ask(token, "GET", path)).json()["keys"][0]["last_used_at"]

        assert (await site.ask(f"{key.text[:-1]}!", "GET", "/api/v1/services")).status_code == 401
        await site.access.uses.write()
        assert await shown() is None, "nobody was let in"
        before_use = await written(site)
        assert (await site.ask(key.text, "GET", "/api/v1/services")).status_code == 200
        async with site.database.transaction() as connection:
            await connection.execute("SELECT FROM api_keys WHERE prefix = %s FOR UPDATE", (prefix,))
            await site.access.uses.write()
        assert await shown() is None, "it waits for nobody"
        await site.ask(key.text, "GET", "/api/v1/services")
        await site.access.uses.write()
        first = await shown()
        age_s = (datetime.now(UTC) - datetime.fromisoformat(first)).total_seconds()
        assert 0 <= age_s < 600
        assert (await written(site))[1] == before_use[1], "no process has to read it anew"

        async def is_let_in() -> bool:
            return (await other.ask(key.text, "GET", "/api/v1/services")).status_code == 200

        await soon(is_let_in, "the other process knows the key")
        for each in (other, site, other):
            await each.ask(key.text, "GET", "/api/v1/services")
            await each.access.uses.write()
        assert await shown() == first, "within a minute nobody writes again"
        aged = "UPDATE api_keys SET last_used_at = last_used_at - interval '1 minute' WHERE prefix = %s"
        await site.database.execute(aged, (prefix,))
        await site.database.execute("ALTER TABLE api_keys RENAME TO away")
        await other.ask(key.text, "GET", "/api/v1/services")
        await other.access.uses.write()
        await site.database.execute("ALTER TABLE away RENAME TO api_keys")
        await other.access.uses.write()
        second = await shown()
        assert second > first, "what could not be written is written later"
        await site.database.execute(aged, (prefix,))
        await other.ask(key.text, "GET", "/api/v1/services")
        await other.access.close()
        assert await shown() > second, "the end writes what is left"
        # Whoever changes the key still tells everybody.
        await site.accounts.revoke_key(prefix)
        await site.access.directory.refresh()
        assert (await site.ask(key.text, "GET", "/api/v1/services")).status_code == 401


async def test_what_a_login_provider_decides_is_not_changed_here(site: Site) -> None:
    token = await admin(site)
    await site.database.execute(
        "INSERT INTO users (name, grants, issuer, issuer_subject) VALUES ('kim', '{read:shop}', 'https://login', '1')"
    )
    problem(
        await site.ask(token, "POST", "/api/v1/users/kim/password", json={"password": ANOTHER}), 409, "https://login"
    )
    may = {"permissions": {"read": ["*"]}}
    problem(await site.ask(token, "PATCH", "/api/v1/users/kim", json=may), 409, "https://login")
    disabled = await site.ask(token, "PATCH", "/api/v1/users/kim", json={"disabled": True})
    assert (disabled.json()["state"], disabled.json()["issuer"]) == ("disabled", "https://login")


_IMPOSSIBLE: Final = (
    ("keys", {"name": "", "permissions": {"read": ["a"]}}, "name"),
    ("keys", {"name": "a\u0000b", "permissions": {"read": ["a"]}}, "name"),
    ("keys", {"name": "a", "permissions": {}}, "permissions"),
    ("keys", {"name": "a", "permissions": {"reed": ["a"]}}, "permissions"),
    ("keys", {"name": "a", "permissions": {"read": ["a b"]}}, "permissions"),
    ("keys", {"name": "a", "permissions": {"read": [AUDIT_SERVICE]}}, "permissions"),
    ("keys", {"name": "a", "permissions": {"read": ["a"]}, "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    (
        "keys",
        {"name": "a", "permissions": {"read": ["a"]}, "expires_at": "9999-12-31T23:59:59-14:00"},
        "expires_at",
    ),
    ("keys", {"name": "a", "permissions": {"read": ["a"]}, "expires_at": "2999-01-01T00:00:00"}, "expires_at"),
    ("keys", {"name": "a", "permissions": {"read": ["a"]}, "networks": ["10.0.0.1/8"]}, "network"),
    ("keys", {"name": "a", "permissions": {"read": ["a"]}, "logs_per_s": -1}, "logs_per_s"),
    ("keys", {"name": "a", "permissions": {"read": ["a"]}, "key": "lf_mine"}, "key"),
    ("users", {"name": "Ann", "permissions": {"read": ["a"]}, "password": PASSWORD}, "name"),
    ("users", {"name": "ann", "permissions": {"read": ["a"]}, "password": "my secret"}, "password"),
    ("users", {"name": "ann", "permissions": {"read": ["a"]}, "password": "äöü" * 300}, "password"),
)


async def test_what_cannot_be_is_refused_by_name_and_not_repeated(site: Site) -> None:
    token = (await site.key("admin:*")).text
    for path, body, field in _IMPOSSIBLE:
        answer = await site.ask(token, "POST", f"/api/v1/{path}", json=body)
        problem(answer, 422, field)
        assert "my secret" not in answer.text
    assert len(await site.accounts.keys()) == 1
    assert await site.accounts.users() == []


async def test_every_change_is_written_down_without_secrets_and_acts_in_other_processes(
    native_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(native_url) as site, running(native_url, is_first=False) as other:
        token = await admin(site)
        wanted: dict[str, Any] = {"name": "shop", "permissions": {"read": ["shop"]}}
        made = (await site.ask(token, "POST", "/api/v1/keys", json=wanted)).json()

        async def is_let_in() -> bool:
            return (await other.ask(made["key"], "GET", "/api/v1/services")).status_code == 200

        async def is_refused() -> bool:
            return (await other.ask(made["key"], "GET", "/api/v1/services")).status_code == 401

        await soon(is_let_in, "the other process knows the key")
        await site.ask(token, "POST", "/api/v1/users", json={**wanted, "name": "ann", "password": ANOTHER})
        await site.ask(token, "PATCH", "/api/v1/users/ann", json={"disabled": True})
        await site.ask(token, "POST", "/api/v1/users/ann/password", json={"password": PASSWORD})
        await site.ask(token, "DELETE", "/api/v1/users/ann/sessions")
        await site.ask(token, "DELETE", f"/api/v1/keys/{made['prefix']}")
        await soon(is_refused, "the other process knows that it was revoked")
        found: list[dict[str, Any]] = []

        async def are_there() -> bool:
            lines = sorted(await published(site), key=lambda line: line.timestamp)
            entries = [msgspec.json.decode(line.metadata) for line in lines]
            found[:] = [entry for entry in entries if "change" in entry]
            return len(found) >= 6

        await soon(are_there, "the changes are published")
        assert [entry["change"] for entry in found] == [
            f"made the key {made['prefix']} (shop)",
            "made the user ann",
            "changed the user ann: disabled them",
            "set another password of the user ann",
            "ended all sessions of the user ann",
            f"revoked the key {made['prefix']} (shop)",
        ]
        assert {entry["name"] for entry in found} == {"root"}
        assert found[0]["target"] == f"key:{made['prefix']}"
        assert (found[0]["permissions"], found[0]["path"]) == ("read:shop", "/api/v1/keys")
        written = "".join(capfd.readouterr()) + str(found)
        for secret in (made["key"], ANOTHER, PASSWORD):
            assert secret not in written
