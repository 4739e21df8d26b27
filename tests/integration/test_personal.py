"""Bookmarks and saved views: each subject's own, bounded, gone with whoever had them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from schemas.personal import BookmarkList, BookmarkModel, ViewList, ViewModel
from tests.access_site import PASSWORD, Site, running


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url, audit=False, query={"bookmarks_max": 3, "views_max": 2}) as site:
        yield site


async def token_of(site: Site, name: str, *grants: str) -> str:
    await site.user(name, *grants)
    answer = await site.ask(None, "POST", "/api/v1/auth/login", json={"name": name, "password": PASSWORD})
    token: str = answer.json()["access_token"]
    return token


async def bookmarks(site: Site, token: str, **parameters: str) -> list[dict[str, Any]]:
    answer = await site.ask(token, "GET", "/api/v1/bookmarks", params=parameters)
    assert answer.status_code == 200, answer.text
    BookmarkList.model_validate(answer.json())
    found: list[dict[str, Any]] = answer.json()["bookmarks"]
    return found


async def views(site: Site, token: str) -> list[dict[str, Any]]:
    answer = await site.ask(token, "GET", "/api/v1/views")
    assert answer.status_code == 200, answer.text
    ViewList.model_validate(answer.json())
    found: list[dict[str, Any]] = answer.json()["views"]
    return found


async def put(site: Site, token: str, path: str, body: dict[str, Any]) -> httpx.Response:
    return await site.ask(token, "PUT", f"/api/v1/{path}", json=body)


async def test_a_bookmark_is_kept_changed_and_removed(site: Site) -> None:
    token = await token_of(site, "ann", "read:shop")
    first = await put(site, token, "bookmarks/log/42", {"note": "the first\nrefusal"})
    assert first.status_code == 200, first.text
    BookmarkModel.model_validate(first.json())
    await put(site, token, "bookmarks/connection/a%2Fb%20c", {})
    assert [(each["kind"], each["target_id"]) for each in await bookmarks(site, token)] == [
        ("connection", "a/b c"),
        ("log", "42"),
    ]
    again = await put(site, token, "bookmarks/log/42", {"note": "known"})
    assert again.json() == {**first.json(), "note": "known"}
    assert await bookmarks(site, token, kind="log") == [again.json()]
    for _ in range(2):
        gone = await site.ask(token, "DELETE", "/api/v1/bookmarks/log/42")
        assert (gone.status_code, gone.content) == (204, b"")
    assert await bookmarks(site, token, kind="log") == []


async def test_a_view_is_kept_changed_and_removed(site: Site) -> None:
    token = await token_of(site, "ann", "read:shop")
    first = await put(site, token, "views/payment%20errors", {"address": "/?query=level:error"})
    assert first.status_code == 200, first.text
    ViewModel.model_validate(first.json())
    assert first.json()["name"] == "payment errors"
    again = await put(site, token, "views/payment%20errors", {"address": "/?query=level:fatal"})
    assert again.json()["created_at"] == first.json()["created_at"]
    assert again.json()["changed_at"] > first.json()["changed_at"]
    await put(site, token, "views/a", {"address": "/"})
    assert [view["name"] for view in await views(site, token)] == ["a", "payment errors"]
    assert (await site.ask(token, "DELETE", "/api/v1/views/a")).status_code == 204
    assert await views(site, token) == [again.json()]


async def test_a_name_with_a_line_end_is_none_and_says_so(site: Site) -> None:
    token = await token_of(site, "ann", "read:shop")
    for path, body in (
        ("views/a%0Ab", {"address": "/"}),
        ("views/a%0A", {"address": "/"}),
        ("bookmarks/log/4%0A2", {}),
    ):
        assert (await put(site, token, path, body)).status_code == 422
        assert (await site.ask(token, "DELETE", f"/api/v1/{path}")).status_code == 422


async def test_nobody_sees_or_touches_what_is_anothers(site: Site) -> None:
    ann, bob = await token_of(site, "ann", "admin:*"), await token_of(site, "bob", "read:shop")
    key = (await site.key("write:shop")).text
    for token, note in ((ann, "ann's"), (bob, "bob's"), (key, "the key's")):
        assert (await put(site, token, "bookmarks/log/1", {"note": note})).status_code == 200
        assert (await put(site, token, "views/mine", {"address": f"/?q={note}"})).status_code == 200
    await site.ask(bob, "DELETE", "/api/v1/bookmarks/log/1")
    await site.ask(bob, "DELETE", "/api/v1/views/mine")
    assert (await bookmarks(site, bob), await views(site, bob)) == ([], [])
    for token, note in ((ann, "ann's"), (key, "the key's")):
        assert [each["note"] for each in await bookmarks(site, token)] == [note]
        assert [each["address"] for each in await views(site, token)] == [f"/?q={note}"]
    assert (await site.ask(None, "GET", "/api/v1/bookmarks")).status_code == 401


async def test_there_is_room_for_so_many_even_for_who_asks_at_once(site: Site) -> None:
    token = await token_of(site, "ann", "read:shop")
    answers = await asyncio.gather(*(put(site, token, f"bookmarks/log/{n}", {}) for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [409] * 5
    refused = next(answer for answer in answers if answer.status_code == 409).json()
    assert refused["type"] == "urn:logfeed:problem:no-room"
    assert refused["detail"] == "you have 3 bookmarks, as many as one may have: remove one"
    kept = await bookmarks(site, token)
    changed = await put(site, token, f"bookmarks/log/{kept[0]['target_id']}", {"note": "still"})
    assert changed.status_code == 200
    for n in range(2):
        assert (await put(site, token, f"views/{n}", {"address": "/"})).status_code == 200
    assert (await put(site, token, "views/2", {"address": "/"})).status_code == 409
    assert (await put(site, token, "views/1", {"address": "/x"})).status_code == 200


@pytest.mark.parametrize(
    "path, body",
    [
        ("bookmarks/logs/1", {}),
        ("bookmarks/log/x", {}),
        ("bookmarks/log/1?note=x", {}),
        ("bookmarks/log/1", {"note": 5}),
        ("bookmarks/log/1", {"notes": "x"}),
        ("bookmarks/log/1", {"note": "x" * 2_001}),
        ("bookmarks/log/1", {"note": "\0"}),
        ("bookmarks/connection/" + "x" * 129, {}),
        ("views/" + "x" * 101, {"address": "/"}),
        ("views/a", {}),
        ("views/a", {"address": "//evil.example"}),
        ("views/a", {"address": "https://evil.example"}),
        ("views/a", {"address": "/" + "x" * 4_096}),
    ],
)
async def test_what_cannot_be_is_refused(site: Site, path: str, body: dict[str, Any]) -> None:
    token = (await site.key("read:shop")).text
    answer = await put(site, token, path, body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await bookmarks(site, token), await views(site, token)) == ([], [])


async def test_only_json_is_taken(site: Site) -> None:
    token = (await site.key("read:shop")).text
    form = await site.ask(token, "PUT", "/api/v1/views/a", data={"address": "/"})
    assert form.status_code == 422
    assert "Content-Type" in form.json()["detail"]


async def test_it_all_goes_with_who_had_it(site: Site) -> None:
    ann, bob = await token_of(site, "ann", "read:shop"), await token_of(site, "bob", "read:shop")
    key, other = await site.key("read:shop"), await site.key("read:shop")
    for token in (ann, bob, key.text, other.text):
        await put(site, token, "bookmarks/log/1", {})
        await put(site, token, "views/a", {"address": "/"})
    await site.accounts.disable_user("ann")
    await site.accounts.revoke_key(key.prefix)
    for table in ("bookmarks", "saved_views"):
        left = {subject for (subject,) in await site.database.fetch_all(f"SELECT subject FROM {table}")}
        users = await site.accounts.users()
        (bobs,) = [user.user_id for user in users if user.name == "bob"]
        assert left == {f"user:{bobs}", f"key:{other.prefix}"}
