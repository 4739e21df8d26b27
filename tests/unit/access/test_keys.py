"""API keys and access tokens as texts."""

from __future__ import annotations

import base64
import json

import pytest
from joserfc import jws, jwt
from joserfc.jwk import OctKey, RSAKey

from access.keys import KEY_PATTERN, key_prefix, key_sha256, new_key
from access.tokens import Claims, new_access_token, read_access_token

SECRET = b"s" * 32
NOW_S = 1_800_000_000
GOOD = {"iss": "logfeed", "aud": "logfeed-api", "sub": "7", "sid": "s", "iat": NOW_S, "exp": NOW_S + 60}


def test_keys_are_random_and_known_by_their_prefix() -> None:
    keys = [new_key() for _ in range(100)]
    assert len({key.prefix for key in keys}) == len({key.text for key in keys}) == 100
    for key in keys:
        assert KEY_PATTERN.fullmatch(key.text)
        assert key_prefix(key.text) == key.prefix
        assert key_sha256(key.text) == key.sha256


@pytest.mark.parametrize("text", ["", "lf_", "lf_abc", "lf_" + "a" * 56, "lf_" + "_" * 57, "x" * 59, "lf_é" + "a" * 55])
def test_what_is_no_key_has_no_prefix(text: str) -> None:
    assert key_prefix(text) in (None, text[3:15])


def _made(header: dict[str, object], claims: dict[str, object], secret: bytes = SECRET) -> str:
    return jwt.encode(
        header, claims, OctKey.import_key(secret), registry=jws.JWSRegistry(algorithms=["HS256", "HS512"])
    )


def test_an_access_token_says_whose_it_is_until_it_expires() -> None:
    token = new_access_token(Claims(7, "s"), SECRET, now_s=NOW_S, lives_s=60)
    assert read_access_token(token, SECRET, now_s=NOW_S + 59) == Claims(7, "s")
    assert read_access_token(token, SECRET, now_s=NOW_S + 60) is None
    assert read_access_token(token, b"o" * 32, now_s=NOW_S) is None
    assert read_access_token(_made({"alg": "HS256", "typ": "at+jwt"}, GOOD), SECRET, now_s=NOW_S) == Claims(7, "s")


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({"alg": "HS512", "typ": "at+jwt"}, {}),
        ({"alg": "HS256"}, {}),
        ({"alg": "HS256", "typ": "at+jwt", "kid": "../../etc/passwd"}, {}),
        ({"alg": "HS256", "typ": "at+jwt"}, {"aud": "other"}),
        ({"alg": "HS256", "typ": "at+jwt"}, {"aud": ["logfeed-api", "other"]}),
        ({"alg": "HS256", "typ": "at+jwt"}, {"iss": "other"}),
        ({"alg": "HS256", "typ": "at+jwt"}, {"exp": str(NOW_S + 60)}),
        ({"alg": "HS256", "typ": "at+jwt"}, {"exp": True}),
        ({"alg": "HS256", "typ": "at+jwt"}, {"exp": None}),
        ({"alg": "HS256", "typ": "at+jwt"}, {"sub": "-7"}),
        ({"alg": "HS256", "typ": "at+jwt"}, {"sub": "٧"}),
        ({"alg": "HS256", "typ": "at+jwt"}, {"sub": 7}),
        ({"alg": "HS256", "typ": "at+jwt"}, {"sid": None}),
    ],
)
def test_a_token_that_is_not_as_ours_is_refused(header: dict[str, object], claims: dict[str, object]) -> None:
    assert read_access_token(_made(header, {**GOOD, **claims}), SECRET, now_s=NOW_S) is None


def test_tokens_without_our_signature_are_refused() -> None:
    def part(content: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    unsigned = f"{part({'alg': 'none', 'typ': 'at+jwt'})}.{part(GOOD)}."
    private = RSAKey.generate_key(2048)
    registry = jws.JWSRegistry(algorithms=["RS256"])
    by_rsa = jwt.encode({"alg": "RS256", "typ": "at+jwt"}, GOOD, private, registry=registry)
    good = new_access_token(Claims(7, "s"), SECRET, now_s=NOW_S, lives_s=60)
    head, body, signature = good.split(".")
    changed = f"{head}.{part({**GOOD, 'sub': '1'})}.{signature}"
    bombs = ["a" * 100_000, "." * 1_000, "..", "a.b.c", f"{head}.{body}.", "[" * 4_000, "é.é.é", "", part({}) * 3]
    for token in (unsigned, by_rsa, changed, *bombs):
        assert read_access_token(token, SECRET, now_s=NOW_S) is None
