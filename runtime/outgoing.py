"""HTTP requests to addresses that others name, sent to the very address that was judged (SSRF).

The name is resolved once, who sends judges what it means, and the URL then carries the address; TLS is asked for, and verified
against, the name, and so is Host. A name that answers otherwise the second time changes nothing. IPv4 addresses in IPv6's
clothes count as what they are.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses as text. Raises OSError."""

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


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


def place_of(url: str) -> tuple[str, int]:
    """Host and port of a URL that was checked."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _default_port(parts.scheme)


async def addresses_of(host: str, port: int, resolver: Resolve) -> list[Address]:
    """What a host's name means now, in the resolver's order; an address means itself. Raises OSError, UnicodeError."""
    try:
        texts: Sequence[str] = [str(ipaddress.ip_address(host))]
    except ValueError:
        texts = await resolver(host, port)
    return [ipaddress.ip_address(text.partition("%")[0]) for text in texts]


def bare(address: Address) -> Address:
    """The IPv4 address that an IPv6 one only carries; any other as it is."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    carried = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    if carried is None and (address in _NAT64 or int(address) >> 32 == 0):
        carried = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF) if int(address) > 1 else None
    return carried or address


def pinned(url: str, address: Address) -> tuple[httpx.URL, str, dict[str, Any]]:
    """The URL with the address in the place of the name, the header Host, and httpx's extensions for TLS. Any: as httpx's."""
    host, port = place_of(url)
    name = f"[{host}]" if ":" in host else host.encode("idna").decode() if not host.isascii() else host
    is_default = port == _default_port(urlsplit(url).scheme)
    target = httpx.URL(url).copy_with(host=str(address), port=port)
    return target, name if is_default else f"{name}:{port}", {"sni_hostname": name.strip("[]")}


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80
