"""Access tokens: JWT (RFC 7519) with one fixed algorithm, HMAC-SHA256, signed with the database's secret. Pure.

A token says which user and session it is of, nothing of rights: those are looked up at each request, so that they change within
seconds. Only the header that we write ourselves is taken: no other algorithm, type, key id or critical extension.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

ALGORITHM: Final = "HS256"
TYPE: Final = "at+jwt"
"""RFC 9068."""
ISSUER: Final = "logfeed"
AUDIENCE: Final = "logfeed-api"

_ONLY_OURS: Final = jws.JWSRegistry(algorithms=[ALGORITHM])
logging.getLogger("joserfc").setLevel(logging.ERROR)


class Claims(NamedTuple):
    """Whose token it is."""

    user_id: int
    session_id: str


def new_access_token(claims: Claims, secret: bytes, *, now_s: int, lives_s: int) -> str:
    """A signed token. now_s: wall time, seconds since the Unix epoch."""
    header = {"alg": ALGORITHM, "typ": TYPE}
    content = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(claims.user_id),
        "sid": claims.session_id,
        "iat": now_s,
        "exp": now_s + lives_s,
    }
    return jwt.encode(header, content, OctKey.import_key(secret), registry=_ONLY_OURS)


def read_access_token(token: str, secret: bytes, *, now_s: int) -> Claims | None:
    """Whose token it is; None unless it is ours, whole and not expired at now_s. Raises nothing."""
    try:
        found = jwt.decode(token, OctKey.import_key(secret), registry=_ONLY_OURS)
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        return None
    claims = found.claims
    expires, subject, session = claims.get("exp"), claims.get("sub"), claims.get("sid")
    is_ours = found.header == {"alg": ALGORITHM, "typ": TYPE} and (claims.get("iss"), claims.get("aud")) == (
        ISSUER,
        AUDIENCE,
    )
    if not is_ours or type(expires) is not int or expires <= now_s:
        return None
    if not isinstance(subject, str) or not subject.isdecimal() or not subject.isascii() or not isinstance(session, str):
        return None
    return Claims(int(subject), session)
