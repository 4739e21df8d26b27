"""Where a server is and how one connects to it: arguments, else what the environment says."""

from __future__ import annotations

import os
import ssl
from typing import Any, Final
from urllib.parse import urlsplit

URL_VARIABLE: Final = "LOGFEED_URL"
KEY_VARIABLE: Final = "LOGFEED_API_KEY"
CA_VARIABLE: Final = "LOGFEED_CA_FILE"
"""PEM file of the authorities that https servers are believed by, instead of the usual ones."""
URL_DEFAULT: Final = "http://127.0.0.1:8080"
_LOCAL: Final = ("127.0.0.1", "localhost", "::1")


def checked_url(url: str | None) -> str:
    """The address without a slash at its end; None: LOGFEED_URL, else this machine's. Raises ValueError."""
    address = url or os.environ.get(URL_VARIABLE) or URL_DEFAULT
    parsed = urlsplit(address)
    if parsed.scheme not in ("http", "https") or not parsed.hostname or parsed.query or parsed.fragment:
        raise ValueError(f"url must be like {URL_DEFAULT}, got {address!r}")
    return address.rstrip("/")


def key_of(api_key: str | None) -> str | None:
    """The key; None: LOGFEED_API_KEY."""
    return api_key or os.environ.get(KEY_VARIABLE) or None


def client_options(url: str) -> dict[str, Any]:
    """Arguments of httpx's clients, of many types. Proxies of the environment do not hold for this machine; without TLS no
    authorities are loaded, which costs 30 ms of CPU (redirects are not followed). Raises OSError, ssl.SSLError for a file of
    authorities that cannot be read."""
    parsed = urlsplit(url)
    file = os.environ.get(CA_VARIABLE)
    verify: ssl.SSLContext | bool = False
    if parsed.scheme == "https":
        verify = ssl.create_default_context(cafile=file) if file else True
    return {"trust_env": parsed.hostname not in _LOCAL, "verify": verify}
