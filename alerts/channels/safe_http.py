"""HTTP to addresses that people configure, without letting them reach what only this host can (SSRF).

The connection goes to the address that was judged (`runtime/outgoing.py`). Addresses that are not public are refused unless
`alerts.allowed_networks` names them. No redirect is followed, no proxy of the environment is asked, at most ANSWER_BYTES_MAX of
an answer are read, undecoded, and the caller bounds the whole in time.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping, Sequence
from typing import Final

import httpx

from alerts.errors import DeliveryFailed, DeliveryRefused
from runtime.harmless import harmless
from runtime.outgoing import Address, Network, Resolve, addresses_of, bare, pinned, place_of, resolve

ANSWER_BYTES_MAX: Final = 16 * 1024
_SHOWN_CHARS_MAX: Final = 200

_NAT64_LOCAL: Final = ipaddress.ip_network("64:ff9b:1::/48")


def is_permitted(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether a connection may go there."""
    address = bare(address)
    if any(address in network for network in allowed):
        return True
    if address.version == 6 and (address.is_site_local or address in _NAT64_LOCAL):
        return False  # of this site's network, whatever `is_global` says
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class SafeHttp:
    """Posts to one address at a time."""

    def __init__(
        self, allowed_networks: Sequence[str], *, resolver: Resolve = resolve, tls: ssl.SSLContext | None = None
    ) -> None:
        """allowed_networks: CIDR. tls: None verifies against the system's authorities."""
        self._allowed = tuple(map(ipaddress.ip_network, allowed_networks))
        self._resolve = resolver
        self._client = httpx.AsyncClient(
            verify=tls if tls is not None else ssl.create_default_context(),
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(10.0),
            # Each attempt looks where it goes: a kept connection would be to where the name pointed once.
            limits=httpx.Limits(max_connections=10, max_keepalive_connections=0),
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """2xx, or DeliveryFailed; DeliveryRefused for an address that is not permitted. Errors do not show the URL."""
        address = await self._address(*place_of(url))
        target, host, tls = pinned(url, address)
        request = self._client.build_request(
            "POST",
            target,
            content=body,
            headers={**headers, "Host": host, "User-Agent": "logfeed-alerts"},
            extensions={**self._timeouts(), **tls},
        )
        try:
            answer = await self._client.send(request, stream=True)
            try:
                text = await _start_of(answer)
            finally:
                await answer.aclose()
        except httpx.HTTPError as error:
            raise DeliveryFailed(f"{type(error).__name__}: {_shown(str(error))}") from None
        if not answer.is_success:
            hint = ": redirects are not followed" if answer.is_redirect else f": {_shown(text)}" if text.strip() else ""
            raise DeliveryFailed(f"answered {answer.status_code}{hint}")

    async def close(self) -> None:
        """Free connections."""
        await self._client.aclose()

    @staticmethod
    def _timeouts() -> dict[str, dict[str, float]]:
        return {"timeout": {"connect": 10.0, "read": 10.0, "write": 10.0, "pool": 10.0}}

    async def _address(self, host: str, port: int) -> Address:
        try:
            addresses = await addresses_of(host, port, self._resolve)
        except (OSError, UnicodeError) as error:
            raise DeliveryFailed(
                f"the host's name is not known: {getattr(error, 'strerror', None) or error}"
            ) from error
        for address in addresses:
            if is_permitted(address, self._allowed):
                return address
        if not addresses:
            raise DeliveryFailed("the host has no address")
        raise DeliveryRefused(
            f"{addresses[0]} is not a public address: alerts.allowed_networks names those that may be reached all the same"
        )


async def _start_of(answer: httpx.Response) -> str:
    """The first bytes of an answer as they came, ANSWER_BYTES_MAX at most: nobody is made to unpack or to wait for the rest."""
    found = b""
    async for chunk in answer.aiter_raw():
        found += chunk
        if len(found) >= ANSWER_BYTES_MAX:
            break
    return found[:ANSWER_BYTES_MAX].decode("utf-8", "replace")


def _shown(text: str) -> str:
    return harmless(" ".join(text.split()))[:_SHOWN_CHARS_MAX]
