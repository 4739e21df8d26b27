"""HTTP to addresses that people configure, without letting them reach what only this host can (SSRF).

The name is resolved once; the connection goes to one of those very addresses, so that a name that answers otherwise the second
time changes nothing. Addresses that are not public are refused unless `alerts.allowed_networks` names them; IPv4 addresses in
IPv6's clothes count as what they are. TLS is verified against the name. No redirect is followed, no proxy of the environment is
asked, at most ANSWER_BYTES_MAX of an answer are read, undecoded, and the caller bounds the whole in time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import httpx

from alerts.errors import DeliveryFailed, DeliveryRefused
from runtime.harmless import harmless

ANSWER_BYTES_MAX: Final = 16 * 1024
_SHOWN_CHARS_MAX: Final = 200

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses as text. Raises OSError."""
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL: Final = ipaddress.ip_network("64:ff9b:1::/48")


async def resolve(host: str, port: int) -> list[str]:
    """The system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for _, _, _, _, address in found))


def check_url(url: str) -> str:
    """Raises ValueError unless it is an http or https address that can be asked."""
    try:
        parts = urlsplit(url)
        port = parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise ValueError(f"is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("expected an http or https address")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("expected an address without user, password or #")
    if not url.isprintable() or " " in url or "%" in parts.hostname:
        raise ValueError("expected an address without spaces, control characters, or a zone")
    return url


def is_permitted(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether a connection may go there."""
    address = _bare(address)
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
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await self._address(host, port)
        shown = f"[{address}]" if address.version == 6 else str(address)
        target = httpx.URL(url).copy_with(host=shown.strip("[]"), port=port)
        is_default = port == (443 if parts.scheme == "https" else 80)
        name = f"[{host}]" if ":" in host else host.encode("idna").decode() if not host.isascii() else host
        request = self._client.build_request(
            "POST",
            target,
            content=body,
            headers={**headers, "Host": name if is_default else f"{name}:{port}", "User-Agent": "logfeed-alerts"},
            # TLS asks for, and is verified against, the name and not the address.
            extensions={**self._timeouts(), "sni_hostname": name.strip("[]")},
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
            texts: Sequence[str] = [str(ipaddress.ip_address(host))]
        except ValueError:
            try:
                texts = await self._resolve(host, port)
            except (OSError, UnicodeError) as error:
                raise DeliveryFailed(
                    f"the host's name is not known: {getattr(error, 'strerror', None) or error}"
                ) from error
        addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in texts]
        for address in addresses:
            if is_permitted(address, self._allowed):
                return address
        if not addresses:
            raise DeliveryFailed("the host has no address")
        raise DeliveryRefused(
            f"{addresses[0]} is not a public address: alerts.allowed_networks names those that may be reached all the same"
        )


def _bare(address: Address) -> Address:
    """The IPv4 address that an IPv6 one only carries."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    carried = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    if carried is None and (address in _NAT64 or int(address) >> 32 == 0):
        carried = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF) if int(address) > 1 else None
    return carried or address


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
