"""Logging in through a real OpenID provider (a process of its own), over one real PostgreSQL, as browsers do."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.cookies import Morsel, SimpleCookie
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest

from access.errors import AccountError
from access.passwords import hash_password
from runtime.clock import SystemClock
from schemas.errors import ConfigurationError
from tests.access_site import PASSWORD, Site, running, soon
from tests.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider, query_of

PUBLIC_URL: Final = "https://logfeed.test"
CALLBACK: Final = "/api/v1/auth/oidc/callback"
LOGIN: Final = "/api/v1/auth/oidc/login"
GRANTS: Final = {"payments": ["read:pay/*"], "everything": ["read:*", "admin:shop"]}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    provider = OidcProvider(tmp_path_factory.mktemp("oidc"), redirect_uri=PUBLIC_URL + CALLBACK)
    try:
        provider.start()
        yield provider
    finally:
        provider.close()


@pytest.fixture
def provider(process: OidcProvider) -> OidcProvider:
    process.go_wrong()
    process.user("u1", preferred_username="Ann", groups=["payments", "others"])
    return process


class Ahead(SystemClock):
    """A clock whose monotonic time can be set ahead."""

    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


@pytest.fixture
def clock() -> Ahead:
    return Ahead()


@asynccontextmanager
async def site_of(
    url: str, provider: OidcProvider, *, is_first: bool = True, clock: Ahead | None = None, **oidc: Any
) -> AsyncIterator[Site]:
    settings = {
        "issuer": provider.issuer,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "grants": GRANTS,
        **oidc,
    }
    async with running(url, is_first=is_first, public_url=PUBLIC_URL, clock=clock, audit=False, oidc=settings) as site:
        yield site


@pytest.fixture
async def site(native_url: str, provider: OidcProvider, clock: Ahead) -> AsyncIterator[Site]:
    async with site_of(native_url, provider, clock=clock) as site:
        yield site


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with site.client() as client:
        yield client


async def begin(browser: httpx.AsyncClient, return_to: str | None = None) -> str:
    """Where the browser is sent."""
    answer = await browser.get(LOGIN, params={} if return_to is None else {"return_to": return_to})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def log_in(
    browser: httpx.AsyncClient, provider: OidcProvider, subject: str | None = "u1", return_to: str | None = None
) -> httpx.Response:
    """All of it; what the callback answers."""
    back = await provider.answer(await begin(browser, return_to), subject)
    assert back.startswith(PUBLIC_URL + CALLBACK + "?")
    return await browser.get(back)


def cookie_of(answer: httpx.Response, name: str) -> Morsel[str]:
    """The one cookie of that name which an answer sets."""
    [text] = [text for text in answer.headers.get_list("set-cookie") if text.startswith(f"{name}=")]
    return SimpleCookie(text)[name]


async def token_of(browser: httpx.AsyncClient) -> str:
    """An access token for the browser's session."""
    answer = await browser.post("/api/v1/auth/refresh")
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


async def me(site: Site, token: str) -> dict[str, Any]:
    answer = await site.ask(token, "GET", "/api/v1/auth/me")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def users_of(site: Site) -> list[tuple[str, list[str], str | None]]:
    return [(user.name, user.grants, user.issuer) for user in await site.accounts.users()]


def refused(answer: httpx.Response, status: int, slug: str, says: str = "") -> None:
    """That nobody was let in, and why."""
    assert answer.status_code == status, answer.text
    assert answer.json()["type"] == f"urn:logfeed:problem:{slug}"
    assert says in answer.json()["detail"]
    assert "logfeed_refresh" not in answer.headers.get("set-cookie", "")


# In


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_somebody_comes_in_by_their_groups_and_reads_what_is_theirs(
    native_url: str, provider: OidcProvider, algorithm: str
) -> None:
    provider.rotate(algorithm)
    async with site_of(native_url, provider) as site, site.client() as browser:
        await site.put([{"service_name": "pay/a"}, {"service_name": "shop"}])
        answer = await log_in(browser, provider, return_to="/logs?query=level:error")
        assert (answer.status_code, answer.headers["location"]) == (303, f"{PUBLIC_URL}/logs?query=level:error")
        assert answer.headers["cache-control"] == "no-store"
        cookie = cookie_of(answer, "logfeed_refresh")
        assert (cookie["httponly"], cookie["secure"], cookie["samesite"].lower()) == (True, True, "strict")
        assert (cookie["path"], int(cookie["max-age"])) == ("/api/v1/auth", 12 * 3600)
        assert "logfeed_oidc" not in browser.cookies, "the attempt is over"
        token = await token_of(browser)
        page = (await site.ask(token, "GET", "/api/v1/logs")).json()
        assert [log["service_name"] for log in page["logs"]] == ["pay/a"]
        identity = await me(site, token)
        assert (identity["name"], identity["permissions"]) == ("ann", {"read": ["pay/*"]})
        assert await users_of(site) == [("ann", ["read:pay/*"], provider.issuer)]


async def test_the_way_out_asks_for_what_a_careful_client_asks_for(
    browser: httpx.AsyncClient, provider: OidcProvider
) -> None:
    first, second = query_of(await begin(browser)), query_of(await begin(browser))
    assert first["response_type"] == "code"
    assert first["redirect_uri"] == PUBLIC_URL + CALLBACK
    assert (first["code_challenge_method"], len(first["code_challenge"])) == ("S256", 43)
    assert (first["scope"], first["kind"]) == ("openid profile email", "test"), "the endpoint's own query stays"
    for name in ("state", "nonce", "code_challenge"):
        assert first[name] != second[name]
    cookie = cookie_of(await browser.get(LOGIN), "logfeed_oidc")
    assert (cookie["httponly"], cookie["secure"], cookie["samesite"].lower()) == (True, True, "lax")
    assert (cookie["path"], cookie["max-age"]) == ("/api/v1/auth/oidc", "600")
    assert CLIENT_SECRET not in json.dumps([first, cookie.value])


@pytest.mark.parametrize(
    ("claims", "settings", "grants"),
    [
        ({"groups": ["payments", "everything"]}, {}, ["admin:shop", "read:*", "read:pay/*"]),
        ({"groups": "payments"}, {}, ["read:pay/*"]),
        ({"groups": ["Payments", "pay", 7, None, ["everything"]]}, {}, None),
        ({"groups": {"payments": True}}, {}, None),
        ({}, {}, None),
        ({}, {"default_grants": ["read:public"]}, ["read:public"]),
        ({"groups": ["payments"]}, {"default_grants": ["read:public"]}, ["read:pay/*", "read:public"]),
        ({"realm_access": {"roles": ["payments"]}}, {"groups_claim": "realm_access.roles"}, ["read:pay/*"]),
        ({"https://a.example/groups": ["payments"]}, {"groups_claim": "https://a.example/groups"}, ["read:pay/*"]),
        ({"hd": "payments"}, {"groups_claim": "hd"}, ["read:pay/*"]),
        ({"email": "payments", "email_verified": True}, {"groups_claim": "email"}, ["read:pay/*"]),
        ({"email": "payments", "email_verified": False}, {"groups_claim": "email"}, None),
        ({"email": "payments"}, {"groups_claim": "email"}, None),
    ],
)
async def test_groups_say_what_somebody_may(
    native_url: str, provider: OidcProvider, claims: dict[str, Any], settings: dict[str, Any], grants: list[str] | None
) -> None:
    provider.user("u2", **claims)
    async with site_of(native_url, provider, **settings) as site, site.client() as browser:
        answer = await log_in(browser, provider, "u2")
        if grants is None:
            refused(answer, 403, "login-denied", "none of your groups")
            assert await users_of(site) == [], "nobody is remembered who may nothing"
        else:
            assert answer.status_code == 303
            assert [found for _, found, _ in await users_of(site)] == [grants]


async def test_a_right_taken_away_at_the_provider_goes_from_all_sessions_at_the_next_login(
    site: Site, browser: httpx.AsyncClient, provider: OidcProvider
) -> None:
    provider.user("u1", preferred_username="ann", groups=["payments", "everything"])
    await log_in(browser, provider)
    old = await token_of(browser)
    assert "admin" in (await me(site, old))["permissions"]
    provider.user("u1", preferred_username="ann", groups=["payments"])
    assert "admin" in (await me(site, old))["permissions"], "as documented: groups are looked at when somebody logs in"
    async with site.client() as other:
        await log_in(other, provider)
        assert (await me(site, old))["permissions"] == {"read": ["pay/*"]}
        provider.user("u1", preferred_username="ann", groups=[])
        refused(await log_in(other, provider), 403, "login-denied")
    assert (await site.ask(old, "GET", "/api/v1/logs")).status_code == 403
    assert await users_of(site) == [("ann", [], provider.issuer)]


async def test_a_session_ends_when_it_must_and_never_later_than_others(native_url: str, provider: OidcProvider) -> None:
    lasts = "SELECT extract(epoch FROM expires_at - began_at)::int FROM sessions"
    async with site_of(native_url, provider, session_s=7_200) as site, site.client() as browser:
        assert (await log_in(browser, provider)).status_code == 303
        assert await site.database.fetch_one(lasts) == (7_200,)
        await token_of(browser)
        assert await site.database.fetch_one(lasts) == (7_200,), "a refresh prolongs nothing"
        await site.database.execute("UPDATE sessions SET expires_at = clock_timestamp() - interval '1 second'")
        assert (await browser.post("/api/v1/auth/refresh")).status_code == 401


async def test_who_is_disabled_stays_out(site: Site, browser: httpx.AsyncClient, provider: OidcProvider) -> None:
    await log_in(browser, provider)
    token = await token_of(browser)
    await site.accounts.disable_user("ann")
    await site.access.directory.refresh()
    assert (await site.ask(token, "GET", "/api/v1/logs")).status_code == 401
    refused(await log_in(browser, provider), 403, "login-denied", "disabled")
    assert (await browser.post("/api/v1/auth/refresh")).status_code == 401


async def test_another_process_takes_up_what_one_began(native_url: str, provider: OidcProvider) -> None:
    async with site_of(native_url, provider) as site, site_of(native_url, provider, is_first=False) as other:
        async with site.client() as browser, other.client() as elsewhere:
            back = await provider.answer(await begin(browser), "u1")
            elsewhere.cookies = browser.cookies
            assert (await elsewhere.get(back)).status_code == 303
            token = await token_of(elsewhere)

            async def is_known() -> bool:
                return (await site.ask(token, "GET", "/api/v1/auth/me")).status_code == 200

            await soon(is_known, "the first process knows them")


# Names


async def test_nobody_takes_over_a_user_of_the_same_name(
    site: Site, browser: httpx.AsyncClient, provider: OidcProvider
) -> None:
    ann = await site.user("ann", "admin:*")
    assert (await log_in(browser, provider)).status_code == 303
    identity = await me(site, await token_of(browser))
    assert identity["subject"] != f"user:{ann}"
    assert identity["permissions"] == {"read": ["pay/*"]}
    assert identity["name"].startswith("ann+")
    provider.user("u3", preferred_username="ANN", groups=["everything"])
    async with site.client() as other:
        assert (await log_in(other, provider, "u3")).status_code == 303
    named = {user.name: user for user in await site.accounts.users()}
    assert len(named) == 3, "two people of one name at the provider are two here"
    assert named["ann"].grants == ["admin:*"]
    assert named["ann"].issuer is None
    login = await browser.post("/api/v1/auth/login", json={"name": "ann", "password": PASSWORD})
    assert login.status_code == 200, "the password is as it was"
    assert (await log_in(browser, provider)).status_code == 303, "and coming again makes nobody new"
    assert len(await site.accounts.users()) == 3


async def test_a_subject_of_another_issuer_is_somebody_else(
    site: Site, browser: httpx.AsyncClient, provider: OidcProvider
) -> None:
    await site.database.execute(
        "INSERT INTO users (name, grants, issuer, issuer_subject) VALUES ('ann', '{admin:*}', 'https://other.example', 'u1')"
    )
    assert (await log_in(browser, provider)).status_code == 303
    assert "admin" not in (await me(site, await token_of(browser)))["permissions"]


async def test_a_new_name_is_taken_over_and_who_has_no_password_gets_none(
    site: Site, browser: httpx.AsyncClient, provider: OidcProvider
) -> None:
    await log_in(browser, provider)
    provider.user("u1", preferred_username="Anna Müller ", groups=["payments"])
    await log_in(browser, provider)
    assert await users_of(site) == [("anna-muller", ["read:pay/*"], provider.issuer)]
    with pytest.raises(AccountError, match="no password here"):
        await site.accounts.set_password("anna-muller", hash_password(PASSWORD))
    answer = await browser.post("/api/v1/auth/login", json={"name": "anna-muller", "password": PASSWORD})
    assert answer.status_code == 401


async def test_first_logins_at_once_make_one_user(site: Site, provider: OidcProvider) -> None:
    async def come() -> int:
        async with site.client() as browser:
            return (await log_in(browser, provider)).status_code

    assert await asyncio.gather(*(come() for _ in range(4))) == [303] * 4
    assert len(await site.accounts.users()) == 1


# The way back is bound to the browser


async def test_a_callback_without_the_browser_that_began_it_is_refused(
    site: Site, browser: httpx.AsyncClient, provider: OidcProvider
) -> None:
    asked = provider.asked()["token"]
    back = await provider.answer(await begin(browser), "u1")
    async with site.client() as stranger:
        refused(await stranger.get(back), 401, "unauthenticated", "not begun in this browser")
        await begin(stranger)
        refused(await stranger.get(back), 401, "unauthenticated", "not begun in this browser")
    changed = back.replace("state=", "state=x")
    refused(await browser.get(changed), 401, "unauthenticated", "not begun in this browser")
    refused(
        await browser.get(back), 401, "unauthenticated", "not begun in this browser"
    )  # one way back for each attempt
    assert await users_of(site) == []
    assert provider.asked()["token"] == asked, "the provider is not even asked"


@pytest.mark.parametrize("change", ["signature", "content", "unsigned", "access token", "empty", "long"])
async def test_a_forged_cookie_is_none(
    site: Site, browser: httpx.AsyncClient, provider: OidcProvider, change: str
) -> None:
    back = await provider.answer(await begin(browser), "u1")
    head, claims, signature = browser.cookies["logfeed_oidc"].split(".")
    there = json.loads(base64.urlsafe_b64decode(claims + "=="))
    evil = base64.urlsafe_b64encode(json.dumps({**there, "to": "//evil.example"}).encode()).decode().rstrip("=")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"oidc-attempt+jwt"}').decode().rstrip("=")
    await site.user("bob", "read:*")
    token = (await browser.post("/api/v1/auth/login", json={"name": "bob", "password": PASSWORD})).json()[
        "access_token"
    ]
    forged = {
        "signature": f"{head}.{claims}.{'A' * len(signature)}",
        "content": f"{head}.{evil}.{signature}",
        "unsigned": f"{none}.{claims}.",
        "access token": token,
        "empty": "",
        "long": "a" * 20_000,
    }[change]
    browser.cookies.clear()
    refused(await browser.get(back, headers={"Cookie": f"logfeed_oidc={forged}"}), 401, "unauthenticated")


async def test_a_code_is_good_once(browser: httpx.AsyncClient, provider: OidcProvider) -> None:
    back = await provider.answer(await begin(browser), "u1")
    cookie = {"Cookie": f"logfeed_oidc={browser.cookies['logfeed_oidc']}"}
    browser.cookies.clear()
    assert (await browser.get(back, headers=cookie)).status_code == 303
    refused(await browser.get(back, headers=cookie), 401, "unauthenticated", "does not take this code")


async def test_a_stolen_code_is_worth_nothing_in_another_attempt(
    site: Site, browser: httpx.AsyncClient, provider: OidcProvider
) -> None:
    stolen = query_of(await provider.answer(await begin(browser), "u1"))["code"]
    async with site.client() as thief:
        state = query_of(await begin(thief))["state"]
        answer = await thief.get(CALLBACK, params={"state": state, "code": stolen})
    refused(answer, 401, "unauthenticated", "does not take this code")  # PKCE: the verifier is the other attempt's


async def test_trying_codes_is_slowed_down(browser: httpx.AsyncClient, provider: OidcProvider) -> None:
    state = query_of(await begin(browser))["state"]
    cookie = {"Cookie": f"logfeed_oidc={browser.cookies['logfeed_oidc']}"}
    browser.cookies.clear()
    statuses = [
        (await browser.get(CALLBACK, params={"state": state, "code": f"guess{n}"}, headers=cookie)).status_code
        for n in range(7)
    ]
    assert statuses == [401] * 5 + [429] * 2


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "javascript:alert(1)",
        "evil.example",
        "/a b",
        "/ä",
        '/"><script>',
        "/" + "a" * 1_000,
    ],
)
async def test_nobody_is_sent_to_another_site_afterwards(browser: httpx.AsyncClient, path: str) -> None:
    answer = await browser.get(LOGIN, params={"return_to": path})
    refused(answer, 422, "invalid-parameter", "path of this site")
    assert "set-cookie" not in answer.headers


# The ID token


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"algorithm": "none"}, "is signed by 'none'"),
        ({"algorithm": "HS256"}, "is signed by 'HS256'"),
        ({"claims": {"nonce": "of another login"}}, "is of another login"),
        ({"claims": {"nonce": None}}, "is of another login"),
        ({"claims": {"aud": "another client"}}, "is for somebody else"),
        ({"claims": {"aud": None}}, "is for somebody else"),
        ({"claims": {"aud": [CLIENT_ID, "another"]}}, "was given to another client"),
        ({"claims": {"azp": "another"}}, "was given to another client"),
        ({"claims": {"iss": "https://evil.example"}}, "is of another issuer"),
        ({"claims": {"exp": 1_700_000_000}}, "has expired"),
        ({"claims": {"exp": "2100-01-01"}}, "made and expires"),
        ({"claims": {"exp": True}}, "made and expires"),
        ({"claims": {"exp": None}}, "made and expires"),
        ({"claims": {"iat": None}}, "made and expires"),
        ({"claims": {"iat": 4_000_000_000}}, "is not valid yet"),
        ({"claims": {"nbf": 4_000_000_000}}, "is not valid yet"),
        ({"claims": {"sub": ""}}, "who it is of"),
        ({"claims": {"sub": 7}}, "who it is of"),
        ({"claims": {"sub": "a\0b"}}, "who it is of"),
        ({"claims": {"padding": "x" * 140_000}}, "is longer than"),
    ],
)
async def test_an_id_token_that_is_not_good_lets_nobody_in(
    site: Site, browser: httpx.AsyncClient, provider: OidcProvider, faults: dict[str, Any], says: str
) -> None:
    provider.go_wrong(**faults)
    refused(await log_in(browser, provider), 401, "unauthenticated", says)
    assert await users_of(site) == []
    provider.go_wrong()
    assert (await log_in(browser, provider)).status_code == 303, "the same way is open when nothing is wrong"


async def test_two_audiences_are_good_with_this_client_as_the_authorized_one(
    browser: httpx.AsyncClient, provider: OidcProvider
) -> None:
    provider.go_wrong(claims={"aud": ["another", CLIENT_ID], "azp": CLIENT_ID})
    assert (await log_in(browser, provider)).status_code == 303


@pytest.mark.parametrize("kid", ["new", None])
async def test_a_new_key_is_found_and_the_old_one_forgotten(
    native_url: str, provider: OidcProvider, clock: Ahead, kid: str | None
) -> None:
    provider.rotate("RS256", kid=kid)
    async with site_of(native_url, provider, clock=clock) as site, site.client() as browser:
        assert (await log_in(browser, provider)).status_code == 303
        asked = provider.asked()["keys"]
        assert (await log_in(browser, provider)).status_code == 303
        assert provider.asked()["keys"] == asked, "keys are kept"
        provider.rotate("RS256", kid=kid)
        clock.ahead_s = 31
        assert (await log_in(browser, provider)).status_code == 303
        assert provider.asked()["keys"] == asked + 1


async def test_keys_are_not_asked_for_again_and_again(
    browser: httpx.AsyncClient, provider: OidcProvider, clock: Ahead
) -> None:
    assert (await log_in(browser, provider)).status_code == 303
    asked = provider.asked()["keys"]
    provider.rotate("ES256", is_published=False)
    for _ in range(3):
        answer = await log_in(browser, provider)
        refused(answer, 503, "login-provider-away", "does not publish yet")
        assert answer.headers["retry-after"] == "30"
    assert provider.asked()["keys"] == asked
    clock.ahead_s = 31
    refused(await log_in(browser, provider), 401, "unauthenticated", "does not publish")
    assert provider.asked()["keys"] == asked + 1


async def test_a_token_that_names_a_key_which_did_not_sign_it_is_refused(
    native_url: str, provider: OidcProvider
) -> None:
    provider.rotate("RS256")
    async with site_of(native_url, provider) as site, site.client() as browser:
        assert (await log_in(browser, provider)).status_code == 303
        kid = provider.published_kid()
        provider.rotate("RS256", is_published=False)
        provider.go_wrong(kid=kid)
        refused(await log_in(browser, provider), 401, "unauthenticated", "is not signed by the provider")


# The provider


async def test_a_provider_that_is_away_is_said_so_and_found_again(native_url: str, provider: OidcProvider) -> None:
    provider.stop()
    try:
        async with site_of(native_url, provider) as site, site.client() as browser:
            answer = await browser.get(LOGIN)
            refused(answer, 503, "login-provider-away")
            assert int(answer.headers["retry-after"]) > 0
            await asyncio.to_thread(provider.start)
            provider.user("u1", preferred_username="ann", groups=["payments"])

            async def is_back() -> bool:
                return (await browser.get(LOGIN)).status_code == 303

            await soon(is_back, "it is asked again", 30)
            back = await provider.answer(await begin(browser), "u1")
            provider.stop()
            refused(await browser.get(back), 503, "login-provider-away")

            async def is_ready() -> bool:
                return (await site.ask(None, "GET", "/readyz")).status_code == 200

            await soon(is_ready, "all else goes on", 30)
    finally:
        provider.stop()
        provider.start()


@pytest.mark.parametrize(
    ("faults", "status", "slug", "says"),
    [
        ({"status": {"discovery": 500}}, 503, "login-provider-away", ""),
        ({"status": {"discovery": 429}}, 503, "login-provider-away", ""),
        ({"status": {"discovery": 404}}, 502, "login-provider", "answers 404"),
        ({"status": {"discovery": 302}}, 502, "login-provider", "redirects are not followed"),
        ({"document": {"issuer": "https://evil.example"}}, 502, "login-provider", "calls itself"),
        ({"document": {"token_endpoint": "http://10.0.0.1/token"}}, 502, "login-provider", "expected https"),
        ({"document": {"jwks_uri": "file:///etc/passwd"}}, 502, "login-provider", "expected"),
        ({"document": {"authorization_endpoint": "javascript:alert(1)"}}, 502, "login-provider", "expected"),
        ({"document": {"token_endpoint": None}}, 502, "login-provider", "no discovery document"),
        ({"padding_bytes": 600_000}, 502, "login-provider", "more than"),
    ],
)
async def test_a_provider_that_says_what_it_must_not_is_not_believed(
    browser: httpx.AsyncClient, provider: OidcProvider, faults: dict[str, Any], status: int, slug: str, says: str
) -> None:
    provider.go_wrong(**faults)
    refused(await browser.get(LOGIN), status, slug, says)


@pytest.mark.parametrize(
    ("faults", "status", "slug", "says"),
    [
        ({"status": {"token": 503}}, 503, "login-provider-away", ""),
        ({"status": {"token": 302}}, 502, "login-provider", "refuses this installation"),
        ({"status": {"token": 200}}, 502, "login-provider", "without an ID token"),
        ({"status": {"keys": 500}}, 503, "login-provider-away", ""),
        ({"status": {"keys": 302}}, 502, "login-provider", "redirects are not followed"),
        ({"answer": {"iss": "https%3A%2F%2Fevil.example"}}, 401, "unauthenticated", "another provider"),
        (
            {"document": {"authorization_response_iss_parameter_supported": True}},
            401,
            "unauthenticated",
            "another provider",
        ),
    ],
)
async def test_a_provider_that_goes_wrong_on_the_way_back_lets_nobody_in(
    site: Site,
    browser: httpx.AsyncClient,
    provider: OidcProvider,
    faults: dict[str, Any],
    status: int,
    slug: str,
    says: str,
) -> None:
    provider.go_wrong(**faults)
    answer = await log_in(browser, provider)
    refused(answer, status, slug, says)
    assert (status == 503) == ("retry-after" in answer.headers)
    assert await users_of(site) == []


async def test_an_answer_that_names_this_provider_is_taken(browser: httpx.AsyncClient, provider: OidcProvider) -> None:
    document = {"authorization_response_iss_parameter_supported": True}
    provider.go_wrong(document=document, answer={"iss": quote(provider.issuer, safe="")})
    assert (await log_in(browser, provider)).status_code == 303


@pytest.mark.parametrize("methods", [["client_secret_post"], ["client_secret_basic", "client_secret_post"]])
async def test_the_secret_is_sent_as_the_provider_wants_it(
    browser: httpx.AsyncClient, provider: OidcProvider, methods: list[str]
) -> None:
    provider.go_wrong(document={"token_endpoint_auth_methods_supported": methods})
    assert (await log_in(browser, provider)).status_code == 303


async def test_a_wrong_secret_is_for_those_who_run_this(native_url: str, provider: OidcProvider, capfd: Any) -> None:
    async with site_of(native_url, provider, client_secret="not the secret") as site, site.client() as browser:
        refused(await log_in(browser, provider), 502, "login-provider", "invalid_client")
    assert "not the secret" not in "".join(capfd.readouterr())


async def test_who_turns_back_at_the_provider_is_told_in_a_page(
    browser: httpx.AsyncClient, provider: OidcProvider
) -> None:
    refused(await log_in(browser, provider, None), 403, "login-denied", "turned back")
    back = await provider.answer(await begin(browser), None)
    page = await browser.get(back, headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.status_code == 403
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<h1>You are not let in</h1>" in page.text
    assert f'href="{LOGIN}"' in page.text


async def test_what_others_wrote_stands_in_pages_as_text(browser: httpx.AsyncClient, provider: OidcProvider) -> None:
    provider.go_wrong(document={"issuer": "<script>alert(1)</script>"})
    page = await browser.get(LOGIN, headers={"Accept": "text/html"})
    assert page.status_code == 502
    assert "&lt;script&gt;" in page.text
    assert "<script>" not in page.text
    page = await browser.get(CALLBACK, params={"state": "<img>", "error": "<img>"}, headers={"Accept": "text/html"})
    assert page.status_code == 401
    assert "<img>" not in page.text


async def test_secrets_and_codes_stand_in_no_log_of_ours(
    browser: httpx.AsyncClient, provider: OidcProvider, capfd: Any
) -> None:
    back = await provider.answer(await begin(browser), "u1")
    cookie = browser.cookies["logfeed_oidc"]
    assert (await browser.get(back)).status_code == 303
    refused(await browser.get(back, headers={"Cookie": f"logfeed_oidc={cookie}"}), 401, "unauthenticated")
    written = "".join(capfd.readouterr())
    for secret in (CLIENT_SECRET, query_of(back)["code"], cookie, browser.cookies["logfeed_refresh"]):
        assert secret not in written


# Settings


async def test_a_button_knows_whether_there_is_a_way_in(native_url: str, provider: OidcProvider) -> None:
    async with site_of(native_url, provider, label="Log in at Example") as site:
        offer = await site.ask(None, "GET", "/api/v1/auth/oidc")
        assert offer.json() == {"offered": True, "label": "Log in at Example"}
    async with running(native_url, is_first=False, audit=False) as site:
        assert (await site.ask(None, "GET", "/api/v1/auth/oidc")).json()["offered"] is False


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"client_id": None}, "client_id"),
        ({"grants": {}}, "access.oidc.grants"),
        ({"client_secret_file": "/x"}, "not both"),
    ],
)
async def test_settings_that_cannot_work_together_begin_nothing(
    native_url: str, provider: OidcProvider, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        async with site_of(native_url, provider, **change):
            pytest.fail("it began")
