"""One attempt to log in, from leaving for the provider to coming back, bound to the browser that began it. Pure.

The browser holds a cookie, signed by us, with a random number, an end and where to go afterwards. State, nonce and PKCE's
verifier are computed of that number and the database's secret: nothing has to be stored, any process takes up what another
began, and the cookie tells its holder none of them. Keys are derived for this purpose alone: no cookie is an access token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final, NamedTuple

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from access.oidc.addresses import is_local_path

ATTEMPT_S: Final = 600
"""How long somebody may take at the provider."""

_HEADER: Final = {"alg": "HS256", "typ": "oidc-attempt+jwt"}
_ONLY_OURS: Final = jws.JWSRegistry(algorithms=["HS256"])


class Attempt(NamedTuple):
    """What the way back is compared with."""

    number: str
    return_to: str
    """A path of this site."""
    state: str
    nonce: str
    verifier: str
    """Of PKCE: 43 characters, 256 bits."""

    @property
    def challenge(self) -> str:
        """S256 of the verifier (RFC 7636)."""
        return _text(hashlib.sha256(self.verifier.encode()).digest())


def new_attempt(secret: bytes, return_to: str, *, now_s: int) -> tuple[Attempt, str]:
    """A new one, and the cookie for the browser. now_s: wall time, seconds since the Unix epoch."""
    number = secrets.token_urlsafe(32)
    claims = {"jti": number, "exp": now_s + ATTEMPT_S, "to": return_to}
    cookie = jwt.encode(dict(_HEADER), claims, OctKey.import_key(_derived(secret, "cookie")), registry=_ONLY_OURS)
    return _attempt(secret, number, return_to), cookie


def read_attempt(secret: bytes, cookie: str, *, now_s: int) -> Attempt | None:
    """The attempt of a cookie; None unless it is ours, whole and not over. Raises nothing."""
    try:
        found = jwt.decode(cookie, OctKey.import_key(_derived(secret, "cookie")), registry=_ONLY_OURS)
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        return None
    number, expires, return_to = (found.claims.get(name) for name in ("jti", "exp", "to"))
    if found.header != _HEADER or type(expires) is not int or expires <= now_s:
        return None
    if not isinstance(number, str) or not isinstance(return_to, str) or not is_local_path(return_to):
        return None
    return _attempt(secret, number, return_to)


def _attempt(secret: bytes, number: str, return_to: str) -> Attempt:
    def part(purpose: str) -> str:
        return _text(hmac.digest(_derived(secret, purpose), number.encode(), "sha256"))

    return Attempt(number, return_to, part("state"), part("nonce"), part("verifier"))


def _derived(secret: bytes, purpose: str) -> bytes:
    return hmac.digest(secret, f"logfeed oidc {purpose}".encode(), "sha256")


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
