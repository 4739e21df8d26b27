"""Where a server is and how one connects to it: arguments, else what the environment says."""

from __future__ import annotations

import os
import re
import ssl
from typing import Any, Final
from urllib.parse import urlsplit

URL_VARIABLE: Final = "LOGFEED_URL"
KEY_VARIABLE: Final = "LOGFEED_API_KEY"
CA_VARIABLE: Final = "LOGFEED_CA_FILE"
"""PEM file of the authorities that https servers are believed by, instead of the usual ones."""
URL_DEFAULT: Final = "http://127.0.0.1:8080"
_KEY: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)
_LOCAL: Final = ("127.0.0.1", "localhost", "::1")


def checked_url(url: str | None) -> str:
    """The address without a slash at its end; None: LOGFEED_URL, else this machine's. Raises ValueError."""
    address = url or os.environ.get(URL_VARIABLE) or URL_DEFAULT
    parsed = urlsplit(address)
    if parsed.scheme not in ("http", "https") or not parsed.hostname or parsed.query or parsed.fragment:
        raise ValueError(f"url must be like {URL_DEFAULT}, got {shown_url(address)!r}")
    return address.rstrip("/")


def shown_url(url: str) -> str:
    """As people are told it: without a name and a password."""
    begin, slashes, rest = url.rpartition("//")
    return f"{begin}{slashes}{rest.rpartition('@')[2]}"


def key_of(api_key: str | None) -> str | None:
    """The key; None: LOGFEED_API_KEY. Raises ValueError."""
    return checked_key(api_key or os.environ.get(KEY_VARIABLE))


def checked_key(api_key: str | None) -> str | None:
    """Without the white space that files and variables have around it; None where nothing is left. Raises ValueError, which
    does not tell the key: what no header takes HTTP libraries would tell in full."""
    key = (api_key or "").strip()
    if key and not _KEY.fullmatch(key):
        raise ValueError("the API key has a character that no header takes: is it whole, and nothing else?")
    return key or None


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
