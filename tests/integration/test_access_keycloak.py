"""Logging in through a real Keycloak, set up by the words of docs/access.md, through its own pages."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
import yaml

from infra.fleet import REPOSITORY
from infra.native.errors import InstallError
from infra.native.keycloak import KeycloakNode
from runtime.clock import SystemClock
from tests.access_site import Site, running
from tests.keycloak import Administrator, Person, person

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

LOGIN: Final = "/api/v1/auth/oidc/login"
CALLBACK: Final = "/api/v1/auth/oidc/callback"
REFRESH: Final = "/api/v1/auth/refresh"
SECRET: Final = "a secret: with % and +"
REALM: Final = "company"
ROLES_CLIENT: Final = "by-roles"
BLOCK: Final = re.compile(r"(?:^    .*\n|^\n)+", re.MULTILINE)


def documented(section: str, first_line: str) -> str:
    """The one example below a heading that begins so."""
    text = (REPOSITORY / "docs" / "access.md").read_text().partition(f"# {section}\n")[2]
    blocks = [textwrap.dedent(block).strip("\n") for block in BLOCK.findall(text)]
    return next(block for block in blocks if block.startswith(first_line))


CLIENT: Final[dict[str, Any]] = json.loads(documented("Keycloak", "{"))
SETTINGS: Final[dict[str, Any]] = yaml.safe_load(documented("Through a login provider", "http:"))
PUBLIC_URL: Final[str] = SETTINGS["http"]["public_url"]


def realm() -> dict[str, Any]:
    roles = {
        "name": "roles",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-usermodel-realm-role-mapper",
        "config": {"claim.name": "realm_access.roles", "multivalued": "true", "id.token.claim": "true"},
    }
    return {
        "realm": REALM,
        "enabled": True,
        "clients": [
            {**CLIENT, "secret": SECRET},
            {**CLIENT, "clientId": ROLES_CLIENT, "secret": SECRET, "protocolMappers": [roles]},
        ],
        "groups": [{"name": group} for group in ("payments", "operators", "others")],
        "roles": {"realm": [{"name": "payments"}]},
        "users": [person("ann", "payments", "others"), person("bob", roles=["payments"])],
    }


@pytest.fixture(scope="module")
def keycloak(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeycloakNode]:
    node = KeycloakNode(tmp_path_factory.mktemp("keycloak"), realm())
    try:
        try:
            node.start()
        except InstallError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no Keycloak on this machine: {error}")
        yield node
    finally:
        node.remove()


@pytest.fixture
def administrator(keycloak: KeycloakNode) -> Administrator:
    return Administrator(keycloak, REALM)


class Ahead(SystemClock):
    """A clock whose monotonic time can be set ahead."""

    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


@pytest.fixture
def clock() -> Ahead:
    return Ahead()


@asynccontextmanager
async def site_of(url: str, keycloak: KeycloakNode, clock: Ahead | None = None, **changes: Any) -> AsyncIterator[Site]:
    """changes: of the documented settings."""
    oidc = {**SETTINGS["access"]["oidc"], "issuer": keycloak.issuer, "client_secret": SECRET, **changes}
    del oidc["client_secret_file"]
    async with running(url, public_url=PUBLIC_URL, clock=clock, audit=False, oidc=oidc) as site:
        yield site


@pytest.fixture
async def site(native_url: str, keycloak: KeycloakNode, clock: Ahead) -> AsyncIterator[Site]:
    async with site_of(native_url, keycloak, clock) as site:
        yield site


class Visitor:
    """One person with one browser: at Keycloak, and here."""

    def __init__(self, site: Site, keycloak: KeycloakNode, name: str) -> None:
        self.there = Person(keycloak, name)
        self.here = site.client()
        self._site = site

    async def close(self) -> None:
        await self.there.close()
        await self.here.aclose()

    async def begin(self) -> str:
        """Where they are sent."""
        answer = await self.here.get(LOGIN, params={"return_to": "/logs"})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def come_back(self, address: str) -> httpx.Response:
        """What the callback answers."""
        assert address.startswith(f"{PUBLIC_URL}{CALLBACK}?"), address
        return await self.here.get(address.removeprefix(PUBLIC_URL))

    async def log_in(self) -> httpx.Response:
        """All of it; what the callback answers."""
        address, _ = await self.there.back_from(await self.begin())
        return await self.come_back(address)

    async def permissions(self) -> dict[str, list[str]]:
        """What their session may."""
        token = (await self.here.post(REFRESH)).raise_for_status().json()["access_token"]
        answer = (await self._site.ask(token, "GET", "/api/v1/auth/me")).raise_for_status()
        found: dict[str, list[str]] = answer.json()["permissions"]
        return found


@asynccontextmanager
async def visitor(site: Site, keycloak: KeycloakNode, name: str) -> AsyncIterator[Visitor]:
    found = Visitor(site, keycloak, name)
    try:
        yield found
    finally:
        await found.close()


def is_in(answer: httpx.Response) -> None:
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == f"{PUBLIC_URL}/logs"


def is_refused(answer: httpx.Response, status: int, says: str) -> None:
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]
    assert "logfeed_refresh" not in answer.headers.get("set-cookie", "")


def query_of(address: str) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(urlsplit(address).query).items()}


async def test_somebody_comes_in_by_their_groups_and_reads_what_is_theirs(site: Site, keycloak: KeycloakNode) -> None:
    await site.put([{"service_name": "pay/a"}, {"service_name": "shop"}])
    async with visitor(site, keycloak, "ann") as ann:
        address, was_asked = await ann.there.back_from(await ann.begin())
        assert was_asked
        assert query_of(address)["iss"] == keycloak.issuer, "RFC 9207, which is checked here"
        is_in(await ann.come_back(address))
        assert await ann.permissions() == {"read": ["pay/*"], "tail": ["pay/*"]}
        token = (await ann.here.post(REFRESH)).json()["access_token"]
        page = (await site.ask(token, "GET", "/api/v1/logs")).json()
        assert [log["service_name"] for log in page["logs"]] == ["pay/a"]
        assert [(user.name, user.issuer) for user in await site.accounts.users()] == [("ann", keycloak.issuer)]


async def test_roles_serve_as_groups(native_url: str, keycloak: KeycloakNode) -> None:
    changes: dict[str, Any] = {"client_id": ROLES_CLIENT, "groups_claim": "realm_access.roles"}
    async with site_of(native_url, keycloak, **changes) as site, visitor(site, keycloak, "bob") as bob:
        is_in(await bob.log_in())
        assert await bob.permissions() == {"read": ["pay/*"], "tail": ["pay/*"]}


async def test_a_group_taken_away_goes_at_the_next_login_from_all_sessions(
    site: Site, keycloak: KeycloakNode, administrator: Administrator
) -> None:
    name = await administrator.new_person("payments", "operators")
    async with visitor(site, keycloak, name) as before, visitor(site, keycloak, name) as after:
        is_in(await before.log_in())
        assert "admin" in await before.permissions()
        await administrator.take_away(name, "operators")
        assert "admin" in await before.permissions(), "as documented: groups are looked at when somebody logs in"
        is_in(await after.log_in())
        assert await before.permissions() == {"read": ["pay/*"], "tail": ["pay/*"]}
        await administrator.take_away(name, "payments")
        is_refused(await after.log_in(), 403, "none of your groups")
        assert await before.permissions() == {}


async def test_who_is_disabled_there_comes_in_no_more(
    site: Site, keycloak: KeycloakNode, administrator: Administrator
) -> None:
    name = await administrator.new_person("payments")
    async with visitor(site, keycloak, name) as before, visitor(site, keycloak, name) as after:
        is_in(await before.log_in())
        await administrator.change(name, enabled=False)
        for one in (before, after):
            assert "disabled" in await one.there.refused_at(await one.begin())
        assert await before.permissions() == {"read": ["pay/*"], "tail": ["pay/*"]}, "until access.oidc.session_s"
        await site.accounts.disable_user(name)
        await site.access.directory.refresh()
        assert (await before.here.post(REFRESH)).status_code == 401
        await administrator.change(name, enabled=True)
        is_refused(await after.log_in(), 403, "disabled")


async def test_a_wrong_password_is_keycloaks_matter_and_nobody_is_made(site: Site, keycloak: KeycloakNode) -> None:
    async with visitor(site, keycloak, "nobody-of-this-name") as stranger:
        assert "Invalid username or password" in await stranger.there.refused_at(await stranger.begin())
    assert await site.accounts.users() == []


async def test_logging_out_here_ends_nothing_there_and_the_other_way_round(
    site: Site, keycloak: KeycloakNode, administrator: Administrator
) -> None:
    name = await administrator.new_person("payments")
    async with visitor(site, keycloak, name) as one:
        is_in(await one.log_in())
        assert (await one.here.post("/api/v1/auth/logout")).status_code == 204
        assert (await one.here.post(REFRESH)).status_code == 401
        address, was_asked = await one.there.back_from(await one.begin())
        assert not was_asked, "Keycloak's session goes on"
        is_in(await one.come_back(address))
        await administrator.log_out(name)
        assert await one.permissions() == {"read": ["pay/*"], "tail": ["pay/*"]}, "as documented"
        _, was_asked = await one.there.back_from(await one.begin())
        assert was_asked


@pytest.mark.parametrize("secret", ["wrong", None])
async def test_a_wrong_client_secret_is_said_to_be_the_installations_fault(
    native_url: str, keycloak: KeycloakNode, secret: str | None
) -> None:
    async with site_of(native_url, keycloak, client_secret=secret) as site, visitor(site, keycloak, "ann") as ann:
        is_refused(await ann.log_in(), 502, "check client_id and client_secret")
        assert await site.accounts.users() == []


async def test_the_client_asks_for_pkce_and_gets_it(site: Site, keycloak: KeycloakNode) -> None:
    async with visitor(site, keycloak, "ann") as ann:
        asked = query_of(await ann.begin())
        assert asked["code_challenge_method"] == "S256"
        without = urlencode({name: value for name, value in asked.items() if not name.startswith("code_challenge")})
        address = await ann.there.left_from(f"{keycloak.issuer}/protocol/openid-connect/auth?{without}")
        answer = await ann.come_back(address)
        is_refused(answer, 502, "refuses this installation (invalid_request)")
        is_in(await ann.log_in())


async def test_a_stolen_code_is_worth_nothing_in_another_attempt(site: Site, keycloak: KeycloakNode) -> None:
    async with visitor(site, keycloak, "ann") as ann, visitor(site, keycloak, "ann") as thief:
        stolen, _ = await ann.there.back_from(await ann.begin())
        state = query_of(await thief.begin())["state"]
        query = urlencode({**query_of(stolen), "state": state})
        is_refused(await thief.come_back(f"{PUBLIC_URL}{CALLBACK}?{query}"), 401, "does not take this code")


@pytest.mark.parametrize("algorithm", ["PS256", "ES256", "EdDSA"])
async def test_other_algorithms_sign_as_well(
    site: Site, keycloak: KeycloakNode, administrator: Administrator, clock: Ahead, algorithm: str
) -> None:
    async with visitor(site, keycloak, "ann") as ann:
        is_in(await ann.log_in())
        await administrator.sign_by(CLIENT["clientId"], algorithm)
        try:
            clock.ahead_s += 60
            is_in(await ann.log_in())
        finally:
            await administrator.sign_by(CLIENT["clientId"], "RS256")


async def test_a_new_key_is_found_when_it_signs(
    site: Site, keycloak: KeycloakNode, administrator: Administrator, clock: Ahead
) -> None:
    async with visitor(site, keycloak, "ann") as ann:
        is_in(await ann.log_in())
        await administrator.new_rsa_key(priority=1_000)
        is_refused(await ann.log_in(), 503, "a key that it does not publish yet")
        clock.ahead_s += 60
        is_in(await ann.log_in())
