"""Which addresses are spoken to: https, or http on this machine alone. Pure."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from runtime.addresses import is_loopback

_CHARS_MAX = 2_000


def checked_address(url: str, *, loopback: bool = True) -> SplitResult:
    """The parts of an absolute address without user, fragment or characters that readers disagree about.

    loopback: whether http is allowed on this machine. Raises ValueError with what was expected.
    """
    parts = urlsplit(url)
    plain = url.isascii() and url.isprintable() and not any(sign in url for sign in ' \\"<>') and len(url) <= _CHARS_MAX
    if not plain or not parts.hostname or parts.username is not None or parts.password is not None or "#" in url:
        raise ValueError("expected an address such as https://login.example.org/path")
    _ = parts.port  # raises ValueError for what is none
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback and is_loopback(parts.hostname)):
        raise ValueError("expected https://, or http:// on this machine alone (127.0.0.1, ::1, localhost)")
    return parts


def checked_origin(url: str) -> str:
    """scheme://host[:port] without a path. Raises ValueError."""
    parts = checked_address(url)
    if parts.path not in ("", "/") or parts.query:
        raise ValueError("expected scheme, host and port without a path, such as https://logs.example.org")
    return f"{parts.scheme}://{parts.netloc}"


def is_local_path(text: str, *, chars_max: int = 1_000) -> bool:
    """Whether a text is a path (with a query, perhaps) of this site, for every browser: one slash, and nothing that any of
    them drops or takes for another (tabs, line ends, backslashes)."""
    if not 1 <= len(text) <= chars_max or not text.isascii() or not text.isprintable():
        return False
    return text.startswith("/") and not text.startswith("//") and not any(sign in text for sign in ' \\"<>')
