"""ID tokens: what makes one good (OpenID Connect Core 1.0, section 3.1.3.7). Pure; joserfc does the cryptography.

Only signatures of a public key count, by the algorithms named here, so that neither "none" nor a public key used as an HMAC
secret is one; the key must be of the provider's set, and of the token's algorithm where it says of which it is. What a token's
own header says of keys (jwk, jku, x5c) counts for nothing.
"""

from __future__ import annotations

import hmac
import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from joserfc import jws, jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from access.errors import Unauthenticated

CLOCKS_APART_S: Final = 60
"""How far the provider's clock may be from ours."""
TOKEN_CHARS_MAX: Final = 128 * 1024
KEYS_MAX: Final = 100

PublicKey = RSAKey | ECKey | OKPKey

_KEY_TYPES: Final[dict[str, type[PublicKey]]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSAKey),
    **dict.fromkeys(("ES256", "ES384", "ES512"), ECKey),
    **dict.fromkeys(("EdDSA", "Ed25519"), OKPKey),
}
_KINDS: Final[dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
"""By `kty`."""
_RSA_BITS_MIN: Final = 2_048
_SUBJECT_CHARS_MAX: Final = 255


class _Registry(jws.JWSRegistry):
    max_header_length = 16 * 1024  # some send chains of certificates there


_ASYMMETRIC: Final = _Registry(algorithms=sorted(_KEY_TYPES), strict_check_header=False)
logging.getLogger("joserfc").setLevel(logging.ERROR)


class IdTokenRefused(Unauthenticated):
    """The provider's ID token is not good."""

    def __init__(self, why: str) -> None:
        """why: goes on "it …"."""
        super().__init__(f"the provider's ID token was refused: it {why}", error="invalid_token")


class UnknownKey(IdTokenRefused):
    """It was not signed by a key that is known: the provider may have a new one."""


def public_keys(documents: Iterable[Any]) -> list[PublicKey]:
    """The keys of a JSON Web Key Set that may verify signatures; what is none, or is not understood, is left out (RFC 7517)."""
    found: list[PublicKey] = []
    for document in documents:
        if not isinstance(document, dict) or document.get("use", "sig") != "sig" or len(found) >= KEYS_MAX:
            continue
        kind = _KINDS.get(str(document.get("kty")))
        if kind is None:
            continue
        try:
            key: PublicKey = kind.import_key(document)
            if isinstance(key, RSAKey) and key.public_key.key_size < _RSA_BITS_MIN:
                continue
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        found.append(key)
    return found


def read_id_token(
    token: str, keys: Sequence[PublicKey], *, issuer: str, client_id: str, nonce: str, now_s: float
) -> dict[str, Any]:
    """The claims of a good token, `sub` among them. now_s: wall time. Raises UnknownKey, IdTokenRefused."""
    if len(token) > TOKEN_CHARS_MAX:
        raise IdTokenRefused(f"is longer than {TOKEN_CHARS_MAX} characters")
    claims = _signed_claims(token, keys)
    if claims.get("iss") != issuer:
        raise IdTokenRefused("is of another issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if client_id not in audiences:
        raise IdTokenRefused("is for somebody else: access.oidc.client_id is not its audience")
    if claims.get("azp", None if len(audiences) > 1 else client_id) != client_id:
        raise IdTokenRefused("was given to another client")
    expires_s, issued_s = (_seconds(claims.get(name)) for name in ("exp", "iat"))
    if expires_s is None or issued_s is None:
        raise IdTokenRefused("says not when it was made and expires")
    if expires_s <= now_s - CLOCKS_APART_S:
        raise IdTokenRefused("has expired")
    not_before_s = _seconds(claims.get("nbf", issued_s))
    if max(issued_s, math.inf if not_before_s is None else not_before_s) > now_s + CLOCKS_APART_S:
        raise IdTokenRefused("is not valid yet: the provider's clock or ours is wrong")
    found_nonce = claims.get("nonce")
    if not isinstance(found_nonce, str) or not hmac.compare_digest(found_nonce.encode(), nonce.encode()):
        raise IdTokenRefused("is of another login")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= _SUBJECT_CHARS_MAX or not subject.isprintable():
        raise IdTokenRefused("says not who it is of")
    return claims


def _signed_claims(token: str, keys: Sequence[PublicKey]) -> dict[str, Any]:
    try:
        header = jws.extract_compact(token.encode(), registry=_ASYMMETRIC).headers()
        algorithm, kid = header.get("alg"), header.get("kid")
        kind = _KEY_TYPES.get(algorithm) if isinstance(algorithm, str) else None
        if kind is None:
            raise IdTokenRefused(f"is signed by {str(algorithm)[:20]!r}: expected one of {', '.join(_KEY_TYPES)}")
        if "crit" in header:
            raise IdTokenRefused("asks for extensions that are not known here")
        fitting = [key for key in keys if isinstance(key, kind) and key.get("alg") in (None, algorithm)]
        named = fitting if kid is None else [key for key in fitting if key.kid == kid]
        if not named or (kid is None and len(named) > 1):
            raise UnknownKey("is signed by a key that the provider does not publish")
        return jwt.decode(token, named[0], registry=_ASYMMETRIC).claims
    except BadSignatureError as error:
        # Without a name it may be the provider's next key.
        raise (UnknownKey if kid is None else IdTokenRefused)("is not signed by the provider") from error
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise IdTokenRefused("cannot be read") from error


def _seconds(value: object) -> float | None:
    """A JSON number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e12 else None
