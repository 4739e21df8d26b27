"""From which pages a browser may act here: those that this server served, and those that the settings name.

A browser says whose page sends a request (`Sec-Fetch-Site`, `Origin`), and no script can change that. It sends cookies by
itself, and opens WebSockets to anywhere, so both must ask. Programs that are no browser send neither header and are let
through: they bring no cookie that they did not get themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from starlette.requests import HTTPConnection

_ORIGIN: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[1-9][0-9]{0,4}))?",
    re.IGNORECASE | re.ASCII,
)
"""As browsers write it: names of other letters in punycode."""
_PORTS: Final = {"http": 80, "https": 443}
_OWN_SITES: Final = ("same-origin", "none")
"""Values of Sec-Fetch-Site: a page of ours, or the user by hand."""
_TLS_SCHEMES: Final = ("https", "wss")


def origin_of(text: str) -> str:
    """The origin in one spelling: `https://logs.example:443`. Raises ValueError when it is none (RFC 6454)."""
    found = _ORIGIN.fullmatch(text)
    if found is None:
        raise ValueError(f"expected an origin like https://logs.example or http://host:8080, got {text[:200]!r}")
    scheme, host, port = found["scheme"].lower(), found["host"].lower(), found["port"]
    return f"{scheme}://{host}:{int(port) if port else _PORTS[scheme]}"


class Origins:
    """Decides for one server."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        """allowed: origins beside its own. Raises ValueError for what is none."""
        self._allowed = frozenset(origin_of(each) for each in allowed)

    def admit(self, connection: HTTPConnection) -> bool:
        """Whether the request or WebSocket comes from a page that may act here, or from no browser at all. Raises nothing."""
        headers = connection.headers
        origins, sites = headers.getlist("origin"), headers.getlist("sec-fetch-site")
        if not origins:
            return all(site in _OWN_SITES for site in sites)
        try:
            origin = origin_of(origins[0])
        except ValueError:  # `null`, of sandboxed pages and files, is nobody's
            return False
        if len(origins) > 1 or len(sites) > 1:
            return False
        if origin in self._allowed:
            return True
        if sites:
            return sites[0] in _OWN_SITES
        return _is_own(origin, headers.get("host", ""), is_tls=connection.scope["scheme"] in _TLS_SCHEMES)


def _is_own(origin: str, host: str, *, is_tls: bool) -> bool:
    """Whether the page came from the host that the request went to. Its scheme is believed where a proxy may speak TLS for us;
    where we do ourselves, a page that came without it may have been anybody's."""
    scheme = origin.partition(":")[0]
    if is_tls and scheme != "https":
        return False
    try:
        return origin_of(f"{scheme}://{host}") == origin
    except ValueError:
        return False
