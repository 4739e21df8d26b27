"""What people and administrators do at a Keycloak (`infra.native.keycloak`): its own forms, and its Admin API."""

from __future__ import annotations

import html
import re
import uuid
from collections.abc import Sequence
from typing import Any, Final

import httpx

from infra.native.keycloak import ADMIN, KeycloakNode

PASSWORD: Final = "correct horse battery"
_FORM: Final = re.compile(r'<form[^>]*id="kc-form-login"[^>]*action="([^"]+)"')
_TIMEOUT_S: Final = 60


def person(name: str, *groups: str, roles: Sequence[str] = ()) -> dict[str, Any]:
    """Somebody as Keycloak imports them, with all that it asks of people. groups: of the realm's top."""
    return {
        "username": name,
        "enabled": True,
        "email": f"{name}@example.org",
        "emailVerified": True,
        "firstName": name.title(),
        "lastName": "Example",
        "credentials": [{"type": "password", "value": PASSWORD}],
        "groups": [f"/{group}" for group in groups],
        "realmRoles": list(roles),
    }


class Administrator:
    """Changes one realm."""

    def __init__(self, node: KeycloakNode, realm: str) -> None:
        """node: runs."""
        self._node = node
        self._realm = realm

    async def new_person(self, *groups: str) -> str:
        """Their name."""
        name = f"p-{uuid.uuid4().hex[:8]}"
        await self.ask("POST", "users", person(name, *groups))
        return name

    async def change(self, name: str, **changes: Any) -> None:
        """Fields of somebody. changes: of Keycloak's UserRepresentation."""
        found = await self._person(name)
        await self.ask("PUT", f"users/{found['id']}", {**found, **changes})

    async def take_away(self, name: str, group: str) -> None:
        """Somebody's group."""
        person_id = (await self._person(name))["id"]
        [group_id] = [
            each["id"] for each in await self.ask("GET", f"users/{person_id}/groups") if each["name"] == group
        ]
        await self.ask("DELETE", f"users/{person_id}/groups/{group_id}")

    async def log_out(self, name: str) -> None:
        """End all of somebody's sessions there."""
        await self.ask("POST", f"users/{(await self._person(name))['id']}/logout")

    async def sign_by(self, client_id: str, algorithm: str) -> None:
        """The ID tokens of a client."""
        [client] = await self.ask("GET", f"clients?clientId={client_id}")
        client["attributes"]["id.token.signed.response.alg"] = algorithm
        await self.ask("PUT", f"clients/{client['id']}", client)

    async def new_rsa_key(self, *, priority: int) -> None:
        """One that signs from now on, if its priority is the highest."""
        realm_id = (await self.ask("GET", ""))["id"]
        key = {"providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider", "parentId": realm_id}
        await self.ask(
            "POST", "components", {**key, "name": f"key {priority}", "config": {"priority": [str(priority)]}}
        )

    async def ask(self, method: str, path: str, content: Any = None) -> Any:
        """A question to the Admin API; its JSON, None where there is none. Any: JSON."""
        form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": self._node.secret()}
        async with httpx.AsyncClient(base_url=self._node.url, trust_env=False, timeout=_TIMEOUT_S) as client:
            token = (await client.post("/realms/master/protocol/openid-connect/token", data=form)).raise_for_status()
            bearer = {"Authorization": f"Bearer {token.json()['access_token']}"}
            url = f"/admin/realms/{self._realm}/{path}".rstrip("/")
            answer = (await client.request(method, url, json=content, headers=bearer)).raise_for_status()
        return answer.json() if answer.content else None

    async def _person(self, name: str) -> dict[str, Any]:
        [found] = await self.ask("GET", f"users?exact=true&username={name}")
        return dict(found)


class Person:
    """Somebody's browser at Keycloak: it keeps the cookies of its session there."""

    def __init__(self, node: KeycloakNode, name: str) -> None:
        """name: what they enter."""
        self._url = node.url
        self._name = name
        self._browser = httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_S, event_hooks={"response": [self._keep]})

    async def close(self) -> None:
        """Close the browser."""
        await self._browser.aclose()

    async def back_from(self, address: str) -> tuple[str, bool]:
        """Go to an address there, log in if a form asks for it, and leave again: the address they are sent to, and whether they
        were asked. AssertionError with the page that keeps them there."""
        answer = await self._arrive(await self._browser.get(address))
        is_asked = answer.status_code == 200
        if is_asked:
            answer = await self.enter(answer)
        assert answer.is_redirect, answer.text
        return answer.headers["location"], is_asked

    async def left_from(self, address: str) -> str:
        """Where an address there sends them at once."""
        answer = await self._browser.get(address)
        assert answer.is_redirect, answer.text
        return str(answer.headers["location"])

    async def refused_at(self, address: str) -> str:
        """Go there and log in: the page that keeps them there."""
        answer = await self.enter(await self._arrive(await self._browser.get(address)))
        assert not answer.is_redirect, answer.headers["location"]
        return answer.text

    async def enter(self, page: httpx.Response, password: str = PASSWORD) -> httpx.Response:
        """Fill in the form of a page."""
        found = _FORM.search(page.text)
        assert found is not None, page.text
        form = {"username": self._name, "password": password, "credentialId": ""}
        return await self._arrive(await self._browser.post(html.unescape(found[1]), data=form))

    async def _keep(self, _: httpx.Response) -> None:
        """Cookies of https go to this machine by http too, as browsers do it."""
        for cookie in self._browser.cookies.jar:
            cookie.secure = False

    async def _arrive(self, answer: httpx.Response) -> httpx.Response:
        """Where Keycloak sends them within itself."""
        while answer.is_redirect and answer.headers["location"].startswith(self._url):
            answer = await self._browser.get(answer.headers["location"])
        return answer
